#pragma once
// Time of an operator and a block from rates alone: the greater of arithmetic and memory traffic, plus launch overhead.
// FLOPs, bytes and saved tensors of operators come from model/op_cost.h (C1-C3). Called by the production cost model
// where no profile speaks. Threads: pure. Source: docs/cost_model.md, C4, C5, C11, C13, C28.
#include "cluster/resource_graph.h"
#include "cost_model/cost_model.h"
#include "cost_model/expert_load.h"
#include "model/op_cost.h"

namespace coxswain::cost_model {

/// C5: achieved matmul rate at m = n = k = `size`: linear in log(size) between the measured sizes, proportional to size
/// below the smallest, that of the largest above it; never above the peak. Without a curve: the peak.
[[nodiscard]] FlopPerSecond matmul_rate(const cluster::DeviceClass& device, plan::Precision precision, double size);

/// C4: max(flop / rate, bytes / memory bandwidth). Operators other than matmul, attention and convolution take their
/// arithmetic at the float32 peak. Launch overhead is not included.
[[nodiscard]] Seconds estimate_op(const cluster::DeviceClass& device, plan::Precision precision,
                                  model::OpClass op_class, Flop flop, Bytes bytes);

/// Libraries for accelerators and our CPU engine group the products of each expert.
[[nodiscard]] model::ExpertForm expert_form(const cluster::DeviceClass& device);

/// C11: sum of C4 over the block's operators, backward as input gradient and weight gradient one after the other; C28:
/// the latter's part. On a context axis attention runs in as many pieces as there are devices (C29); on an expert axis
/// the busiest device has `expert_imbalance` times the mean (C32).
[[nodiscard]] BlockTime estimate_block_roofline(const ModelFacts& facts, const cluster::DeviceClass& device,
                                                const BlockWork& work, double expert_imbalance = kExpertImbalance);

/// C13: clipping and AdamW move 32 bytes a parameter (read parameter, gradient, two moments; write parameter and
/// moments; read the gradient once more for the norm).
[[nodiscard]] Seconds estimate_optimizer_roofline(const cluster::DeviceClass& device, std::int64_t parameters);

}  // namespace coxswain::cost_model
