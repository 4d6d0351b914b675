#pragma once
// A hostfile in the form of DeepSpeed and Open MPI: `HOST [slots=N]` a line, `#` comments. It gives order and slots of
// nodes and starts nothing. Threads: pure, but find_this_host reads the machine's name.
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace coxswain::launcher {

struct Host {
  std::string name;
  int slots = 0;  // 0: not given
  friend bool operator==(const Host&, const Host&) = default;
};

/// Errors: InvalidArgument with every bad line.
[[nodiscard]] Result<std::vector<Host>> parse_hostfile(std::string_view text, const std::string& file);
/// Line of this machine's host name (with or without its domain), or -1.
[[nodiscard]] int find_this_host(const std::vector<Host>& hosts);

}  // namespace coxswain::launcher
