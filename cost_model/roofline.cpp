#include "cost_model/roofline.h"

#include <algorithm>
#include <cmath>

namespace coxswain::cost_model {
namespace {

bool is_matmul_like(model::OpClass op_class) {
  return op_class == model::OpClass::Matmul || op_class == model::OpClass::Attention ||
         op_class == model::OpClass::Convolution;
}

DType dtype_of(plan::Precision precision) {
  return precision == plan::Precision::BFloat16 ? DType::BFloat16 : DType::Float32;
}

/// Share of the float32 bytes that move under `precision`.
double byte_scale(plan::Precision precision) { return precision == plan::Precision::BFloat16 ? 0.5 : 1.0; }

Bytes scaled(Bytes bytes, double scale) {
  return Bytes(static_cast<std::int64_t>(std::llround(static_cast<double>(bytes.value) * scale)));
}

}  // namespace

FlopPerSecond matmul_peak(const cluster::DeviceClass& device, plan::Precision precision) {
  if (precision == plan::Precision::BFloat16 && device.peak_bfloat16.value.value > 0) return device.peak_bfloat16.value;
  return device.peak_float32.value;
}

// C5
FlopPerSecond matmul_rate(const cluster::DeviceClass& device, plan::Precision precision, double size) {
  const FlopPerSecond peak = matmul_peak(device, precision);
  // A device without bfloat16 arithmetic computes in float32.
  const DType dtype = device.peak_bfloat16.value.value > 0 ? dtype_of(precision) : DType::Float32;
  const cluster::MatmulRate* below = nullptr;
  const cluster::MatmulRate* above = nullptr;
  for (const cluster::MatmulRate& rate : device.matmul_rates) {
    if (rate.dtype != dtype) continue;
    if (static_cast<double>(rate.size) <= size)
      below = &rate;
    else if (above == nullptr)
      above = &rate;
  }
  if (below == nullptr && above == nullptr) return peak;
  double achieved = 0;
  if (below == nullptr) {
    achieved = above->rate.value.value * size / static_cast<double>(above->size);
  } else if (above == nullptr) {
    achieved = below->rate.value.value;
  } else {
    const double from = std::log(static_cast<double>(below->size)), to = std::log(static_cast<double>(above->size));
    const double share = (std::log(size) - from) / (to - from);
    achieved = below->rate.value.value + share * (above->rate.value.value - below->rate.value.value);
  }
  return std::min(FlopPerSecond(achieved), peak);
}

// C4
Seconds estimate_op(const cluster::DeviceClass& device, plan::Precision precision, model::OpClass op_class, Flop flop,
                    Bytes bytes) {
  Seconds arithmetic{0};
  if (flop.value > 0) {
    // A matmul of m = n = k = size takes 2 size^3.
    const FlopPerSecond rate = is_matmul_like(op_class)
                                   ? matmul_rate(device, precision, std::max(1.0, std::cbrt(flop.value / 2)))
                                   : device.peak_float32.value;
    arithmetic = flop / rate;
  }
  return std::max(arithmetic, bytes / device.memory_bandwidth.value);
}

// C11
BlockTime estimate_block_roofline(const ModelFacts& facts, const cluster::DeviceClass& device, const BlockWork& work) {
  BlockTime time;
  // C25: on a tensor axis every operator does an equal part of its work.
  const double share = 1.0 / work.tensor;
  const double scale = byte_scale(work.precision) * share;
  const Seconds launch = device.launch_overhead.value;
  for (const model::OpCost& op : model::estimate_op_costs(facts.graph(), work.block, work.samples)) {
    if (op.op_class == model::OpClass::View) continue;  // moves nothing; the action overhead holds its bookkeeping
    time.forward += launch + estimate_op(device, work.precision, op.op_class, op.forward_flop * share,
                                         scaled(op.forward_bytes, scale));
    if (op.backward_bytes.value == 0 && op.backward_input_flop.value == 0 && op.backward_weight_flop.value == 0)
      continue;
    if (op.backward_weight_flop.value > 0 && op.backward_input_flop.value > 0) {
      const Bytes half = scaled(op.backward_bytes, scale / 2);
      const Seconds weight =
          launch + estimate_op(device, work.precision, op.op_class, op.backward_weight_flop * share, half);
      time.backward +=
          launch + estimate_op(device, work.precision, op.op_class, op.backward_input_flop * share, half) + weight;
      time.weight += weight;
    } else {
      const Seconds whole = launch + estimate_op(device, work.precision, op.op_class,
                                                 (op.backward_input_flop + op.backward_weight_flop) * share,
                                                 scaled(op.backward_bytes, scale));
      time.backward += whole;
      // C28: a contraction of data that needs no gradient has only the parameter's.
      if (op.backward_weight_flop.value > 0) time.weight += whole;
    }
  }
  const model::BlockTotals& totals = facts.totals(work.block, work.samples);
  // The loss is computed in float32 whatever the precision.
  const double kept = work.block + 1 == facts.num_blocks() ? share : scale;
  time.saved = scaled(totals.saved_bytes, kept);
  time.transient = scaled(totals.transient_bytes, kept);
  return time;
}

// C13
Seconds estimate_optimizer_roofline(const cluster::DeviceClass& device, std::int64_t parameters) {
  constexpr std::int64_t kBytesPerParameter = 32;
  return Bytes(kBytesPerParameter * parameters) / device.memory_bandwidth.value + device.launch_overhead.value;
}

}  // namespace coxswain::cost_model
