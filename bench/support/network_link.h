#pragma once
// Two network namespaces joined by a pair of virtual Ethernet devices, with or without a limit on their rate, and jobs
// over them: a node in each. Needs root, ip, tc and nsenter. Called by bench programs. Threads: one.
#include <string>
#include <vector>

#include "bench/support/train_runs.h"

namespace coxswain::bench {

/// Both namespaces are this program's own and are removed at its end. Exits 77 where they cannot be made.
class NetworkLink {
 public:
  NetworkLink();
  ~NetworkLink();
  NetworkLink(const NetworkLink&) = delete;
  NetworkLink& operator=(const NetworkLink&) = delete;
  /// In each direction; as tc writes rates, "50mbit".
  void limit(const std::string& rate);
  void lift_limit();
  [[nodiscard]] const std::string& a() const { return a_; }
  [[nodiscard]] const std::string& b() const { return b_; }

 private:
  std::string a_, b_;
};

/// `launch train` on both ends, each with `devices`; `flags` go to the first. Exits 1 when the run fails.
[[nodiscard]] TrainRun run_over(const NetworkLink& link, const TrainJob& job, const std::string& devices,
                                const std::vector<std::string>& flags = {});

}  // namespace coxswain::bench
