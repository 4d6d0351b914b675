#include "launcher/control/agent_figures.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace coxswain::launcher {
namespace {

using prometheus::BuildGauge;
using Gauges = prometheus::Family<prometheus::Gauge>;

}  // namespace

std::string prometheus_text(const AgentFigures& figures, bool connected) {
  // Made anew for each question: a rank that went away is no series any more.
  prometheus::Registry registry;
  const auto gauge = [&registry](const char* name, const char* help) -> Gauges& {
    return BuildGauge().Name(name).Help(help).Register(registry);
  };
  gauge("coxswain_agent_connected", "1 while the coordinator is reached").Add({}).Set(connected ? 1 : 0);
  gauge("coxswain_agent_generation", "Generation that runs here; 0: none").Add({}).Set(figures.generation);
  prometheus::BuildCounter()
      .Name("coxswain_agent_rank_failures_total")
      .Help("Ranks of this node that failed")
      .Register(registry)
      .Add({})
      .Increment(static_cast<double>(figures.failures));
  Gauges& running = gauge("coxswain_rank_running", "1 while the rank's process works");
  Gauges& step = gauge("coxswain_rank_step", "Last step that the rank told");
  Gauges& seconds = gauge("coxswain_rank_step_seconds", "Seconds of that step");
  Gauges& peak = gauge("coxswain_rank_peak_memory_bytes", "Peak of the rank's allocator");
  Gauges& resident = gauge("coxswain_rank_resident_bytes", "Peak resident memory of the rank's process");
  for (const RankFigures& rank : figures.ranks) {
    const prometheus::Labels labels{{"rank", std::to_string(rank.rank)}};
    running.Add(labels).Set(rank.running ? 1 : 0);
    if (rank.step == 0) continue;
    step.Add(labels).Set(static_cast<double>(rank.step));
    seconds.Add(labels).Set(rank.step_seconds);
    peak.Add(labels).Set(static_cast<double>(rank.peak_memory_bytes));
    resident.Add(labels).Set(static_cast<double>(rank.resident_bytes));
  }
  return prometheus::TextSerializer().Serialize(registry.Collect());
}

}  // namespace coxswain::launcher
