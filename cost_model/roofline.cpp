#include "cost_model/roofline.h"

#include <algorithm>
#include <cmath>

#include "cost_model/mesh_facts.h"

namespace coxswain::cost_model {
namespace {

bool is_matmul_like(model::OpClass op_class) {
  return op_class == model::OpClass::Matmul || op_class == model::OpClass::Attention ||
         op_class == model::OpClass::Convolution;
}

/// Best rate of the float16 curve; 0 without one.
FlopPerSecond best_float16(const cluster::DeviceClass& device) {
  FlopPerSecond best{0};
  for (const cluster::MatmulRate& rate : device.matmul_rates)
    if (rate.dtype == DType::Float16) best = std::max(best, rate.rate.value);
  return best;
}

/// The curve that `precision` is rated by: float16's own where there is one, else bfloat16's. A device without 16-bit
/// arithmetic computes in float32.
DType rated_dtype(const cluster::DeviceClass& device, plan::Precision precision) {
  if (!plan::is_mixed(precision)) return DType::Float32;
  if (precision == plan::Precision::Float16 && best_float16(device).value > 0) return DType::Float16;
  return device.peak_bfloat16.value.value > 0 ? DType::BFloat16 : DType::Float32;
}

/// Share of the float32 bytes that move under `precision`.
double byte_scale(plan::Precision precision) { return plan::is_mixed(precision) ? 0.5 : 1.0; }

Bytes scaled(Bytes bytes, double scale) {
  return Bytes(static_cast<std::int64_t>(std::llround(static_cast<double>(bytes.value) * scale)));
}

}  // namespace

FlopPerSecond matmul_peak(const cluster::DeviceClass& device, plan::Precision precision) {
  if (!plan::is_mixed(precision)) return device.peak_float32.value;
  if (device.peak_bfloat16.value.value > 0) return device.peak_bfloat16.value;
  // Older devices multiply in float16 alone; what they reach there is known by the curve only.
  return std::max(device.peak_float32.value,
                  precision == plan::Precision::Float16 ? best_float16(device) : FlopPerSecond(0));
}

// C5
FlopPerSecond matmul_rate(const cluster::DeviceClass& device, plan::Precision precision, double size) {
  const FlopPerSecond peak = matmul_peak(device, precision);
  const DType dtype = rated_dtype(device, precision);
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

model::ExpertForm expert_form(const cluster::DeviceClass&) { return model::ExpertForm::Grouped; }

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

bool is_ring(const MeshFacts& mesh, int op) {
  return std::any_of(mesh.rings().begin(), mesh.rings().end(), [op](const MeshRing& ring) { return ring.op == op; });
}

}  // namespace

// C11, C54
BlockTime estimate_block_roofline(const ModelFacts& facts, const cluster::DeviceClass& device, const BlockWork& work,
                                  double expert_imbalance) {
  BlockTime time;
  const model::ExpertForm form = expert_form(device);
  // C54: what a device of a mesh does is read off its own graph.
  const MeshFacts* mesh = facts.mesh(work.block, work.tensor, work.context);
  const ModelFacts& own = mesh != nullptr ? mesh->local() : facts;
  const int block = mesh != nullptr ? plan::kBlock : work.block;
  const std::vector<model::OpCost>& costs = own.op_costs(block, work.samples, form);
  const model::BlockTotals& totals = own.totals(block, work.samples, form);
  const model::BlockAttention& attention = facts.attention(work.block);
  const model::BlockExperts& experts = facts.experts(work.block);
  // C25, C29: without one, on a tensor and a context axis every operator does an equal part of its work.
  const int parts = mesh != nullptr ? 1 : work.tensor * work.context, tables = mesh != nullptr ? 1 : work.tensor;
  const double share = 1.0 / parts;
  // C32: of the tokens of all its replicas an expert axis gives each device those of its experts, and the busiest one
  // more.
  double routed = 1.0, held_experts = 1.0;
  if (work.expert > 1 && experts.count > 0) {
    held_experts = static_cast<double>(num_experts_at(experts.count, work.expert, work.expert_index)) /
                   static_cast<double>(experts.count);
    const std::int64_t all = work.expert_samples > 0 ? work.expert_samples : work.expert * work.samples;
    time.expert_imbalance = expert_imbalance;
    routed = expert_imbalance * held_experts * static_cast<double>(all) / static_cast<double>(work.samples);
  }
  for (std::size_t i = 0; i < costs.size(); ++i) {
    // Views move nothing; the action overhead holds their bookkeeping. Collectives are priced by what they send.
    if (costs[i].op_class == model::OpClass::View || costs[i].op_class == model::OpClass::Transition) continue;
    const int number = static_cast<int>(i), origin = mesh != nullptr ? mesh->origin(number) : number;
    const bool attends = mesh != nullptr ? is_ring(*mesh, number) : attention.contains(origin);
    const bool of_experts = origin >= experts.first_op && origin < experts.end_op;
    const double part = of_experts ? share * routed : share;
    const ShardedOp op{device, work.precision, part, part, held_experts / tables, attends ? work.context : 1, costs[i]};
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
  const model::BlockTotals& held =
      work.precision == plan::Precision::Float32 ? totals : own.totals(block, work.samples, form, model::Width::Mixed);
  const Bytes more = scaled(held.expert_bytes, routed - 1);
  time.inputs = scaled(held.input_bytes, share);
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
