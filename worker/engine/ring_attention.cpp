#include "worker/engine/ring_attention.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "worker/engine/attention_tiles.h"

namespace coxswain::worker {
namespace {

using collective::PointToPoint;

/// Sizes of keys and values, and who sees what.
struct Ring {
  ParallelLink link;
  std::vector<std::vector<Run>> runs;  // by member
  bool is_causal = false;
  std::int64_t batch = 0, key_heads = 0, depth = 0, value_depth = 0;

  [[nodiscard]] int size() const { return link.size(); }
  [[nodiscard]] int member(int steps) const { return ((link.index() + steps) % size() + size()) % size(); }
  [[nodiscard]] std::int64_t rows(int owner) const { return total_size(runs[static_cast<std::size_t>(owner)]); }

  [[nodiscard]] bool sees(int reader, int owner) const {
    const auto &queries = runs[static_cast<std::size_t>(reader)], &keys = runs[static_cast<std::size_t>(owner)];
    if (total_size(keys) == 0) return false;
    if (!is_causal) return true;
    std::int64_t last_query = -1, first_key = -1;
    for (const Run& run : queries)
      if (run.size > 0) last_query = std::max(last_query, run.first + run.size - 1);
    for (const Run& run : keys)
      if (run.size > 0 && (first_key < 0 || run.first < first_key)) first_key = run.first;
    return last_query >= first_key;
  }
  /// How many members a block passes on its way: the last one that sees it is so many steps behind its owner.
  [[nodiscard]] int reach(int owner) const {
    int steps = size() - 1;
    while (steps > 0 && !sees((owner + steps) % size(), owner)) --steps;
    return steps;
  }
};

/// One member's keys and values, or their gradients, in one piece that travels: (batch, rows, heads, depth) each.
struct Packed {
  at::Tensor memory, key, value;  // views (batch, heads, rows, depth)
};

Packed make_packed(const Ring& ring, int owner, c10::ScalarType type, bool zero) {
  const std::int64_t rows = ring.rows(owner), each = ring.batch * rows * ring.key_heads;
  const auto options = at::TensorOptions().dtype(type);
  Packed packed;
  const std::int64_t count = each * (ring.depth + ring.value_depth);
  packed.memory = zero ? at::zeros({count}, options) : at::empty({count}, options);
  packed.key = packed.memory.narrow(0, 0, each * ring.depth)
                   .view({ring.batch, rows, ring.key_heads, ring.depth})
                   .transpose(1, 2);
  packed.value = packed.memory.narrow(0, each * ring.depth, each * ring.value_depth)
                     .view({ring.batch, rows, ring.key_heads, ring.value_depth})
                     .transpose(1, 2);
  return packed;
}

/// Sends and receives on their way; their memory is held until they ended, also when something throws.
class Flight {
 public:
  explicit Flight(const ParallelLink& link) : link_(link) {}
  Flight(const Flight&) = delete;
  Flight& operator=(const Flight&) = delete;
  ~Flight() {
    if (started_) static_cast<void>(handle_.wait(link_.deadline()));
  }
  void add(PointToPoint::Kind kind, int peer, const Packed& packed) {
    operations_.push_back({kind, peer, buffer_of(packed.memory)});
    held_.push_back(packed.memory);
  }
  void start() {
    if (operations_.empty()) return;
    handle_ = link_.communicator->exchange(std::move(operations_), link_.deadline());
    started_ = true;
  }
  void finish() {
    if (!started_) return;
    started_ = false;
    wait_for(handle_, link_);
  }

 private:
  const ParallelLink& link_;
  std::vector<PointToPoint> operations_;
  std::vector<at::Tensor> held_;
  collective::Handle handle_;
  bool started_ = false;
};

/// Keys and values step by step: at step t this member holds those of the member t before it, if they came so far.
class KeyTour {
 public:
  KeyTour(const Ring& ring, const at::Tensor& key, const at::Tensor& value)
      : ring_(ring), type_(key.scalar_type()), own_key_(key), own_value_(value) {}

  /// Adds the passing on of what is held and the receiving of what comes next.
  void pass_on(int step, Flight& flight) {
    const int owner = ring_.member(-step), next_owner = ring_.member(-step - 1);
    if (step + 1 == ring_.size()) return;
    if (ring_.reach(owner) > step) {
      if (step == 0) pack_own();
      flight.add(PointToPoint::Kind::Send, ring_.member(1), held_);
    }
    next_ = {};
    if (ring_.reach(next_owner) > step) {
      next_ = make_packed(ring_, next_owner, type_, false);
      flight.add(PointToPoint::Kind::Receive, ring_.member(-1), next_);
    }
  }
  [[nodiscard]] KeyBlock block(int step) const {
    KeyBlock keys;
    keys.key = (step == 0 ? own_key_ : held_.key).to(c10::ScalarType::Float);
    keys.value = (step == 0 ? own_value_ : held_.value).to(c10::ScalarType::Float);
    keys.tiles = make_tiles(ring_.runs[static_cast<std::size_t>(ring_.member(-step))], kKeyTile);
    return keys;
  }
  void advance() { held_ = std::exchange(next_, {}); }

 private:
  void pack_own() {
    held_ = make_packed(ring_, ring_.link.index(), type_, false);
    held_.key.copy_(own_key_);
    held_.value.copy_(own_value_);
  }
  const Ring& ring_;
  c10::ScalarType type_;
  const at::Tensor &own_key_, &own_value_;
  Packed held_, next_;
};

void run_forward(const Ring& ring, const AttentionQueries& queries, const at::Tensor& key, const at::Tensor& value,
                 AttentionState& state) {
  KeyTour tour(ring, key, value);
  for (int step = 0; step < ring.size(); ++step) {
    Flight flight(ring.link);
    tour.pass_on(step, flight);
    flight.start();
    if (ring.sees(ring.link.index(), ring.member(-step))) attend(queries, tour.block(step), state);
    flight.finish();
    tour.advance();
  }
  finish_attention(state);
}

/// Gradients of one member's keys and values follow these: each member that holds them adds its part and passes the sum
/// on; the last one sends it to the owner, who kept its own part at home. Step t's exchange carries what step t - 1
/// found, so it runs beside the computing of step t.
class GradientTour {
 public:
  explicit GradientTour(const Ring& ring) : ring_(ring) {}

  void pass_on(int step, Flight& flight) {
    received_ = {};
    if (step < 2) return;
    const int before = ring_.member(-step + 1);  // owner of what step - 1 found here
    if (ring_.reach(before) >= step - 1)
      flight.add(PointToPoint::Kind::Send, ring_.reach(before) == step - 1 ? before : ring_.member(1), found_);
    const int self = ring_.link.index();
    if (step < ring_.size() && ring_.reach(ring_.member(-step)) >= step) {
      received_ = make_packed(ring_, ring_.member(-step), c10::ScalarType::Float, false);
      flight.add(PointToPoint::Kind::Receive, ring_.member(-1), received_);
    }
    if (ring_.reach(self) == step - 1) {
      home_ = make_packed(ring_, self, c10::ScalarType::Float, false);
      flight.add(PointToPoint::Kind::Receive, ring_.member(step - 1), home_);
    }
  }
  /// Where step `step` adds its part.
  Packed& begin_step(int step) {
    computing_ = make_packed(ring_, ring_.member(-step), c10::ScalarType::Float, true);
    return computing_;
  }
  void end_step(int step) {
    if (received_.memory.defined()) computing_.memory.add_(received_.memory);
    (step == 0 ? own_ : found_) = std::exchange(computing_, {});
  }
  Packed finish() {
    if (home_.memory.defined()) own_.memory.add_(home_.memory);
    return std::move(own_);
  }

 private:
  const Ring& ring_;
  Packed own_, home_, found_, received_, computing_;
};

Packed run_backward(const Ring& ring, const AttentionQueries& queries, const at::Tensor& key, const at::Tensor& value,
                    const OutputSide& side, const at::Tensor& query_gradient) {
  KeyTour keys(ring, key, value);
  GradientTour gradients(ring);
  for (int step = 0; step <= ring.size(); ++step) {
    Flight flight(ring.link);
    const bool last = step == ring.size();
    if (!last) keys.pass_on(step, flight);
    gradients.pass_on(step, flight);
    flight.start();
    const int owner = ring.member(-step);
    const bool holds = !last && ring.reach(owner) >= step;
    if (holds) {
      Packed& sums = gradients.begin_step(step);
      if (ring.sees(ring.link.index(), owner))
        attend_backward(queries, keys.block(step), side, query_gradient, sums.key, sums.value);
    }
    flight.finish();
    if (holds) gradients.end_step(step);
    keys.advance();
  }
  return gradients.finish();
}

struct RingAttentionBackward final : torch::autograd::Node {
  Ring ring;
  AttentionQueries queries;
  at::Tensor key, value, output, log_sums;
  std::vector<std::int64_t> query_sizes, key_sizes, value_sizes;

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    TORCH_CHECK(output.defined(), "ring attention's backward after its saved tensors were released");
    const at::NoGradGuard no_grad;
    const at::Tensor& query = queries.query;
    OutputSide side;
    // Every member takes part in the ring, also one whose output nobody used.
    side.gradient = gradients[0].defined() ? gradients[0].reshape(output.sizes()) : at::zeros_like(output);
    if (side.gradient.stride(-1) != 1) side.gradient = side.gradient.contiguous();
    gradients.clear();
    side.log_sums = log_sums;
    side.products = output.to(c10::ScalarType::Float).mul(side.gradient).sum(-1);
    at::Tensor query_gradient = at::zeros({query.size(0), query.size(2), query.size(1), query.size(3)},
                                          at::TensorOptions().dtype(c10::ScalarType::Float))
                                    .transpose(1, 2);
    const Packed sums = run_backward(ring, queries, key, value, side, query_gradient);
    const c10::ScalarType type = query.scalar_type();
    return {query_gradient.to(type).reshape(query_sizes), sums.key.to(type).reshape(key_sizes),
            sums.value.to(type).reshape(value_sizes)};
  }
  void release_variables() override {
    queries.query.reset();
    queries.mask.reset();
    key.reset();
    value.reset();
    output.reset();
    log_sums.reset();
  }
  std::string name() const override { return "CoxswainRingAttentionBackward"; }
};

// (batch, rows, depth) is one head; depth contiguous.
at::Tensor with_heads(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.dim() == 3 || tensor.dim() == 4, "ring attention takes (batch, heads, rows, depth), got ",
              tensor.dim(), " dims");
  const at::Tensor heads = tensor.dim() == 3 ? tensor.detach().unsqueeze(1) : tensor.detach();
  return heads.stride(-1) == 1 ? heads : heads.contiguous();
}

at::Tensor expanded_mask(const at::Tensor& mask, const at::Tensor& query, std::int64_t keys) {
  if (!mask.defined()) return {};
  const c10::ScalarType type = mask.scalar_type();
  TORCH_CHECK(type == c10::ScalarType::Bool || type == c10::ScalarType::Float || type == c10::ScalarType::BFloat16,
              "an attention mask is bool, float32 or bfloat16, got ", type);
  TORCH_CHECK(!mask.requires_grad(), "an attention mask has no gradient in ring attention");
  return mask.expand({query.size(0), query.size(1), query.size(2), keys});
}

Ring make_ring(const RingAttentionArguments& arguments, const at::Tensor& key, const at::Tensor& value,
               const ParallelLink& link) {
  Ring ring;
  ring.link = link;
  ring.runs = runs_by_member(arguments.runs, link.size());
  ring.is_causal = arguments.is_causal;
  ring.batch = key.size(0);
  ring.key_heads = key.size(1);
  ring.depth = key.size(3);
  ring.value_depth = value.size(3);
  TORCH_CHECK(ring.rows(link.index()) == key.size(2), "member ", link.index(), " has ", ring.rows(link.index()),
              " keys by its runs and ", key.size(2), " rows of keys");
  return ring;
}

AttentionQueries make_queries(const RingAttentionArguments& arguments, const Ring& ring, const at::Tensor& query) {
  AttentionQueries queries;
  const std::int64_t all_keys = total_size(ring.runs);
  queries.query = query;
  queries.mask = expanded_mask(arguments.mask, query, all_keys);
  queries.is_causal = arguments.is_causal;
  queries.scale = static_cast<float>(arguments.scale.value_or(1.0 / std::sqrt(static_cast<double>(query.size(3)))));
  queries.dropout.stream = arguments.stream;
  queries.dropout.place = arguments.place;
  queries.dropout.first_head = arguments.first_head;
  queries.dropout.num_heads = arguments.num_heads > 0 ? arguments.num_heads : query.size(1);
  queries.dropout.num_queries = queries.dropout.num_keys = all_keys;
  const bool positioned = arguments.is_causal || queries.dropout.active();
  const std::vector<Run>& own = ring.runs[static_cast<std::size_t>(ring.link.index())];
  const bool like_keys = query.size(2) == total_size(own);
  TORCH_CHECK(!positioned || like_keys,
              "queries of causal attention, or with dropout, have the rows of keys: ", total_size(own), ", got ",
              query.size(2));
  // No tile across two runs: one of them may be hidden from the keys.
  queries.tiles = make_tiles(like_keys ? own : std::vector<Run>{{0, query.size(2)}}, kQueryTile);
  return queries;
}

void check(const RingAttentionArguments& arguments, const at::Tensor& query, const at::Tensor& key,
           const at::Tensor& value) {
  const c10::ScalarType type = query.scalar_type();
  TORCH_CHECK((type == c10::ScalarType::Float || type == c10::ScalarType::BFloat16) && key.scalar_type() == type &&
                  value.scalar_type() == type,
              "ring attention takes query, key and value of one dtype, float32 or bfloat16");
  TORCH_CHECK(key.size(0) == query.size(0) && value.size(0) == query.size(0) && key.size(3) == query.size(3) &&
                  value.size(1) == key.size(1) && value.size(2) == key.size(2),
              "ring attention: query ", query.sizes(), ", key ", key.sizes(), " and value ", value.sizes(),
              " do not fit");
  TORCH_CHECK(query.size(1) == key.size(1) || (arguments.enable_gqa && query.size(1) % key.size(1) == 0),
              "ring attention: ", key.size(1), " key heads for ", query.size(1), " query heads",
              arguments.enable_gqa ? "" : " without enable_gqa");
  TORCH_CHECK(!arguments.is_causal || !arguments.mask.defined(), "attention is causal or has a mask, not both");
  TORCH_CHECK(
      arguments.place.rows_per_sample == 0 || arguments.place.sample_dim == 0 || arguments.stream.threshold == 0,
      "attention with dropout takes its samples on dim 0, got dim ", arguments.place.sample_dim);
}

}  // namespace

at::Tensor ring_attention(const RingAttentionArguments& arguments, const ParallelLink& link) {
  const bool requires_grad = torch::autograd::compute_requires_grad(arguments.query, arguments.key, arguments.value);
  torch::autograd::edge_list edges;
  if (requires_grad) edges = torch::autograd::collect_next_edges(arguments.query, arguments.key, arguments.value);
  const at::NoGradGuard no_grad;
  const at::Tensor query = with_heads(arguments.query), key = with_heads(arguments.key),
                   value = with_heads(arguments.value);
  check(arguments, query, key, value);
  const Ring ring = make_ring(arguments, key, value, link);
  AttentionQueries queries = make_queries(arguments, ring, query);
  AttentionState state = make_state(queries, value.size(3));
  run_forward(ring, queries, key, value, state);
  state.output = state.output.to(query.scalar_type());
  at::Tensor result = state.output.detach();
  if (arguments.query.dim() == 3) result = result.squeeze(1);
  if (requires_grad) {
    auto node = c10::make_intrusive<RingAttentionBackward>();
    node->ring = ring;
    node->queries = std::move(queries);
    node->key = key;
    node->value = value;
    node->output = state.output;
    node->log_sums = state.log_sums;
    node->query_sizes = arguments.query.sizes().vec();
    node->key_sizes = arguments.key.sizes().vec();
    node->value_sizes = arguments.value.sizes().vec();
    node->set_next_edges(std::move(edges));
    torch::autograd::set_history(result, node);
  }
  return result;
}

}  // namespace coxswain::worker
