#pragma once
// The signals that rank_faults.cpp, loaded into the processes of a disturbed run, turns into faults. Used by it and by
// Disturber. Threads: pure.
#include <csignal>

namespace coxswain::bench {

struct RankFaultSignals {
  int exit, throws, grows, clock;
};
/// Nobody else uses these; glibc says only at run time where they begin.
[[nodiscard]] inline RankFaultSignals rank_fault_signals() {
  return {SIGRTMIN + 5, SIGRTMIN + 6, SIGRTMIN + 7, SIGRTMIN + 8};
}

}  // namespace coxswain::bench
