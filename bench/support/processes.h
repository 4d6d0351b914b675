#pragma once
// What the processes of a run take, from /proc: processor time by process and by thread. Called by benches that look at
// a run from outside. Threads: any. Source: proc(5).
#include <map>
#include <string>
#include <vector>

namespace coxswain::bench {

/// `root` and everything beneath it.
[[nodiscard]] std::vector<int> family_of(int root);
/// Of a process of ours: "launch", "coordinator", "agent", "worker"; else the name of its program.
[[nodiscard]] std::string role_of(int pid);
/// It has a handler of its own for the signal: one that only begins has none yet, and would end by it.
[[nodiscard]] bool catches(int pid, int signal);

/// Seconds of all its threads, ended ones too; 0 when there is no such process. Exact to 0.01 s.
[[nodiscard]] double processor_seconds(int pid);

struct ThreadTime {
  std::string name;
  double seconds = 0;
};
/// Of the threads that live, by id; the first one has the id of the process.
[[nodiscard]] std::map<int, ThreadTime> threads_of(int pid);

/// What each thread does in the kernel now, a line each: its name, state, system call with arguments, where it waits.
[[nodiscard]] std::string waits_of(int pid);

}  // namespace coxswain::bench
