#pragma once
// Many HTTP clients in one thread: requests that are due at times of their own (open loop), or one after the other
// (closed loop), over connections that stay. A latency counts from when the request was due, so that what waits behind
// a slow answer counts too. Called by benches of `launch serve`. Threads: one.
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace coxswain::bench {

struct LoadSettings {
  int port = 0;  // on loopback
  int clients = 1;
  double seconds = 10;
  double per_second = 0;                      // of all clients together, evenly; 0: each asks again at once
  int requests = 0;                           // after so many it ends, too; 0: by time alone
  std::function<std::string()> next_request;  // whole: line, header, body
};

struct LoadResult {
  std::map<int, int> statuses;    // how many answers had each; 0: the connection ended without one
  std::vector<double> latencies;  // seconds of each 200, ascending
  double seconds = 0;
  [[nodiscard]] int answers() const;
  /// Nearest rank; 0 where there is none.
  [[nodiscard]] double percentile(double fraction) const;
};
[[nodiscard]] LoadResult run_load(const LoadSettings& settings);

}  // namespace coxswain::bench
