#pragma once
// The only door to the environment. Threads: reads only; call set_env before threads exist.
#include <optional>
#include <string>

namespace coxswain {

[[nodiscard]] std::optional<std::string> env(const std::string& name);
void set_env(const std::string& name, const std::string& value);

}  // namespace coxswain
