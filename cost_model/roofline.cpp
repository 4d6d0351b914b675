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

model::ExpertForm expert_form(const cluster::DeviceClass& device) {
  return device.kind == cluster::DeviceKind::Cuda ? model::ExpertForm::Grouped : model::ExpertForm::Gathered;
}

namespace {

/// An operator on one device of a mesh: its share of the work, in `pieces` one after another.
struct ShardedOp {
  const cluster::DeviceClass& device;
  plan::Precision precision;
  double share, byte_share, table_share;
  int pieces;
  const model::OpCost& op;

  [[nodiscard]] Seconds time(Flop flop, Bytes bytes, Bytes tables, double part) const {
    const double scale = byte_scale(precision) * part / pieces;
    const double moved =
        static_cast<double>((bytes - tables).value) * byte_share + static_cast<double>(tables.value) * table_share;
    const Bytes each(static_cast<std::int64_t>(std::llround(moved * scale)));
    return (device.launch_overhead.value + estimate_op(device, precision, op.op_class, flop * (share / pieces), each)) *
           static_cast<double>(pieces);
  }
  [[nodiscard]] Seconds forward() const { return time(op.forward_flop, op.forward_bytes, op.table_bytes, 1); }
  /// C28: of the backward, the product that makes a parameter's gradient.
  [[nodiscard]] Seconds weight() const {
    if (op.backward_weight_flop.value == 0) return Seconds(0);
    return time(op.backward_weight_flop, op.backward_bytes, op.table_bytes * 2,
                op.backward_input_flop.value > 0 ? 0.5 : 1.0);
  }
  [[nodiscard]] Seconds backward() const {
    const Flop input = op.backward_input_flop, weight = op.backward_weight_flop;
    if (op.backward_bytes.value == 0 && input.value == 0 && weight.value == 0) return Seconds(0);
    const Bytes tables = op.table_bytes * 2;
    // Two products, each with half of the traffic.
    if (input.value > 0 && weight.value > 0)
      return time(input, op.backward_bytes, tables, 0.5) + time(weight, op.backward_bytes, tables, 0.5);
    return time(input + weight, op.backward_bytes, tables, 1);
  }
};

}  // namespace

// C11
BlockTime estimate_block_roofline(const ModelFacts& facts, const cluster::DeviceClass& device, const BlockWork& work) {
  BlockTime time;
  const model::ExpertForm form = expert_form(device);
  const std::vector<model::OpCost>& costs = facts.op_costs(work.block, work.samples, form);
  const model::BlockTotals& totals = facts.totals(work.block, work.samples, form);
  const model::BlockAttention& attention = facts.attention(work.block);
  const model::BlockExperts& experts = facts.experts(work.block);
  // C25, C29: on a tensor and a context axis every operator does an equal part of its work.
  const double share = 1.0 / (work.tensor * work.context);
  for (std::size_t i = 0; i < costs.size(); ++i) {
    if (costs[i].op_class == model::OpClass::View)
      continue;  // moves nothing; the action overhead holds its bookkeeping
    const int number = static_cast<int>(i);
    const bool attends = attention.contains(number);
    // C32: the busiest device of an expert axis has more than its part of the tokens.
    const bool uneven = work.expert > 1 && number >= experts.first_op && number < experts.end_op;
    const double part = uneven ? share * kExpertImbalance : share;
    const ShardedOp op{
        device, work.precision, part, part, 1.0 / (work.tensor * work.expert), attends ? work.context : 1, costs[i]};
    const Seconds forward = op.forward(), backward = op.backward();
    time.forward += forward;
    time.backward += backward;
    time.weight += op.weight();
    if (attends) {
      time.attention_forward += forward;
      time.attention_backward += backward;
    }
    if (std::binary_search(totals.replayed.begin(), totals.replayed.end(), number)) time.replayed += forward;
  }
  // C3, under mixed precision with what the policy makes of every value.
  const model::BlockTotals& held = work.precision == plan::Precision::Float32
                                       ? totals
                                       : facts.totals(work.block, work.samples, form, model::Width::Mixed);
  const Bytes more = work.expert > 1 ? scaled(held.expert_bytes, kExpertImbalance - 1) : Bytes(0);
  time.saved = scaled(held.saved_bytes + more, share);
  time.selective = scaled(held.selective_bytes + more, share);
  time.owed = scaled(held.owed_bytes + more, share);
  time.transient = scaled(held.backward_transient_bytes, share);
  time.forward_transient = scaled(held.forward_transient_bytes, share);
  time.plain_transient = scaled(held.plain_transient_bytes, share);
  time.input_transient = scaled(held.input_transient_bytes, share);
  time.weight_transient = scaled(held.weight_transient_bytes, share);
  return time;
}

// C13
Seconds estimate_optimizer_roofline(const cluster::DeviceClass& device, std::int64_t parameters) {
  constexpr std::int64_t kBytesPerParameter = 32;
  return Bytes(kBytesPerParameter * parameters) / device.memory_bandwidth.value + device.launch_overhead.value;
}

}  // namespace coxswain::cost_model
