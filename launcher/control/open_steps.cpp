#include "launcher/control/open_steps.h"

#include <algorithm>

#include "proto/control.pb.h"

namespace coxswain::launcher {
namespace {

RankTrace rank_trace(const control::StepReport& report) {
  const control::StepTrace& trace = report.trace();
  return {trace.begin_nanoseconds(),
          trace.clock_offset_nanoseconds(),
          trace.clock_error_nanoseconds(),
          report.step_seconds(),
          {trace.start_seconds().begin(), trace.start_seconds().end()},
          {trace.end_seconds().begin(), trace.end_seconds().end()}};
}

void add_not_finite(StepRow& row, int rank, const control::StepReport& report) {
  if (report.not_finite().empty()) return;
  if (row.not_finite_rank >= 0 && (report.not_finite() == row.not_finite || row.not_finite == "the loss is")) return;
  row.not_finite_rank = rank;
  row.not_finite = report.not_finite();
}

}  // namespace

void OpenSteps::add(int rank, int num_ranks, std::string_view bytes) {
  control::StepReport report;
  report.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  Open& open = open_[report.step()];
  open.reports.resize(static_cast<std::size_t>(num_ranks));
  std::string& told = open.reports[static_cast<std::size_t>(rank)];
  if (told.empty()) ++open.num_told;
  told = std::string(bytes);
}

std::optional<StepRow> OpenSteps::next(int generation) {
  if (open_.empty() || open_.begin()->second.num_told < open_.begin()->second.reports.size()) return std::nullopt;
  return take(generation);
}

bool OpenSteps::tells_of(std::int64_t first, std::int64_t last) const {
  if (first > last) return true;
  auto step = open_.begin();
  for (std::int64_t wanted = first; wanted <= last; ++wanted, ++step)
    if (step == open_.end() || step->first != wanted) return false;
  return true;
}

StepRow OpenSteps::take(int generation) {
  const auto& [step, open] = *open_.begin();
  const std::vector<std::string>& reports = open.reports;
  StepRow row;
  row.step = step;
  row.generation = generation;
  for (std::size_t rank = 0; rank < reports.size(); ++rank) {
    control::StepReport report;
    report.ParseFromString(reports[rank]);
    row.peak_memory_bytes.push_back(report.peak_memory_bytes());
    row.resident_bytes.push_back(report.resident_bytes());
    if (reports[rank].empty()) continue;  // it is gone
    row.loss = report.loss();
    row.grad_norm = report.grad_norm();
    row.learning_rate = report.learning_rate();
    row.step_seconds = std::max(row.step_seconds, report.step_seconds());
    row.bubble_fraction += report.bubble_fraction() / static_cast<double>(open.num_told);
    row.skipped = report.skipped();
    row.loss_scale = report.loss_scale();
    add_not_finite(row, static_cast<int>(rank), report);
    if (report.has_validation_loss()) row.validation_loss = report.validation_loss();
    for (const control::ExpertTokens& router : report.expert_tokens())
      row.expert_tokens.push_back({router.block(), {router.tokens().begin(), router.tokens().end()}});
    if (report.has_trace()) row.traces.push_back(rank_trace(report));
  }
  if (row.traces.size() < reports.size()) row.traces.clear();  // by rank, or of no use
  open_.erase(open_.begin());
  return row;
}

}  // namespace coxswain::launcher
