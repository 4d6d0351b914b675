#include "launcher/control/goodput_report.h"

#include <algorithm>
#include <cstdio>
#include <utility>

namespace coxswain::launcher {
namespace {

// Less is no line's worth.
constexpr double kLeastTold = 0.005;

template <class... Values>
std::string format(const char* pattern, Values... values) {
  char text[256];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

std::vector<std::pair<const char*, double>> losses(const GoodputReport& report) {
  return {{"start", report.start},       {"checkpoints", report.checkpoint},      {"detection", report.detection},
          {"recovery", report.recovery}, {"recomputed steps", report.recomputed}, {"slower plan", report.slower_plan},
          {"other", report.other}};
}

double fraction_of(double part, double whole) { return whole > 0 ? part / whole : 0; }

std::string where(const FailureBlock& block) {
  const std::string node = "node " + std::to_string(block.node);
  if (block.node_lost) return block.rank < 0 ? node : node + ", whose first rank is " + std::to_string(block.rank);
  return "rank " + std::to_string(block.rank) + " on " + node;
}

void add_block(std::vector<std::string>& lines, std::int64_t number, const FailureBlock& block) {
  lines.push_back("failure " + std::to_string(number) + ": " + where(block) + ": " + block.cause + "; generation " +
                  std::to_string(block.generation) + ", after step " + std::to_string(block.after_step));
  if (!block.evidence.empty() || !block.log.empty())
    lines.push_back("  evidence: " + (block.evidence.empty() ? "nothing on its stderr" : block.evidence) +
                    (block.log.empty() ? "" : " (" + block.log + ")"));
  lines.push_back("  action:   " + block.action +
                  format("; %lld %s lost, %.2f s to see it, %.2f s to the next step",
                         static_cast<long long>(block.steps_lost), block.steps_lost == 1 ? "step" : "steps",
                         block.detection_seconds, block.recovery_seconds));
}

std::string string_of(const Json& json) { return json.is_string() ? json.string() : ""; }
std::int64_t integer_of(const Json& json) { return json.is_integer() ? json.integer() : 0; }
double number_of(const Json& json) { return json.is_number() ? json.number() : 0; }

}  // namespace

Json to_json(const FailureBlock& block) {
  JsonObject object{{"cause", block.cause},
                    {"rank", block.rank},
                    {"node", block.node},
                    {"generation", block.generation},
                    {"node_lost", block.node_lost},
                    {"after_step", block.after_step},
                    {"action", block.action},
                    {"steps_lost", block.steps_lost},
                    {"detection_seconds", block.detection_seconds},
                    {"recovery_seconds", block.recovery_seconds}};
  if (!block.evidence.empty()) object["evidence"] = block.evidence;
  if (!block.log.empty()) object["log"] = block.log;
  return object;
}

FailureBlock failure_block_from_json(const Json& json) {
  FailureBlock block;
  block.cause = string_of(json["cause"]);
  block.rank = static_cast<int>(integer_of(json["rank"]));
  block.node = static_cast<int>(integer_of(json["node"]));
  block.generation = static_cast<int>(integer_of(json["generation"]));
  block.node_lost = json["node_lost"] == Json(true);
  block.after_step = integer_of(json["after_step"]);
  block.evidence = string_of(json["evidence"]);
  block.log = string_of(json["log"]);
  block.action = string_of(json["action"]);
  block.steps_lost = integer_of(json["steps_lost"]);
  block.detection_seconds = number_of(json["detection_seconds"]);
  block.recovery_seconds = number_of(json["recovery_seconds"]);
  return block;
}

Json goodput_event(const GoodputReport& report) {
  JsonArray failures;
  for (const FailureBlock& block : report.failures) failures.push_back(to_json(block));
  return JsonObject{{"type", "goodput"},
                    {"total_seconds", report.total},
                    {"useful_seconds", report.useful},
                    {"goodput_fraction", fraction_of(report.useful, report.total)},
                    {"start_seconds", report.start},
                    {"checkpoint_seconds", report.checkpoint},
                    {"detection_seconds", report.detection},
                    {"recovery_seconds", report.recovery},
                    {"recomputed_seconds", report.recomputed},
                    {"slower_plan_seconds", report.slower_plan},
                    {"other_seconds", report.other},
                    {"num_failures", report.num_failures},
                    {"failures", std::move(failures)}};
}

std::vector<std::string> goodput_lines(const GoodputReport& report) {
  const std::string sum =
      format("goodput: %.1f %% of %.2f s", 100 * fraction_of(report.useful, report.total), report.total);
  if (report.num_failures == 0) {
    std::string lost;
    for (const auto& [name, seconds] : losses(report)) {
      if (seconds >= kLeastTold) lost += (lost.empty() ? "" : ", ") + format("%s %.2f s", name, seconds);
    }
    return {sum + (lost.empty() ? "" : "; lost to " + lost)};
  }
  std::vector<std::string> lines{sum + " in steps that count; the rest:"};
  for (const auto& [name, seconds] : losses(report)) {
    if (seconds >= kLeastTold)
      lines.push_back(format("  %-16s %9.2f s %5.1f %%", name, seconds, 100 * fraction_of(seconds, report.total)));
  }
  const auto told = static_cast<std::int64_t>(report.failures.size());
  std::int64_t number = report.num_failures - told;
  if (number > 0)
    lines.push_back("of " + std::to_string(report.num_failures) + " failures the last " + std::to_string(told) +
                    "; events.jsonl has all");
  for (const FailureBlock& block : report.failures) add_block(lines, ++number, block);
  return lines;
}

}  // namespace coxswain::launcher
