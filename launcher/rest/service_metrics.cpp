#include "launcher/rest/service_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace coxswain::launcher {

struct ServiceMetrics::State {
  prometheus::Registry registry;
  prometheus::Family<prometheus::Counter>& requests = prometheus::BuildCounter()
                                                          .Name("coxswain_http_requests_total")
                                                          .Help("Requests by path and status")
                                                          .Register(registry);
  prometheus::Family<prometheus::Histogram>& seconds = prometheus::BuildHistogram()
                                                           .Name("coxswain_http_request_seconds")
                                                           .Help("From a request's last byte to its answer")
                                                           .Register(registry);
  prometheus::Family<prometheus::Gauge>& searches = prometheus::BuildGauge()
                                                        .Name("coxswain_plan_searches")
                                                        .Help("Dry runs by what became of them")
                                                        .Register(registry);
  prometheus::Family<prometheus::Gauge>& kept = prometheus::BuildGauge()
                                                    .Name("coxswain_plans_kept_bytes")
                                                    .Help("Memory of answers that are kept")
                                                    .Register(registry);
  prometheus::Family<prometheus::Gauge>& jobs =
      prometheus::BuildGauge().Name("coxswain_jobs").Help("Jobs by state").Register(registry);
};

ServiceMetrics::ServiceMetrics() : state_(std::make_unique<State>()) {}
ServiceMetrics::~ServiceMetrics() = default;

void ServiceMetrics::count(const std::string& path, int status, Seconds seconds) {
  static const prometheus::Histogram::BucketBoundaries kBounds{0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 60};
  state_->requests.Add({{"path", path}, {"status", std::to_string(status)}}).Increment();
  state_->seconds.Add({{"path", path}}, kBounds).Observe(seconds.value);
}

std::string ServiceMetrics::text(const PlanSearches::Counts& counts, const std::map<JobState, int>& jobs) const {
  const auto set = [this](const char* state, double value) { state_->searches.Add({{"state", state}}).Set(value); };
  set("asked", static_cast<double>(counts.asked));
  set("answered_from_kept", static_cast<double>(counts.answered_from_kept));
  set("searched", static_cast<double>(counts.searched));
  set("refused", static_cast<double>(counts.refused));
  set("waiting", static_cast<double>(counts.waiting));
  state_->kept.Add({}).Set(static_cast<double>(counts.kept_bytes));
  for (const auto& [state, number] : jobs)
    state_->jobs.Add({{"state", std::string(to_text(state))}}).Set(static_cast<double>(number));
  return prometheus::TextSerializer().Serialize(state_->registry.Collect());
}

}  // namespace coxswain::launcher
