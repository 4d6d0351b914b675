// What a move is, in words and as JSON.
#include <cmath>
#include <cstdio>

#include "planner/outcome.h"
#include "planner/replan.h"

namespace coxswain::planner {
namespace {

template <class... Values>
std::string format(const char* pattern, Values... values) {
  char text[128];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

Json optional_seconds(const std::optional<Seconds>& seconds) { return seconds ? Json(seconds->value) : Json(nullptr); }

std::string kept_text(const Move& move) {
  std::string text = "moving: none, the running plan goes on";
  if (move.pays_after) text += "; " + move.alternative + " would pay after " + duration_text(*move.pays_after);
  return text + " (horizon " + duration_text(move.horizon) + ")\n";
}

}  // namespace

std::string duration_text(Seconds seconds) {
  const double value = seconds.value;
  if (value < 1) return format("%.0f ms", value * 1e3);
  if (value < 60) return format("%.1f s", value);
  constexpr double kTooLong = 1e15;
  if (!(value < kTooLong)) return format("%.3g s", value);
  const auto whole = std::llround(value);
  constexpr long long kMinute = 60, kHour = 3600, kDay = 86400;
  if (whole < kHour) return format("%lld min %lld s", whole / kMinute, whole % kMinute);
  if (whole < kDay) return format("%lld h %lld min", whole / kHour, whole % kHour / kMinute);
  return format("%lld d %lld h", whole / kDay, whole % kDay / kHour);
}

std::string to_text(const Move& move) {
  if (move.keeps_running_plan) return kept_text(move);
  const MoveEstimate& estimate = move.estimate;
  std::string text = "moving takes " + duration_text(estimate.seconds) + " (" +
                     bytes_text(estimate.bytes_between.value) + " between nodes, " +
                     bytes_text(estimate.bytes_inside.value) + " inside, " + bytes_text(estimate.bytes_kept.value) +
                     " stay)";
  if (move.pays_after)
    text += " and pays after " + duration_text(*move.pays_after);
  else if (move.running_step)
    text += " and never pays against the running plan";
  text += "; horizon " + duration_text(move.horizon);
  if (move.effective_step)
    text += ": " + format("%.4g", move.effective_step->value) + " s a step, moving included";
  else
    text += " is over before";
  text += "\n";
  if (estimate.missing.empty()) return text;
  std::string missing;
  constexpr std::size_t kMost = 4;
  for (std::size_t i = 0; i < estimate.missing.size() && i < kMost; ++i)
    missing += (i == 0 ? "" : ", ") + estimate.missing[i];
  if (estimate.missing.size() > kMost) missing += ", ...";
  return text + "back to the last checkpoint, " + bytes_text(estimate.bytes_from_disk.value) +
         " from disk: no device that is left holds " + missing + " (" + bytes_text(estimate.bytes_missing.value) +
         ")\n";
}

Json to_json(const Move& move) {
  const MoveEstimate& estimate = move.estimate;
  JsonArray missing;
  for (const std::string& one : estimate.missing) missing.emplace_back(one);
  JsonObject json{{"bytes", JsonObject{{"between_nodes", estimate.bytes_between.value},
                                       {"from_disk", estimate.bytes_from_disk.value},
                                       {"inside_nodes", estimate.bytes_inside.value},
                                       {"kept", estimate.bytes_kept.value},
                                       {"missing", estimate.bytes_missing.value}}},
                  {"effective_step_seconds", optional_seconds(move.effective_step)},
                  {"horizon_seconds", move.horizon.value},
                  {"keeps_running_plan", move.keeps_running_plan},
                  {"missing", std::move(missing)},
                  {"parts", JsonObject{{"checkpoint", estimate.checkpoint.value},
                                       {"latency", estimate.latency.value},
                                       {"links", estimate.links.value},
                                       {"restart", estimate.restart.value}}},
                  {"pays_after_seconds", optional_seconds(move.pays_after)},
                  {"running_step_seconds", optional_seconds(move.running_step)},
                  {"seconds", estimate.seconds.value}};
  if (!move.alternative.empty()) json["alternative"] = move.alternative;
  if (estimate.worst_node >= 0) json["worst_node"] = estimate.worst_node;
  return json;
}

}  // namespace coxswain::planner
