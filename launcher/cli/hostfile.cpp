#include "launcher/cli/hostfile.h"

#include <unistd.h>

#include <charconv>
#include <sstream>

namespace coxswain::launcher {

Result<std::vector<Host>> parse_hostfile(std::string_view text, const std::string& file) {
  std::vector<Host> hosts;
  std::vector<Error> problems;
  std::istringstream lines{std::string(text)};
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    std::istringstream words(line.substr(0, line.find('#')));
    Host host;
    if (!(words >> host.name)) continue;
    for (std::string word; words >> word;) {
      const std::string_view digits = std::string_view(word).substr(word.starts_with("slots=") ? 6 : 0);
      const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), host.slots);
      if (!word.starts_with("slots=") || code != std::errc{} || end != digits.data() + digits.size() || host.slots < 1)
        problems.push_back({ErrorCode::InvalidArgument, "bad word in the hostfile", file + ":" + std::to_string(number),
                            "HOST [slots=N]", word, ""});
    }
    for (const auto& other : hosts)
      if (other.name == host.name)
        problems.push_back({ErrorCode::InvalidArgument, "host named twice", file + ":" + std::to_string(number),
                            "one line a host", host.name, "add up its slots"});
    hosts.push_back(host);
  }
  if (hosts.empty())
    problems.push_back(
        {ErrorCode::InvalidArgument, "hostfile names no host", file, "HOST [slots=N] a line", "nothing", ""});
  if (!problems.empty()) return combine_errors(ErrorCode::InvalidArgument, "bad hostfile", std::move(problems));
  return hosts;
}

int find_this_host(const std::vector<Host>& hosts) {
  char name[256] = {};
  if (gethostname(name, sizeof name - 1) != 0) return -1;
  const std::string whole = name;
  const std::string first = whole.substr(0, whole.find('.'));
  for (std::size_t i = 0; i < hosts.size(); ++i)
    if (hosts[i].name == whole || hosts[i].name == first || hosts[i].name.substr(0, hosts[i].name.find('.')) == first)
      return static_cast<int>(i);
  return -1;
}

}  // namespace coxswain::launcher
