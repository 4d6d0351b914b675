#include "cost_model/calibration.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

namespace coxswain::cost_model {
namespace {

constexpr std::int64_t kFirstStep = 5;
constexpr std::size_t kFewestSteps = 3;
/// Beyond this the run and the prediction are not of the same thing.
constexpr double kMostRatio = 20;

struct Row {
  std::int64_t step = 0, generation = 0;
  double measured = 0, predicted = 0;
  std::vector<double> peak, predicted_peak;  // by rank
};

/// Reads the lines of a metrics file; collects every problem.
class MetricsReader {
 public:
  std::vector<Row> read(std::string_view text) {
    std::vector<Row> rows;
    std::int64_t line = 0;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      const std::string_view one = text.substr(at, end - at);
      at = end + 1;
      ++line;
      if (one.find_first_not_of(" \t\r") == std::string_view::npos) continue;
      path_ = "line " + std::to_string(line);
      const auto json = parse_json(one);
      if (!json || !json->is_object()) {
        add("", "not a JSON object", "one object a step", json ? to_text(*json) : json.error().message);
        continue;
      }
      rows.push_back(read_row(*json));
    }
    return rows;
  }
  void add(const std::string& key, std::string message, std::string expected, std::string got) {
    std::string path = path_;
    if (!key.empty()) path += (path.empty() ? "" : "  ") + key;
    problems_.push_back(
        {ErrorCode::InvalidArgument, std::move(message), path, std::move(expected), std::move(got), ""});
  }
  void at(std::string path) { path_ = std::move(path); }
  [[nodiscard]] std::vector<Error>& problems() { return problems_; }

 private:
  Row read_row(const Json& json) {
    Row row;
    row.step = count(json, "step");
    row.generation = count(json, "generation");
    row.measured = positive(json, "step_seconds");
    row.predicted = positive(json, "predicted_step_seconds");
    row.peak = list(json, "peak_memory_bytes");
    row.predicted_peak = list(json, "predicted_peak_memory_bytes");
    if (row.peak.size() != row.predicted_peak.size())
      add("predicted_peak_memory_bytes", "measured and predicted memory differ in the number of ranks",
          std::to_string(row.peak.size()) + " values", std::to_string(row.predicted_peak.size()));
    return row;
  }
  std::int64_t count(const Json& json, const char* key) {
    if (json[key].is_integer() && json[key].integer() >= 0) return json[key].integer();
    add(key, "not a count", "an integer of at least 0", to_text(json[key]));
    return 0;
  }
  double positive(const Json& json, const char* key) {
    if (json[key].is_number() && json[key].number() > 0) return json[key].number();
    add(key, "not a time", "a number above 0", to_text(json[key]));
    return 1;
  }
  std::vector<double> list(const Json& json, const char* key) {
    std::vector<double> values;
    if (!json[key].is_array()) {
      add(key, "not a list", "one number a rank", to_text(json[key]));
      return values;
    }
    for (const Json& value : json[key].array()) {
      if (value.is_number() && value.number() >= 0)
        values.push_back(value.number());
      else
        add(key, "not a size", "bytes of at least 0", to_text(value));
    }
    return values;
  }

  std::string path_;
  std::vector<Error> problems_;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

std::string format(const char* pattern, auto... values) {
  char text[320];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

struct RankMemory {
  double measured = 0, predicted = 0;
};

/// C64: what is above the parts that are known exactly.
double memory_ratio(double measured, double predicted, double persistent) {
  if (measured > persistent && predicted > persistent) return (measured - persistent) / (predicted - persistent);
  return 1;
}

void fill_from_estimate(const plan::Estimate& estimate, const std::vector<RankMemory>& ranks, double time_ratio,
                        Calibration& result) {
  std::map<std::string, std::vector<double>> memory;
  for (const plan::DeviceEstimate& device : estimate.devices) {
    const auto persistent =
        static_cast<double>((device.parts.parameters + device.parts.gradients + device.parts.optimizer).value);
    for (const int rank : device.ranks) {
      if (rank < 0 || rank >= static_cast<int>(ranks.size())) continue;
      const RankMemory& one = ranks[static_cast<std::size_t>(rank)];
      memory[device.device].push_back(memory_ratio(one.measured, one.predicted, persistent));
    }
  }
  for (ClassCalibration& entry : result.classes) {
    const auto found = memory.find(entry.device);
    if (found == memory.end()) continue;
    entry.ran = true;
    entry.time_ratio = time_ratio;
    entry.memory_ratio = median(found->second);
  }
}

void fill_alike(const std::vector<RankMemory>& ranks, double time_ratio, Calibration& result) {
  std::vector<double> ratios;
  for (const RankMemory& one : ranks) {
    if (one.predicted > 0) ratios.push_back(one.measured / one.predicted);
  }
  for (ClassCalibration& entry : result.classes) {
    entry.ran = true;
    entry.time_ratio = time_ratio;
    if (!ratios.empty()) entry.memory_ratio = median(ratios);
  }
}

void tell(Calibration& result, std::size_t num_steps, bool has_plan, double exposed) {
  result.notes.push_back(format("steps %lld to %lld (%zu): median %.4g s measured, %.4g s predicted",
                                static_cast<long long>(result.first_step), static_cast<long long>(result.last_step),
                                num_steps, result.measured.value, result.predicted.value));
  for (const ClassCalibration& entry : result.classes) {
    if (entry.ran)
      result.notes.push_back(format("%s: compute x %.3f, memory of activations x %.3f", entry.device.c_str(),
                                    entry.time_ratio, entry.memory_ratio));
    else
      result.notes.push_back(entry.device + ": the run had none, as it was");
  }
  result.notes.push_back(has_plan
                             ? format("communication as it was (%.4g s of the step exposed)", exposed)
                             : std::string("no plan beside the metrics: every class alike, communication with it"));
}

class CalibratedCost final : public CostModel {
 public:
  CalibratedCost(const CostModel& base, const Calibration& calibration)
      : CostModel(base.shared_facts()), base_(base), classes_(calibration.classes) {}

  BlockTime estimate_block(const BlockWork& work) const override {
    BlockTime time = base_.estimate_block(work);
    const ClassCalibration& ratios = of(work.device_class);
    for (Seconds* part : {&time.forward, &time.backward, &time.weight, &time.attention_forward,
                          &time.attention_backward, &time.replayed})
      *part = *part * ratios.time_ratio;
    for (Bytes* part : {&time.saved, &time.transient, &time.selective, &time.owed, &time.forward_transient,
                        &time.plain_transient, &time.input_transient, &time.weight_transient})
      *part = scaled(*part, ratios.memory_ratio);
    return time;
  }
  Seconds estimate_transfer(Bytes bytes, plan::DeviceId from, plan::DeviceId to) const override {
    return base_.estimate_transfer(bytes, from, to);
  }
  Seconds estimate_collective(collective::CollectiveKind kind, Bytes payload,
                              const std::vector<plan::DeviceId>& devices) const override {
    return base_.estimate_collective(kind, payload, devices);
  }
  Seconds estimate_shaped_collective(collective::CollectiveKind kind, Bytes payload,
                                     const GroupShape& shape) const override {
    return base_.estimate_shaped_collective(kind, payload, shape);
  }
  bool costs_by_signature() const override { return base_.costs_by_signature(); }
  Bytes communicator_memory(int device_class, const cluster::LinkClass& link) const override {
    return base_.communicator_memory(device_class, link);
  }
  Seconds estimate_optimizer(std::int64_t parameters, int device_class) const override {
    return base_.estimate_optimizer(parameters, device_class) * of(device_class).time_ratio;
  }
  Seconds estimate_step_overhead(int device_class) const override {
    return base_.estimate_step_overhead(device_class) * of(device_class).time_ratio;
  }
  Seconds estimate_action_overhead(int device_class) const override {
    return base_.estimate_action_overhead(device_class) * of(device_class).time_ratio;
  }
  Bytes base_memory(int device_class) const override { return base_.base_memory(device_class); }
  const model::ModelGraph& model() const override { return base_.model(); }
  const cluster::ResourceGraph& resources() const override { return base_.resources(); }

 private:
  [[nodiscard]] const ClassCalibration& of(int device_class) const {
    return classes_[static_cast<std::size_t>(device_class)];
  }
  static Bytes scaled(Bytes bytes, double ratio) {
    return Bytes(static_cast<std::int64_t>(std::ceil(static_cast<double>(bytes.value) * ratio)));
  }

  const CostModel& base_;
  std::vector<ClassCalibration> classes_;
};

}  // namespace

Result<Calibration> read_calibration(const cluster::ResourceGraph& resources, std::string_view metrics,
                                     const Json* plan_file) {
  MetricsReader reader;
  std::vector<Row> rows = reader.read(metrics);
  std::optional<plan::Estimate> estimate;
  if (plan_file != nullptr) {
    auto read = plan::estimate_from_json((*plan_file)["estimate"]);
    if (read)
      estimate = std::move(*read);
    else
      reader.problems().push_back(with_path_prefix(read.error(), "plan file"));
  }
  const std::int64_t generation = rows.empty() ? 0 : rows.back().generation;
  std::erase_if(rows, [&](const Row& row) { return row.generation != generation || row.step < kFirstStep; });
  reader.at("");
  if (rows.size() < kFewestSteps && reader.problems().empty())
    reader.add(
        "", "too few steps to learn from",
        "at least " + std::to_string(kFewestSteps) + " of one generation from step " + std::to_string(kFirstStep),
        std::to_string(rows.size()));
  if (!reader.problems().empty())
    return combine_errors(ErrorCode::InvalidArgument, "the metrics have problems", std::move(reader.problems()));

  std::vector<double> measured, predicted;
  std::vector<RankMemory> ranks(rows.back().peak.size());
  for (const Row& row : rows) {
    measured.push_back(row.measured);
    predicted.push_back(row.predicted);
    for (std::size_t r = 0; r < std::min(ranks.size(), row.peak.size()); ++r) {
      ranks[r].measured = std::max(ranks[r].measured, row.peak[r]);
      ranks[r].predicted = std::max(ranks[r].predicted, row.predicted_peak[r]);
    }
  }
  Calibration result;
  result.measured = Seconds(median(measured));
  result.predicted = Seconds(median(predicted));
  result.first_step = rows.front().step;
  result.last_step = rows.back().step;
  for (const cluster::DeviceClass& device : resources.device_classes)
    result.classes.push_back({device.name, 1, 1, false});
  // C63: what is exposed communication in the prediction stays as it is.
  double exposed = estimate ? estimate->communication_exposed.value : 0;
  if (exposed >= std::min(result.measured.value, result.predicted.value)) exposed = 0;
  const double time_ratio = (result.measured.value - exposed) / (result.predicted.value - exposed);
  if (time_ratio > kMostRatio || time_ratio < 1 / kMostRatio)
    return Error{ErrorCode::InvalidArgument,
                 "measured and predicted are too far apart to be of one thing",
                 "step_seconds",
                 "a ratio between 1/20 and 20",
                 format("%.4g s measured, %.4g s predicted", result.measured.value, result.predicted.value),
                 "calibrate from a run of this version"};
  if (estimate)
    fill_from_estimate(*estimate, ranks, time_ratio, result);
  else
    fill_alike(ranks, time_ratio, result);
  if (std::none_of(result.classes.begin(), result.classes.end(), [](const auto& entry) { return entry.ran; }))
    return Error{ErrorCode::InvalidArgument,
                 "the run had none of this cluster's device classes",
                 "plan file  estimate.devices",
                 "a device class of the cluster",
                 estimate->devices.empty() ? "no device" : estimate->devices.front().device,
                 "calibrate from a run on such devices"};
  tell(result, rows.size(), estimate.has_value(), exposed);
  return result;
}

std::int64_t last_generation(std::string_view metrics) {
  while (!metrics.empty() && (metrics.back() == '\n' || metrics.back() == ' ')) metrics.remove_suffix(1);
  const std::size_t start = metrics.rfind('\n');
  const auto json = parse_json(start == std::string_view::npos ? metrics : metrics.substr(start + 1));
  return json && json->is_object() && (*json)["generation"].is_integer() ? (*json)["generation"].integer() : 0;
}

std::unique_ptr<CostModel> make_calibrated_cost(const CostModel& base, const Calibration& calibration) {
  return std::make_unique<CalibratedCost>(base, calibration);
}

}  // namespace coxswain::cost_model
