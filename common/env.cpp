#include "common/env.h"

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

}  // namespace coxswain
