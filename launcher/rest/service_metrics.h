#pragma once
// What Prometheus reads of the service: requests by path and status, how long they took, and what searches there were.
// prometheus-cpp in the .cpp. Threads: any.
#include <map>
#include <memory>
#include <string>

#include "common/units.h"
#include "launcher/rest/job_record.h"
#include "launcher/rest/plan_searches.h"

namespace coxswain::launcher {

class ServiceMetrics {
 public:
  ServiceMetrics();
  ~ServiceMetrics();
  ServiceMetrics(const ServiceMetrics&) = delete;
  ServiceMetrics& operator=(const ServiceMetrics&) = delete;

  /// `path`: a pattern of routes.h, so that there are few.
  void count(const std::string& path, int status, Seconds seconds);
  /// All of it, with what the searches count and how many jobs there are by state, in Prometheus' text format.
  [[nodiscard]] std::string text(const PlanSearches::Counts& searches, const std::map<JobState, int>& jobs) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace coxswain::launcher
