#include "common/env.h"

#include <unistd.h>

#include <cstdlib>

#include "common/ensure.h"

namespace coxswain {

std::optional<std::string> env(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  if (value == nullptr) return std::nullopt;
  return std::string(value);
}

void set_env(const std::string& name, const std::string& value) {
  COX_ENSURE(::setenv(name.c_str(), value.c_str(), 1) == 0, name);
}

std::map<std::string, std::string> all_env() {
  std::map<std::string, std::string> variables;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::size_t equals = text.find('=');
    if (equals != std::string::npos) variables.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return variables;
}

}  // namespace coxswain
