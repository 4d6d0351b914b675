#pragma once
// What an agent says of its node to whoever watches nodes: which ranks it has and how far they are, as Prometheus reads
// it. Made by Agent, served by agent_process. Threads: pure values. Source: docs/failures.md, "Watching a node".
#include <cstdint>
#include <string>
#include <vector>

namespace coxswain::launcher {

struct RankFigures {
  int rank = 0;
  bool running = false;     // its process lives and has not let go of the generation
  std::int64_t step = 0;    // the last that it told, in this generation; 0: none yet
  double step_seconds = 0;  // of that step, as the next two
  std::int64_t peak_memory_bytes = 0, resident_bytes = 0;
};

struct AgentFigures {
  int generation = 0;  // 0: none runs, or ranks measure
  std::int64_t failures = 0;
  std::vector<RankFigures> ranks;
};

/// Prometheus' text format; `connected`: to the coordinator.
[[nodiscard]] std::string prometheus_text(const AgentFigures& figures, bool connected);

}  // namespace coxswain::launcher
