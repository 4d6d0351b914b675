#pragma once
// Experts split over a group: rows (a token for each expert that it chose) travel to the members that hold their
// experts and come back, nothing is dropped and nothing padded. First every member learns how many rows every member
// has for every expert, so all sizes are known, and so is each expert's load.
//   routing = route(indices, ...); here = dispatch(rows, routing, link); ... expert_linear(here, own table,
//   routing.own_experts) ...; result = combine(here, routing, link)
// Called by the engine around the experts of a block. Threads: the one that issues on the communicator. Private to
// worker/engine. Source: Lepikhin et al. 2020 (arXiv 2006.16668); dropless: Gale et al. 2022 (arXiv 2211.15841).
#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "worker/engine/parallel_link.h"

namespace coxswain::worker {

struct ExpertRouting {
  std::vector<std::int64_t> order;                    // own rows in the order in which they are sent
  std::vector<std::int64_t> send_rows, receive_rows;  // by member
  at::Tensor own_experts;                             // of each row that arrives: index among the experts held here
  std::vector<std::int64_t> rows_per_expert;          // over the group, by expert of the whole
  [[nodiscard]] std::int64_t num_received() const { return own_experts.numel(); }
};

struct RoutingOptions {
  std::vector<std::int64_t> runs;  // of the experts: first and size, member after member
  std::int64_t capacity = 0;       // rows that an expert may get over the group; 0: any number
  std::string where;               // named in errors
};

/// `indices`: (rows), int64, expert of the whole for each own row. Every member calls it. Errors, thrown by every
/// member alike: more rows than the capacity (which expert, how many); CommunicationError. An index that is no expert
/// throws here alone.
[[nodiscard]] std::shared_ptr<const ExpertRouting> route(const at::Tensor& indices, const RoutingOptions& options,
                                                         const ParallelLink& link);

/// (own rows, ...) -> (rows for the experts held here, ...), by sender. Differentiable; its backward is `combine`.
[[nodiscard]] at::Tensor dispatch(const at::Tensor& rows, std::shared_ptr<const ExpertRouting> routing,
                                  const ParallelLink& link);
/// The way back: (rows for the experts held here, ...) -> (own rows, ...). Its backward is `dispatch`.
[[nodiscard]] at::Tensor combine(const at::Tensor& rows, std::shared_ptr<const ExpertRouting> routing,
                                 const ParallelLink& link);

}  // namespace coxswain::worker
