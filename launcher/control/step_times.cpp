#include "launcher/control/step_times.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace coxswain::launcher {
namespace {

constexpr std::int64_t kFirstSteadyStep = 5;
constexpr std::size_t kExactValues = 512;
constexpr double kBinWidth = 1e-3;  // a bin's upper end is so much more than its lower one
constexpr double kLeastValue = 1e-9;
// Above it every second of the older half is dropped: the farther back, the fewer are kept.
constexpr std::size_t kMostSums = 256;

std::int64_t bin_of(double value) {
  return static_cast<std::int64_t>(std::floor(std::log(std::max(value, kLeastValue)) / std::log1p(kBinWidth)));
}

double middle_of(std::int64_t bin) { return std::exp((static_cast<double>(bin) + 0.5) * std::log1p(kBinWidth)); }

double number_of(const Json& json) { return json.is_number() ? json.number() : 0; }
std::int64_t integer_of(const Json& json) { return json.is_integer() ? json.integer() : 0; }

const JsonArray& array_of(const Json& json) {
  static const JsonArray kNone;
  return json.is_array() ? json.array() : kNone;
}

}  // namespace

void RunningMedian::add(double value) {
  if (counts_.empty() && values_.size() < kExactValues) return values_.push_back(value);
  for (const double before : values_) ++counts_[bin_of(before)];
  values_.clear();
  ++counts_[bin_of(value)];
}

double RunningMedian::value() const {
  if (empty()) return 0;
  if (counts_.empty()) {
    std::vector<double> sorted = values_;
    std::sort(sorted.begin(), sorted.end());
    const std::size_t half = sorted.size() / 2;
    return sorted.size() % 2 == 1 ? sorted[half] : 0.5 * (sorted[half - 1] + sorted[half]);
  }
  std::int64_t all = 0, below = 0;
  for (const auto& [bin, count] : counts_) all += count;
  for (const auto& [bin, count] : counts_) {
    below += count;
    if (2 * below >= all) return middle_of(bin);
  }
  return 0;
}

Json RunningMedian::to_json() const {
  JsonArray values(values_.begin(), values_.end()), counts;
  for (const auto& [bin, count] : counts_) {
    counts.push_back(bin);
    counts.push_back(count);
  }
  return JsonObject{{"values", std::move(values)}, {"counts", std::move(counts)}};
}

RunningMedian RunningMedian::from_json(const Json& json) {
  RunningMedian median;
  for (const Json& value : array_of(json["values"])) median.values_.push_back(number_of(value));
  const JsonArray& counts = array_of(json["counts"]);
  for (std::size_t i = 0; i + 1 < counts.size(); i += 2)
    median.counts_[integer_of(counts[i])] = integer_of(counts[i + 1]);
  return median;
}

void StepTimes::add(const StepRow& row) { (row.step < kFirstSteadyStep ? early_ : steady_).add(row.step_seconds); }

double StepTimes::median_seconds() const { return (steady_.empty() ? early_ : steady_).value(); }

Json StepTimes::to_json() const { return JsonObject{{"early", early_.to_json()}, {"steady", steady_.to_json()}}; }

StepTimes StepTimes::from_json(const Json& json) {
  StepTimes times;
  times.early_ = RunningMedian::from_json(json["early"]);
  times.steady_ = RunningMedian::from_json(json["steady"]);
  return times;
}

void StepSums::add(std::int64_t step, const StepSeconds& seconds) {
  if (until_.empty()) until_[step - 1] = {};
  const StepSeconds before = total();
  until_[step] = {before.all + seconds.all, before.slower + seconds.slower};
  if (until_.size() <= kMostSums) return;
  auto entry = std::next(until_.begin());
  for (std::size_t i = 0; i < kMostSums / 4; ++i) entry = std::next(until_.erase(entry));
}

double StepSums::forget_after(std::int64_t step) {
  const double before = total().all;
  const auto after = until_.upper_bound(step);
  if (after == until_.end()) return 0;
  if (after == until_.begin()) {
    until_.clear();  // to before the run's own first step
    return before;
  }
  const auto [low, at] = *std::prev(after);
  const double part = static_cast<double>(step - low) / static_cast<double>(after->first - low);
  const StepSeconds left{at.all + part * (after->second.all - at.all),
                         at.slower + part * (after->second.slower - at.slower)};
  until_.erase(after, until_.end());
  until_[step] = left;
  return before - left.all;
}

StepSeconds StepSums::total() const { return until_.empty() ? StepSeconds{} : until_.rbegin()->second; }

Json StepSums::to_json() const {
  JsonArray entries;
  for (const auto& [step, seconds] : until_) {
    entries.push_back(step);
    entries.push_back(seconds.all);
    entries.push_back(seconds.slower);
  }
  return entries;
}

StepSums StepSums::from_json(const Json& json) {
  StepSums sums;
  const JsonArray& entries = array_of(json);
  for (std::size_t i = 0; i + 2 < entries.size(); i += 3)
    sums.until_[integer_of(entries[i])] = {number_of(entries[i + 1]), number_of(entries[i + 2])};
  return sums;
}

}  // namespace coxswain::launcher
