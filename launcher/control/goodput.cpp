#include "launcher/control/goodput.h"

#include <algorithm>
#include <string>
#include <utility>

#include "launcher/control/liveness.h"

namespace coxswain::launcher {
namespace {

double seconds_between(TimePoint from, TimePoint to) { return std::chrono::duration<double>(to - from).count(); }

std::int64_t integer_of(const Json& json, std::int64_t otherwise = 0) {
  return json.is_integer() ? json.integer() : otherwise;
}
double number_of(const Json& json) { return json.is_number() ? json.number() : 0; }
std::string string_of(const Json& json) { return json.is_string() ? json.string() : ""; }

/// Of a rank's last words the last, and not without end.
std::string last_line(const std::string& text) {
  constexpr std::size_t kMostLetters = 160;
  const std::size_t last = text.find_last_not_of(" \n");
  if (last == std::string::npos) return "";
  const std::size_t before = text.rfind('\n', last);
  const std::size_t first = before == std::string::npos ? 0 : before + 1;
  return text.substr(first, std::min(last + 1 - first, kMostLetters));
}

FailureBlock block_of(const Json& event, int generation, std::int64_t after_step) {
  FailureBlock block;
  block.node_lost = event["type"] == Json("node_lost");
  block.cause = string_of(event["cause"]);
  block.node = static_cast<int>(integer_of(event["node"], -1));
  block.rank = static_cast<int>(integer_of(event["rank"], -1));
  if (const Json& ranks = event["ranks"]; ranks.is_array() && !ranks.array().empty())
    block.rank = static_cast<int>(integer_of(ranks.array().front(), -1));
  block.generation = generation;
  block.after_step = after_step;
  block.evidence = last_line(string_of(event["evidence"]));
  block.log = string_of(event["log"]);
  return block;
}

// Times of the steady clock: coordinators of one run share it.
std::int64_t nanoseconds_of(TimePoint at) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(at.time_since_epoch()).count();
}
TimePoint time_of(const Json& json) { return TimePoint(std::chrono::nanoseconds(integer_of(json))); }

}  // namespace

/// From the last moment that has its class to `until`.
double Goodput::pass(TimePoint until) {
  const TimePoint to = std::max(until, classed_until_);
  return seconds_between(std::exchange(classed_until_, to), to);
}

/// Of `seconds` what nothing else has taken.
double Goodput::claim(double seconds) {
  const double taken = std::min(seconds, unclassed_seconds_);
  unclassed_seconds_ -= taken;
  return taken;
}

/// Steps wait for a copy, so it comes before the next of them.
void Goodput::claim_copies() {
  const double taken = claim(copy_seconds_);
  copy_seconds_ -= taken;
  spent_.checkpoint += taken;
}

void Goodput::recovering(double seconds) {
  spent_.recovery += seconds;
  if (block_open_) spent_.failures.back().recovery_seconds += seconds;
}

void Goodput::add(const Json& event, TimePoint at) {
  const std::string type = string_of(event["type"]);
  if (type == "worker_failed" || type == "node_lost") {
    failed(event, at);
  } else if (type == "generation_started") {
    generation_started(event);
  } else if (type == "checkpoint_saved" || type == "checkpoint_failed") {
    copy_seconds_ += number_of(event["copy_seconds"]);
    claim_copies();
  } else if (type == "replanned") {
    if (!reference_seconds_ && plan_times_.median_seconds() > 0) reference_seconds_ = plan_times_.median_seconds();
    plan_times_ = StepTimes();
  } else if (type == "checkpoint_loaded") {
    last_step_ = integer_of(event["step"]);
  }
}

void Goodput::failed(const Json& event, TimePoint at) {
  if (generation_ == 0) return;  // while measuring: the run never began to train
  FailureBlock block = block_of(event, generation_, last_step_);
  const bool missed = phase_ == Phase::Down || block.rank >= 0;
  if (!missed) {
    block.action = "left out: no rank ran there";
  } else {
    // The first sign: a word of it, or that a step is overdue.
    TimePoint sign = after(at, -number_of(event["suspected_seconds"]));
    if (phase_ == Phase::Stepping) sign = std::min(sign, after(classed_until_, plan_times_.median_seconds()));
    const double before = pass(std::min(sign, at));
    if (phase_ == Phase::Starting) spent_.start += before;
    under_way_seconds_ = 0;
    if (phase_ == Phase::Stepping) {  // a copy that steps waited for, and the step under way, which is lost
      const double copy = std::min(before, std::exchange(copy_seconds_, 0));
      spent_.checkpoint += copy;
      spent_.recomputed += under_way_seconds_ = before - copy;
    }
    if (phase_ == Phase::Down) recovering(before);
    if (block_open_) spent_.failures.back().action = "another failure followed";
    block.detection_seconds = pass(at);
    spent_.detection += block.detection_seconds;
    phase_ = Phase::Down;
    failed_generation_ = generation_;
  }
  ++spent_.num_failures;
  spent_.failures.push_back(std::move(block));
  if (spent_.failures.size() > kMostBlocks) spent_.failures.erase(spent_.failures.begin());
  block_open_ = missed;
}

void Goodput::generation_started(const Json& event) {
  generation_ = static_cast<int>(integer_of(event["generation"]));
  if (!event["after_step"].is_integer()) return;
  const std::int64_t after_step = event["after_step"].integer();
  spent_.recomputed += counted_.forget_after(after_step);
  if (block_open_) {
    FailureBlock& block = spent_.failures.back();
    block.action = "generation " + std::to_string(generation_) + " went on after step " + std::to_string(after_step);
    block.steps_lost = std::max<std::int64_t>(block.after_step - after_step, 0);
  }
  last_step_ = after_step;
  if (phase_ == Phase::Stepping) phase_ = Phase::Down;  // a change that no failure began
}

/// Of a generation that had failed when it was told, and did not go back before it: its time is no longer lost.
void Goodput::add_late(const StepRow& row) {
  const double seconds = std::min(row.step_seconds, under_way_seconds_);
  under_way_seconds_ -= seconds;
  spent_.recomputed -= seconds;
  counted_.add(row.step, {seconds, 0});
  last_step_ = row.step;
}

void Goodput::add(const StepRow& row, TimePoint at) {
  if (phase_ == Phase::Down && row.generation == failed_generation_) return add_late(row);
  const double before = phase_ == Phase::Stepping ? 0 : pass(after(at, -row.step_seconds));
  if (phase_ == Phase::Starting) spent_.start += before;
  if (phase_ == Phase::Down) recovering(before);
  phase_ = Phase::Stepping;
  block_open_ = false;
  unclassed_seconds_ += pass(at);
  claim_copies();
  StepRow own;
  own.step = row.step;
  own.step_seconds = claim(row.step_seconds);
  const double slower = reference_seconds_ ? std::max(own.step_seconds - *reference_seconds_, 0.0) : 0;
  counted_.add(own.step, {own.step_seconds, slower});
  plan_times_.add(own);
  last_step_ = row.step;
}

GoodputReport Goodput::report(TimePoint end) const {
  GoodputReport report = spent_;
  const double rest = std::max(seconds_between(classed_until_, end), 0.0);
  if (phase_ == Phase::Starting) report.start += rest;
  if (phase_ == Phase::Down) {
    report.recovery += rest;
    if (block_open_) report.failures.back().recovery_seconds += rest;
  }
  if (phase_ == Phase::Stepping) report.checkpoint += std::min(copy_seconds_, rest);
  const StepSeconds counted = counted_.total();
  report.total = std::max(seconds_between(begin_, end), 0.0);
  report.slower_plan = counted.slower;
  const double lost =
      report.start + report.checkpoint + report.detection + report.recovery + report.recomputed + report.slower_plan;
  report.useful = counted.all - counted.slower;
  report.other = std::max(report.total - report.useful - lost, 0.0);  // less by rounding alone
  return report;
}

Json Goodput::to_json() const {
  JsonArray blocks;
  for (const FailureBlock& block : spent_.failures) blocks.push_back(launcher::to_json(block));
  return JsonObject{{"begin_nanoseconds", nanoseconds_of(begin_)},
                    {"classed_until_nanoseconds", nanoseconds_of(classed_until_)},
                    {"unclassed_seconds", unclassed_seconds_},
                    {"copy_seconds", copy_seconds_},
                    {"phase", static_cast<int>(phase_)},
                    {"generation", generation_},
                    {"failed_generation", failed_generation_},
                    {"under_way_seconds", under_way_seconds_},
                    {"last_step", last_step_},
                    {"start_seconds", spent_.start},
                    {"checkpoint_seconds", spent_.checkpoint},
                    {"detection_seconds", spent_.detection},
                    {"recovery_seconds", spent_.recovery},
                    {"recomputed_seconds", spent_.recomputed},
                    {"num_failures", spent_.num_failures},
                    {"failures", std::move(blocks)},
                    {"counted", counted_.to_json()},
                    {"plan_times", plan_times_.to_json()},
                    {"reference_seconds", reference_seconds_ ? Json(*reference_seconds_) : Json()},
                    {"block_open", block_open_}};
}

Goodput Goodput::from_json(const Json& json) {
  Goodput made(time_of(json["begin_nanoseconds"]));
  made.classed_until_ = time_of(json["classed_until_nanoseconds"]);
  made.unclassed_seconds_ = number_of(json["unclassed_seconds"]);
  made.copy_seconds_ = number_of(json["copy_seconds"]);
  made.phase_ = static_cast<Phase>(integer_of(json["phase"]));
  made.generation_ = static_cast<int>(integer_of(json["generation"]));
  made.failed_generation_ = static_cast<int>(integer_of(json["failed_generation"], -1));
  made.under_way_seconds_ = number_of(json["under_way_seconds"]);
  made.last_step_ = integer_of(json["last_step"]);
  made.spent_.start = number_of(json["start_seconds"]);
  made.spent_.checkpoint = number_of(json["checkpoint_seconds"]);
  made.spent_.detection = number_of(json["detection_seconds"]);
  made.spent_.recovery = number_of(json["recovery_seconds"]);
  made.spent_.recomputed = number_of(json["recomputed_seconds"]);
  made.spent_.num_failures = integer_of(json["num_failures"]);
  if (json["failures"].is_array()) {
    for (const Json& block : json["failures"].array()) made.spent_.failures.push_back(failure_block_from_json(block));
  }
  made.counted_ = StepSums::from_json(json["counted"]);
  made.plan_times_ = StepTimes::from_json(json["plan_times"]);
  if (json["reference_seconds"].is_number()) made.reference_seconds_ = json["reference_seconds"].number();
  made.block_open_ = json["block_open"] == Json(true) && !made.spent_.failures.empty();
  return made;
}

}  // namespace coxswain::launcher
