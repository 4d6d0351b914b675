#include "launcher/watching/run_view.h"

#include <algorithm>
#include <cstdio>
#include <tuple>
#include <utility>

#include "launcher/control/console.h"
#include "launcher/job/job.h"

namespace coxswain::launcher {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kPartBytes = std::size_t{1} << 20, kNewestSteps = 20;
constexpr int kBar = 30;

bool is_run(const fs::path& folder) {
  std::error_code code;
  return fs::exists(folder / "job.yaml", code) && fs::exists(folder / "events.jsonl", code);
}

/// The number at the end of a name that begins so; -1: another name.
int number_after(const std::string& name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return -1;
  const std::string digits = name.substr(prefix.size());
  if (digits.empty() || digits.size() > 8 || digits.find_first_not_of("0123456789") != std::string::npos) return -1;
  return std::stoi(digits);
}

/// Names of folders in `folder`, sorted.
std::vector<std::string> folders_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(folder, code)) {
    std::error_code ignored;
    if (entry.is_directory(ignored)) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::optional<fs::path> newest_attempt(const fs::path& job) {
  int newest = -1;
  for (const std::string& name : folders_in(job)) newest = std::max(newest, number_after(name, "run-"));
  return newest < 0 ? std::nullopt : std::optional(job / ("run-" + std::to_string(newest)));
}

template <class Visit>
void for_each_object(std::string_view text, Visit visit) {
  for_each_line(text, [&](std::string_view line) {
    if (const auto json = parse_json(line); json && json->is_object()) visit(*json);
  });
}

double number_or(const Json& json, double otherwise) { return json.is_number() ? json.number() : otherwise; }

std::int64_t largest_of(const Json& numbers) {
  std::int64_t largest = 0;
  if (numbers.is_array())
    for (const Json& one : numbers.array())
      if (one.is_number()) largest = std::max(largest, static_cast<std::int64_t>(one.number()));
  return largest;
}

double median_of(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string text_of(double value, const char* format) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string span_text(double seconds) {
  if (seconds >= 7200) return text_of(seconds / 3600, "%.1f h");
  if (seconds >= 120) return text_of(seconds / 60, "%.1f min");
  return seconds >= 1 ? text_of(seconds, "%.1f s") : text_of(seconds * 1e3, "%.1f ms");
}

std::string failure_text(const Json& failure) {
  const auto text = [&failure](const char* key) {
    const Json& value = failure[key];
    return value.is_string() ? value.string() : value.is_integer() ? std::to_string(value.integer()) : "?";
  };
  const std::string who = failure["type"] == Json("node_lost") ? "node " + text("node")
                                                               : "rank " + text("rank") + " on node " + text("node");
  return who + ": " + text("cause");
}

}  // namespace

Result<fs::path> find_run(const std::string& named, const fs::path& state) {
  if (!named.empty()) {
    if (is_run(named)) return fs::path(named);
    if (named.find('/') == std::string::npos)
      if (const auto attempt = newest_attempt(state / "jobs" / named)) return *attempt;
    std::string known;
    for (const std::string& name : folders_in("runs")) known += (known.empty() ? "runs/" : ", runs/") + name;
    for (const std::string& name : folders_in(state / "jobs")) known += (known.empty() ? "" : ", ") + name;
    return Error{ErrorCode::NotFound,
                 "no run is there",
                 named,
                 "a run's folder, or the id of a job in " + state.string(),
                 known.empty() ? "no run at all" : known,
                 ""};
  }
  // The names end in the time of their start, after a name that may be any.
  std::optional<std::pair<fs::file_time_type, fs::path>> newest;
  for (const std::string& name : folders_in("runs")) {
    const fs::path folder = fs::path("runs") / name;
    std::error_code code;
    const auto written = fs::last_write_time(folder / "job.yaml", code);
    if (!code && is_run(folder) && (!newest || written > newest->first)) newest.emplace(written, folder);
  }
  if (newest) return newest->second;
  return Error{ErrorCode::NotFound,          "no run is there", "runs/", "a run of `launch train`", "none",
               "name its folder (--run-dir)"};
}

Result<RunWatcher> RunWatcher::open(const fs::path& folder) {
  COX_TRY(const Job job, load_job(folder / "job.yaml"));
  RunWatcher watcher(folder);
  watcher.view_.name = job.name;
  watcher.view_.steps = job.steps;
  return watcher;
}

RunWatcher::RunWatcher(const fs::path& folder) : metrics_(folder / "metrics.jsonl"), events_(folder / "events.jsonl") {
  view_.folder = folder;
}

const RunView& RunWatcher::look() {
  for (std::string text = events_.next(kPartBytes); !text.empty(); text = events_.next(kPartBytes))
    for_each_object(text, [this](const Json& event) { take_event(event); });
  for (std::string text = metrics_.next(kPartBytes); !text.empty(); text = metrics_.next(kPartBytes))
    for_each_object(text, [this](const Json& row) { take_row(row); });
  view_.step_seconds = median_of(newest_seconds_);
  view_.remaining_seconds =
      view_.ended ? 0 : static_cast<double>(std::max<std::int64_t>(0, view_.steps - view_.step)) * view_.step_seconds;
  return view_;
}

void RunWatcher::take_row(const Json& row) {
  if (!row["step"].is_integer()) return;
  view_.step = row["step"].integer();
  const int generation = static_cast<int>(number_or(row["generation"], 0));
  if (generation != row_generation_) newest_seconds_.clear();  // another plan takes another time
  row_generation_ = generation;
  view_.generation = std::max(view_.generation, generation);
  view_.loss = row["loss"].is_number() ? std::optional(row["loss"].number()) : std::nullopt;
  if (row["validation_loss"].is_number()) view_.validation_loss = row["validation_loss"].number();
  view_.predicted_step_seconds = number_or(row["predicted_step_seconds"], 0);
  view_.tokens_per_second = number_or(row["tokens_per_second"], 0);
  view_.peak_memory_bytes = largest_of(row["peak_memory_bytes"]);
  view_.predicted_peak_memory_bytes = largest_of(row["predicted_peak_memory_bytes"]);
  if (!row["step_seconds"].is_number()) return;
  if (newest_seconds_.size() == kNewestSteps) newest_seconds_.erase(newest_seconds_.begin());
  newest_seconds_.push_back(row["step_seconds"].number());
}

void RunWatcher::take_event(const Json& event) {
  const Json& type = event["type"];
  if (type == Json("worker_failed") || type == Json("node_lost")) view_.failures.push_back(event);
  if (type == Json("recovered")) view_.lost_seconds += number_or(event["seconds"], 0);
  if (type == Json("generation_started")) {
    view_.generation = static_cast<int>(number_or(event["generation"], 0));
  }
  if (type == Json("job_finished")) {
    view_.ended = true;
    view_.exit_code = static_cast<int>(number_or(event["exit_code"], 0));
  }
}

Json to_json(const RunView& view) {
  const auto maybe = [](const std::optional<double>& value) { return value ? Json(*value) : Json(); };
  return JsonObject{{"folder", view.folder.string()},
                    {"name", view.name},
                    {"state", view.ended ? "ended" : "running"},
                    {"exit_code", view.ended ? Json(view.exit_code) : Json()},
                    {"generation", view.generation},
                    {"step", view.step},
                    {"steps", view.steps},
                    {"loss", maybe(view.loss)},
                    {"validation_loss", maybe(view.validation_loss)},
                    {"step_seconds", view.step_seconds},
                    {"predicted_step_seconds", view.predicted_step_seconds},
                    {"tokens_per_second", view.tokens_per_second},
                    {"peak_memory_bytes", view.peak_memory_bytes},
                    {"predicted_peak_memory_bytes", view.predicted_peak_memory_bytes},
                    {"remaining_seconds", view.remaining_seconds},
                    {"failures", JsonArray(view.failures.begin(), view.failures.end())},
                    {"lost_seconds", view.lost_seconds}};
}

std::string to_table(const RunView& view) {
  const auto line = [](const char* name, const std::string& text) {
    char head[16];
    std::snprintf(head, sizeof head, "%-11s", name);
    return head + text + "\n";
  };
  const double share = view.steps > 0 ? static_cast<double>(view.step) / static_cast<double>(view.steps) : 0;
  const int full = std::clamp(static_cast<int>(share * kBar), 0, kBar);
  std::string table = line("run", view.name + "  " + view.folder.string());
  table += line("state", view.ended ? "ended, exit code " + std::to_string(view.exit_code)
                                    : "running, generation " + std::to_string(view.generation));
  table += line("step", std::to_string(view.step) + " of " + std::to_string(view.steps) + "  [" +
                            std::string(static_cast<std::size_t>(full), '=') +
                            std::string(static_cast<std::size_t>(kBar - full), ' ') + "]" +
                            (view.ended || view.step == 0 ? "" : "  " + span_text(view.remaining_seconds) + " to go"));
  if (view.step == 0) return table;
  table += line("loss", (view.loss ? text_of(*view.loss, "%.4f") : "not finite") +
                            (view.validation_loss ? ", validation " + text_of(*view.validation_loss, "%.4f") : ""));
  std::string time = span_text(view.step_seconds);
  if (view.predicted_step_seconds > 0 && view.step_seconds > 0)
    time += "  (predicted " + span_text(view.predicted_step_seconds) + ", " +
            text_of(100 * (view.predicted_step_seconds / view.step_seconds - 1), "%+.1f %%") + ")";
  table += line("step time", time);
  table += line("tokens/s", text_of(view.tokens_per_second, "%.0f"));
  table += line("memory", memory_text(view.peak_memory_bytes) + "  (predicted " +
                              memory_text(view.predicted_peak_memory_bytes) + ")");
  if (!view.failures.empty())
    table += line("failures", std::to_string(view.failures.size()) + ", " + span_text(view.lost_seconds) +
                                  " lost; the last: " + failure_text(view.failures.back()));
  return table;
}

void LogMerger::find_files() {
  for (const std::string& generation : folders_in(run_ / "logs")) {
    const int number = number_after(generation, "generation_");
    if (number < 0) continue;
    for (const std::string& rank_name : folders_in(run_ / "logs" / generation)) {
      const int rank = number_after(rank_name, "");
      const bool wanted =
          filter_.ranks.empty() || std::find(filter_.ranks.begin(), filter_.ranks.end(), rank) != filter_.ranks.end();
      if (rank < 0 || !wanted) continue;
      const fs::path folder = run_ / "logs" / generation / rank_name;
      if (filter_.stdout_too) files_.try_emplace({number, rank, false}, FileTail(folder / "stdout"));
      if (filter_.stderr_too) files_.try_emplace({number, rank, true}, FileTail(folder / "stderr"));
    }
  }
}

std::string LogMerger::next(bool rest) {
  find_files();
  std::string merged;
  for (auto& [place, file] : files_) {
    const std::string prefix = "[rank " + std::to_string(std::get<1>(place)) + "] ";
    for (std::string text = file.next(kPartBytes, rest); !text.empty(); text = file.next(kPartBytes, rest)) {
      for_each_line(text, [&](std::string_view line) {
        if (filter_.containing.empty() || line.find(filter_.containing) != std::string_view::npos)
          merged.append(prefix).append(line).append("\n");
      });
    }
  }
  return merged;
}

}  // namespace coxswain::launcher
