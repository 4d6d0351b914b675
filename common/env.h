#pragma once
// The only door to the environment. Threads: reads only; call set_env before threads exist.
#include <map>
#include <optional>
#include <string>

namespace coxswain {

[[nodiscard]] std::optional<std::string> env(const std::string& name);
void set_env(const std::string& name, const std::string& value);
/// Every variable, by name: what a spawned process inherits unless told otherwise.
[[nodiscard]] std::map<std::string, std::string> all_env();

}  // namespace coxswain
