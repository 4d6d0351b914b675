#include "launcher/control/console.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace coxswain::launcher {
namespace {

/// JSON has no NaN; a loss that became one is written as null.
Json number_or_null(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json array_of(const std::vector<std::int64_t>& values) {
  JsonArray array;
  for (std::int64_t value : values) array.push_back(value);
  return array;
}

template <class... Values>
std::string format(const char* pattern, Values... values) {
  char text[256];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

std::int64_t largest(const std::vector<std::int64_t>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

double percent_error(double predicted, double measured) { return measured > 0 ? 100 * (predicted / measured - 1) : 0; }

}  // namespace

Prediction make_prediction(const plan::Estimate& estimate, int num_ranks, std::int64_t tokens_per_step) {
  Prediction prediction;
  prediction.step_seconds = estimate.step.value;
  prediction.model_flops_utilization = estimate.model_flops_utilization;
  prediction.tokens_per_step = tokens_per_step;
  prediction.peak_memory_bytes.assign(static_cast<std::size_t>(num_ranks), 0);
  for (const auto& device : estimate.devices) {
    for (int rank : device.ranks) {
      if (rank >= 0 && rank < num_ranks)
        prediction.peak_memory_bytes[static_cast<std::size_t>(rank)] = device.peak_memory.value;
    }
  }
  return prediction;
}

Json metrics_object(const StepRow& row, const Prediction& prediction) {
  const double utilization =
      row.step_seconds > 0 ? prediction.model_flops_utilization * prediction.step_seconds / row.step_seconds : 0;
  JsonObject object{{"step", row.step},
                    {"generation", row.generation},
                    {"loss", number_or_null(row.loss)},
                    {"grad_norm", number_or_null(row.grad_norm)},
                    {"learning_rate", row.learning_rate},
                    {"step_seconds", row.step_seconds},
                    {"predicted_step_seconds", prediction.step_seconds},
                    {"tokens_per_second",
                     row.step_seconds > 0 ? static_cast<double>(prediction.tokens_per_step) / row.step_seconds : 0.0},
                    {"model_flops_utilization", utilization},
                    {"bubble_fraction", row.bubble_fraction},
                    {"peak_memory_bytes", array_of(row.peak_memory_bytes)},
                    {"predicted_peak_memory_bytes", array_of(prediction.peak_memory_bytes)},
                    {"resident_bytes", array_of(row.resident_bytes)}};
  if (row.validation_loss) object["validation_loss"] = number_or_null(*row.validation_loss);
  if (row.loss_scale > 0) object["loss_scale"] = row.loss_scale;
  if (row.skipped) object["skipped"] = true;
  if (!row.expert_tokens.empty()) {
    JsonArray routers;
    for (const ExpertTokens& router : row.expert_tokens)
      routers.push_back(JsonObject{{"block", router.block}, {"tokens", array_of(router.tokens)}});
    object["expert_tokens"] = std::move(routers);
  }
  return object;
}

std::string skip_line(const Json& event) {
  std::string line = "step " + std::to_string(event["step"].integer()) + " skipped";
  if (event["cause"].is_string())
    line += ": " + event["cause"].string() + " on rank " + std::to_string(event["rank"].integer());
  if (event["loss_scale"].is_number()) line += format("; loss scale %g, now half of it", event["loss_scale"].number());
  return line;
}

std::string calibration_line(const Json& event) {
  const std::string node = std::to_string(event["node"].integer());
  std::string where = "device " + to_text(event["local_device"]) + " of node " + node;
  if (event["what"] == Json("link")) {
    const std::string other = std::to_string(event["other_node"].integer());
    where = node == other ? "the link inside node " + node : "the link between nodes " + node + " and " + other;
  } else if (event["device_class"].is_string()) {
    where += " (" + event["device_class"].string() + ", rank " + to_text(event["ranks"].array().front()) + ")";
  }
  return "calibrated: " + where + format(" does %.2f times what it is said to (", event["rate_ratio"].number()) +
         format("%.1f ms a step, predicted %.1f ms)", event["measured_seconds"].number() * 1e3,
                event["predicted_seconds"].number() * 1e3);
}

std::string console_header() {
  return format("%7s %9s %9s %10s  %-32s %-22s %6s", "step", "loss", "grad_norm", "tokens/s",
                "step ms (predicted, error)", "memory GiB (predicted)", "mfu");
}

std::string console_line(const StepRow& row, const Prediction& prediction) {
  const double seconds = row.step_seconds;
  const std::string time = format("%.1f (%.1f, %+.1f %%)", seconds * 1e3, prediction.step_seconds * 1e3,
                                  percent_error(prediction.step_seconds, seconds));
  const double gib = 1024.0 * 1024.0 * 1024.0;
  const std::string memory = format("%.3f (%.3f)", static_cast<double>(largest(row.peak_memory_bytes)) / gib,
                                    static_cast<double>(largest(prediction.peak_memory_bytes)) / gib);
  const double utilization = seconds > 0 ? prediction.model_flops_utilization * prediction.step_seconds / seconds : 0;
  std::string line =
      format("%7lld %9.4f %9.4f %10.0f  %-32s %-22s %5.1f%%", static_cast<long long>(row.step), row.loss, row.grad_norm,
             seconds > 0 ? static_cast<double>(prediction.tokens_per_step) / seconds : 0.0, time.c_str(),
             memory.c_str(), 100 * utilization);
  if (row.validation_loss) line += format("  validation loss %.4f", *row.validation_loss);
  if (row.skipped) line += "  skipped";
  return line;
}

std::string memory_text(std::int64_t bytes) {
  const double mebibytes = static_cast<double>(bytes) / (1024.0 * 1024.0);
  return mebibytes < 1024 ? format("%.1f MiB", mebibytes) : format("%.2f GiB", mebibytes / 1024);
}

std::string describe_cluster(const cluster::ResourceGraph& resources) {
  std::string text;
  for (std::size_t c = 0; c < resources.device_classes.size(); ++c) {
    const auto& device = resources.device_classes[c];
    if (!text.empty()) text += "; ";
    text += std::to_string(cluster::num_devices(resources, static_cast<int>(c))) + " x " + device.name + " (" +
            memory_text(device.memory.value.value) +
            format(", %.1f GFLOP/s float32, %.1f GB/s)", device.peak_float32.value.value / 1e9,
                   device.memory_bandwidth.value.value / 1e9);
  }
  for (const auto& node : resources.node_classes) {
    if (node.link.latency.source == cluster::Source::Measured) {
      text += format("; inside a node %.1f us, %.2f GB/s", node.link.latency.value.value * 1e6,
                     node.link.bandwidth.value.value / 1e9);
    }
  }
  for (const auto& tier : resources.tiers) {
    text += format("; between nodes %.1f us, %.4f GB/s", tier.link.latency.value.value * 1e6,
                   tier.link.bandwidth.value.value / 1e9);
  }
  return text;
}

}  // namespace coxswain::launcher
