#include "worker/engine/expert_load.h"

#include "common/ensure.h"
#include "worker/engine/expert_linear.h"

namespace coxswain::worker {
namespace {

thread_local ExpertLoadWatch* watch = nullptr;

}  // namespace

ExpertLoadWatch::ExpertLoadWatch() {
  COX_ENSURE(watch == nullptr);
  watch = this;
}
ExpertLoadWatch::~ExpertLoadWatch() { watch = nullptr; }

double ExpertLoadWatch::take_squared_cv() {
  const double mean = products_ > 0 ? sum_ / products_ : 0;
  sum_ = 0;
  products_ = 0;
  return mean;
}

void ExpertLoadWatch::add(const ExpertGroups& groups) {
  const auto experts = static_cast<double>(groups.num_experts());
  const double mean = static_cast<double>(groups.order.size()) / experts;
  if (mean == 0) return;
  double variance = 0;
  for (std::int64_t e = 0; e < groups.num_experts(); ++e) {
    const double off = static_cast<double>(groups.rows_of(e)) / mean - 1;
    variance += off * off / experts;
  }
  sum_ += variance;
  ++products_;
}

void watch_load(const ExpertGroups& groups) {
  if (watch != nullptr) watch->add(groups);
}

}  // namespace coxswain::worker
