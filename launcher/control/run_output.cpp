#include "launcher/control/run_output.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <limits>
#include <map>
#include <numeric>

#include "common/log.h"
#include "proto/error_json.h"

namespace coxswain::launcher {
namespace {

void tell_line(const std::string& text) { tell(JsonObject{{"console", text}}); }

std::string plan_line(const PlanRecord& plan) {
  const std::size_t ranks = plan.chosen.ranks.size();
  char text[64];
  std::snprintf(text, sizeof text, "%.1f ms", plan.prediction.step_seconds * 1e3);
  std::int64_t memory = 0;
  for (const std::int64_t bytes : plan.prediction.peak_memory_bytes) memory = std::max(memory, bytes);
  return "plan: " + plan.summary + " on " + std::to_string(ranks) + (ranks == 1 ? " rank" : " ranks") + " (" +
         plan.backend + "); predicted step " + text + ", memory " + memory_text(memory) + " a rank";
}

std::int64_t integer_of(const Json& json) { return json.is_integer() ? json.integer() : 0; }

/// JSON has no NaN.
Json number_or_null(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

std::vector<std::int64_t> integers_of(const Json& array) {
  std::vector<std::int64_t> numbers;
  if (!array.is_array()) return numbers;
  for (const Json& number : array.array()) numbers.push_back(integer_of(number));
  return numbers;
}

JsonArray array_of(const std::vector<std::int64_t>& numbers) { return {numbers.begin(), numbers.end()}; }

/// Of the router that is worst off.
double busiest_over_mean(const std::vector<ExpertTokens>& routers) {
  double worst = 0;
  for (const ExpertTokens& router : routers) {
    const double all =
        static_cast<double>(std::accumulate(router.tokens.begin(), router.tokens.end(), std::int64_t{0}));
    if (all <= 0) continue;
    const auto busiest = *std::max_element(router.tokens.begin(), router.tokens.end());
    worst = std::max(worst, static_cast<double>(busiest) * static_cast<double>(router.tokens.size()) / all);
  }
  return worst;
}

}  // namespace

void tell(const Json& object) { std::cout << to_text(object) << "\n" << std::flush; }

RunOutput::RunOutput(const CoordinatorStart& start, const Job* job, const Clock& clock)
    : start_(start), job_(job), clock_(clock), files_(start.run_dir, clock), now_(start.began), goodput_(start.began) {}

Result<void> RunOutput::find_told(const Json& then) {
  const auto end_of = [&then](const std::string& lines, const std::string& bytes) {
    return FileEnd{integer_of(then[lines]), integer_of(then[bytes])};
  };
  COX_TRY(const FileEnd events, files_.find_end("events.jsonl", end_of("events", "event_bytes")));
  COX_TRY(const FileEnd rows, files_.find_end("metrics.jsonl", end_of("rows", "row_bytes")));
  events_told_ = events.lines;
  rows_told_ = rows.lines;
  if (start_.trace_steps.any() && !std::filesystem::exists(start_.run_dir / trace_file(start_.trace_steps)))
    log(LogLevel::Warn, "trace",
        "no steps are traced any more: the coordinator was restarted, and their times went with it");
  return {};
}

Json RunOutput::state() const {
  return JsonObject{{"events", events_},
                    {"event_bytes", files_.size("events.jsonl")},
                    {"rows", rows_},
                    {"row_bytes", files_.size("metrics.jsonl")},
                    {"times", times_.to_json()},
                    {"goodput", goodput_.to_json()},
                    {"last_step", last_.step},
                    {"loss", number_or_null(last_.loss)},
                    {"validation_loss", validation_loss_ ? number_or_null(*validation_loss_) : Json()},
                    {"peak_memory_bytes", array_of(last_.peak_memory_bytes)},
                    {"resident_bytes", array_of(last_.resident_bytes)}};
}

void RunOutput::go_on_from(const Json& state) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  events_ = integer_of(state["events"]);
  rows_ = integer_of(state["rows"]);
  times_ = StepTimes::from_json(state["times"]);
  goodput_ = Goodput::from_json(state["goodput"]);
  last_ = StepRow();
  last_.step = integer_of(state["last_step"]);
  last_.loss = state["loss"].is_number() ? state["loss"].number() : kNone;
  if (state["validation_loss"].is_number()) validation_loss_ = state["validation_loss"].number();
  last_.peak_memory_bytes = integers_of(state["peak_memory_bytes"]);
  last_.resident_bytes = integers_of(state["resident_bytes"]);
}

Result<void> RunOutput::write_inputs(const PlanChoice& choice) const {
  COX_TRY_VOID(files_.write("job.yaml", start_.job_text));
  COX_TRY_VOID(files_.write("cluster.json", to_text(cluster::to_json(choice.cluster.resources), 2) + "\n"));
  if (!choice.cluster.profile.blocks.empty())
    COX_TRY_VOID(files_.write("profile.json", to_text(cluster::to_json(choice.cluster.profile), 2) + "\n"));
  return files_.write("plan-1.json", to_text(choice.plan_file, 2) + "\n");
}

Result<void> RunOutput::write_changed(const PlanChoice& choice, int generation) const {
  const std::string number = std::to_string(generation);
  COX_TRY_VOID(
      files_.write("cluster-" + number + ".json", to_text(cluster::to_json(choice.cluster.resources), 2) + "\n"));
  return files_.write("plan-" + number + ".json", to_text(choice.plan_file, 2) + "\n");
}

void RunOutput::go_on(const PlanRecord& plan, int generation) {
  plan_text_ = plan.plan_text;
  prediction_ = plan.prediction;
  const bool told = events_ < events_told_;
  record(JsonObject{{"type", "replanned"},
                    {"generation", generation},
                    {"summary", plan.summary},
                    {"plan_hash", plan.plan_hash},
                    {"devices", plan.num_devices},
                    {"nodes", plan.num_nodes},
                    {"predicted_step_seconds", plan.prediction.step_seconds},
                    {"search_seconds", plan.search_seconds}});
  if (trace_) write_trace();  // later steps have other actions
  if (!told) tell_line(plan_line(plan));
}

void RunOutput::begin(const PlanRecord& plan) {
  writing_ = true;
  plan_text_ = plan.plan_text;
  prediction_ = plan.prediction;
  for (Json& event : std::exchange(held_back_, {})) write_event(std::move(event));
  record(JsonObject{{"type", "cluster_probed"}, {"devices", plan.num_devices}, {"nodes", plan.num_nodes}});
  const bool told = events_ < events_told_;
  record(JsonObject{{"type", "plan_chosen"},
                    {"generation", 1},
                    {"summary", plan.summary},
                    {"plan_hash", plan.plan_hash},
                    {"predicted_step_seconds", plan.prediction.step_seconds},
                    {"search_seconds", plan.search_seconds}});
  if (!told) {
    tell_line("cluster: " + plan.cluster);
    tell_line(plan_line(plan));
  }
  for (const std::string& rejected : start_.rejected)
    record(JsonObject{{"type", "checkpoint_rejected"}, {"cause", rejected}});
  if (!start_.resume_from.empty())
    record(JsonObject{
        {"type", "checkpoint_loaded"}, {"step", start_.resume_step}, {"folder", start_.resume_from.string()}});
  if (!told) tell_line(console_header());
}

void RunOutput::record(Json event) {
  if (start_.run_dir.empty()) return;
  if (writing_ && event["type"] == Json("job_finished")) record_goodput();
  goodput_.add(event, now_);
  if (writing_) return write_event(std::move(event));
  event["time"] = clock_.utc_text();
  held_back_.push_back(std::move(event));
}

void RunOutput::record_goodput() {
  const GoodputReport report = goodput_.report(now_);
  JsonArray lines;
  for (const std::string& line : goodput_lines(report)) lines.push_back(line);
  add_result("goodput", std::move(lines));
  record(goodput_event(report));
}

void RunOutput::write_event(Json event) {
  if (events_++ < events_told_) return;
  tell_event(event);
  note(files_.append_event(std::move(event)));
}

void RunOutput::tell_event(const Json& event) {
  const Json& type = event["type"];
  if (type == Json("step_skipped")) {
    // Of float16 it is the usual way to a scale that fits; else something is wrong.
    const bool scale_falls = event["loss_scale"].is_number() && event["cause"] == Json("the gradients are not finite");
    log(scale_falls ? LogLevel::Info : LogLevel::Warn, "train", skip_line(event));
  } else if (type == Json("generation_started") && event.object().contains("restarts")) {
    const bool node = event["failed_rank"] == Json(-1);
    log(LogLevel::Warn, "train",
        (node ? "" : "rank " + to_text(event["failed_rank"]) + " on ") + "node " + to_text(event["failed_node"]) +
            (node ? " is lost: " : " failed: ") + event["cause"].string() + "; generation " +
            to_text(event["generation"]) + " goes on after step " + to_text(event["after_step"]));
    note(files_.write("plan-" + to_text(event["generation"]) + ".json", plan_text_));
  } else if (type == Json("generation_started") && event.object().contains("after_step")) {
    log(LogLevel::Info, "train",
        "generation " + to_text(event["generation"]) + " goes on after step " + to_text(event["after_step"]) +
            " under another plan");
    note(files_.write("plan-" + to_text(event["generation"]) + ".json", plan_text_));
  } else if (type == Json("calibrated")) {
    tell_line(calibration_line(event));
  } else if (type == Json("checkpoint_failed")) {
    log(LogLevel::Warn, "train",
        "step " + to_text(event["step"]) + " is not saved: " + event["cause"].string() + " (" +
            event["where"].string() + ")");
  } else if (type == Json("checkpoint_not_copied") && event.object().contains("node")) {
    log(LogLevel::Warn, "train",
        "step " + to_text(event["step"]) + ": node " + to_text(event["node"]) +
            " could not put its part in its place: " + event["cause"].string());
  } else if (type == Json("checkpoint_not_copied")) {
    log(LogLevel::Warn, "train",
        "step " + to_text(event["step"]) + ": no other node has a copy of what rank " + to_text(event["rank"]) +
            " saved: " + event["cause"].string());
  } else if (type == Json("node_not_used")) {
    log(LogLevel::Warn, "train",
        "node " + to_text(event["node"]) + " came, but its link cannot be measured: " + event["cause"].string());
  } else if (type == Json("checkpoint_loaded")) {
    tell_line("resume: after step " + to_text(event["step"]) + ", from " + event["folder"].string());
  } else if (type == Json("coordinator_restarted")) {
    log(LogLevel::Warn, "train",
        "the coordinator was restarted; it knows of step " + to_text(event["step"]) + " and what came before");
  }
}

void RunOutput::record_step(StepRow row) {
  const bool told = rows_++ < rows_told_;
  times_.add(row);
  goodput_.add(row, now_);
  if (row.validation_loss) validation_loss_ = row.validation_loss;
  if (!told) tell_step(row);
  last_ = std::move(row);
}

void RunOutput::tell_step(StepRow& row) {
  if (trace_) trace_step(row);
  note(files_.append("metrics.jsonl", metrics_object(row, prediction_)));
  add_scalars(row);
  const bool listed =
      row.step == 1 || row.step % std::max<std::int64_t>(job_->log_every, 1) == 0 || row.step == job_->steps;
  if (listed || row.validation_loss) tell_line(console_line(row, prediction_));
}

void RunOutput::add_scalars(const StepRow& row) {
  const auto fullest = [](const std::vector<std::int64_t>& bytes) {
    return bytes.empty() ? 0.0 : static_cast<double>(*std::max_element(bytes.begin(), bytes.end()));
  };
  std::map<std::string, double> values{{"loss", row.loss},
                                       {"grad_norm", row.grad_norm},
                                       {"learning_rate", row.learning_rate},
                                       {"step_seconds/measured", row.step_seconds},
                                       {"step_seconds/predicted", prediction_.step_seconds},
                                       {"peak_memory_bytes/measured", fullest(row.peak_memory_bytes)},
                                       {"peak_memory_bytes/predicted", fullest(prediction_.peak_memory_bytes)},
                                       {"bubble_fraction", row.bubble_fraction}};
  if (row.step_seconds > 0) {
    values["tokens_per_second"] = static_cast<double>(prediction_.tokens_per_step) / row.step_seconds;
    values["model_flops_utilization"] =
        prediction_.model_flops_utilization * prediction_.step_seconds / row.step_seconds;
  }
  if (!row.expert_tokens.empty()) values["expert_load/busiest_over_mean"] = busiest_over_mean(row.expert_tokens);
  if (row.validation_loss) values["validation_loss"] = *row.validation_loss;
  const std::string utc = clock_.utc_text();
  if (!scalars_) scalars_.emplace(files_.path() / "tensorboard", utc);
  if (const auto added = scalars_->add(row.step, utc, values); !added) {
    // What it shows stands in metrics.jsonl: no run ends for it. The next step begins another file.
    if (!scalars_missed_) log(LogLevel::Warn, "tensorboard", to_text(added.error()));
    scalars_missed_ = true;
    scalars_.reset();
  }
}

void RunOutput::trace_step(StepRow& row) {
  if (auto added = trace_->add(row); !added) log(LogLevel::Warn, "trace", to_text(added.error()));
  if (trace_->complete()) write_trace();
}

/// The steps that are there: of a run that ended before its last traced step, those before.
void RunOutput::write_trace() {
  const auto text = trace_->text();
  const std::string file = trace_file(trace_->steps());
  trace_.reset();
  if (!text) return;
  const auto written = files_.write(file, *text);
  note(written);
  if (written) result_["trace"] = file;
}

void RunOutput::note(const Result<void>& written) {
  if (!written && !disk_error_) disk_error_ = written.error();
}

void RunOutput::end(const RunEnded& ended) {
  if (trace_) write_trace();
  result_["exit_code"] = static_cast<int>(ended.exit_code);
  result_["signal"] = ended.signal;
  if (ended.error) result_["error"] = proto::to_json(*ended.error);
  result_["steps"] = last_.step;
  result_["median_step_seconds"] = times_.median_seconds();
  result_["predicted_step_seconds"] = prediction_.step_seconds;
  result_["started"] = writing_;
  if (last_.step > 0) result_["loss"] = last_.loss == last_.loss ? Json(last_.loss) : Json(nullptr);
  if (validation_loss_ && *validation_loss_ == *validation_loss_) result_["validation_loss"] = *validation_loss_;
  result_["peak_memory_bytes"] = array_of(last_.peak_memory_bytes);
  result_["resident_bytes"] = array_of(last_.resident_bytes);
  result_["predicted_peak_memory_bytes"] = array_of(prediction_.peak_memory_bytes);
  tell(JsonObject{{"outcome", result_}});
}

}  // namespace coxswain::launcher
