// Totals of one block, and a replay of its forward and backward that follows every storage from first write to last
// use. Counted against the block: what it receives (the leaf that its gradient returns through), what it makes and
// keeps. Not counted: parameters, buffers, and what it sends, which is what the next block receives.
#include <algorithm>
#include <string_view>

#include "model/finish_parts.h"
#include "model/op_cost.h"
#include "model/op_values.h"
#include "model/shard.h"
#include "model/storage.h"

namespace coxswain::model {
namespace {

enum class Role : char { Inside, Permanent, Input, Received, Shared };

class BlockReplay {
 public:
  BlockReplay(const ModelGraph& graph, int block, std::int64_t samples, ExpertForm experts)
      : graph_(graph),
        range_(graph.blocks[block]),
        storage_(graph, range_.first_op, range_.end_op, samples, experts),
        received_(live_values(graph, range_.first_op)),
        sent_(live_values(graph, range_.end_op)),
        role_(graph.values.size(), Role::Inside),
        is_sent_(graph.values.size(), 0),
        keepers_(graph.values.size(), 0) {
    assign_roles();
    for (OpId op = range_.first_op; op < range_.end_op; ++op) {
      saved_.push_back(saved_storages(graph, graph.ops[op], storage_));
      for (const ValueId base : saved_.back().bases) ++keepers_[base];
      hidden_ += saved_.back().hidden;
    }
  }

  [[nodiscard]] const StorageMap& storage() const { return storage_; }
  [[nodiscard]] const std::vector<ValueId>& received() const { return received_; }
  [[nodiscard]] const std::vector<ValueId>& sent() const { return sent_; }

  /// Storages with a keeper, by role; each once.
  [[nodiscard]] Bytes kept(Role role) const {
    Bytes bytes{0};
    for (std::size_t value = 0; value < keepers_.size(); ++value)
      if (keepers_[value] > 0 && role_[value] == role && (role != Role::Inside || is_sent_[value] == 0))
        bytes += storage_.storage_bytes(static_cast<ValueId>(value));
    return bytes;
  }
  [[nodiscard]] Bytes hidden() const { return hidden_; }
  /// What lives from forward to backward besides inputs and what was received.
  [[nodiscard]] Bytes own_saved() const { return kept(Role::Inside) + hidden_; }

  [[nodiscard]] Bytes forward_peak() const;
  [[nodiscard]] Bytes backward_peak() const;
  /// Storages with a keeper that operators [first, end) of the block make, with their hidden bytes.
  [[nodiscard]] Bytes own_saved_of(int first, int end) const;
  /// C31: what lives from forward to backward where what contracts no parameter runs again; names what does.
  [[nodiscard]] Bytes selective_saved(std::vector<int>& replayed) const;

 private:
  void assign_roles();
  [[nodiscard]] bool runs_again(const Op& op) const;
  [[nodiscard]] bool stays(ValueId base) const { return keepers_[base] > 0 || is_sent_[base] != 0; }

  const ModelGraph& graph_;
  const Block& range_;
  StorageMap storage_;
  std::vector<ValueId> received_, sent_;
  std::vector<Role> role_;     // by value
  std::vector<char> is_sent_;  // by base
  std::vector<int> keepers_;   // by base: operators whose backward needs it
  std::vector<SavedStorages> saved_;
  Bytes hidden_{0};
};

void BlockReplay::assign_roles() {
  for (std::size_t value = 0; value < graph_.values.size(); ++value) {
    const OpId producer = graph_.values[value].producer;
    if (producer < range_.first_op || producer >= range_.end_op) role_[value] = Role::Shared;
  }
  for (const Parameter& parameter : graph_.parameters) role_[parameter.value] = Role::Permanent;
  for (const Buffer& buffer : graph_.buffers) role_[buffer.value] = Role::Permanent;
  for (const Input& input : graph_.inputs) role_[input.value] = Role::Input;
  for (const ValueId value : received_) role_[value] = Role::Received;
  for (const ValueId value : sent_)
    if (storage_.contains(value) && role_[storage_.base(value)] == Role::Inside) is_sent_[storage_.base(value)] = 1;
}

Bytes BlockReplay::own_saved_of(int first, int end) const {
  Bytes bytes{0};
  for (OpId id = range_.first_op + first; id < range_.first_op + end; ++id) {
    bytes += saved_[static_cast<std::size_t>(id - range_.first_op)].hidden;
    for (const ValueId output : graph_.ops[id].outputs) {
      if (output >= 0 && keepers_[output] > 0 && storage_.base(output) == output && is_sent_[output] == 0)
        bytes += storage_.storage_bytes(output);
    }
  }
  return bytes;
}

/// Contractions of a parameter, and fused attention, take too long for what they free.
bool BlockReplay::runs_again(const Op& op) const {
  const OpRule* rule = find_rule(op.target);
  if (rule != nullptr && rule->op_class == OpClass::Transition) return false;  // others would have to take part
  if (rule == nullptr || rule->flop == FlopRule::None) return true;
  if (rule->flop == FlopRule::Attention) return drops(op);
  bool weighs = false;
  for_each_input(op, [&](ValueId value) {
    weighs = weighs || role_[storage_.base(value)] == Role::Permanent ||
             (graph_.values[value].producer >= 0 && gathers_experts(graph_, graph_.ops[graph_.values[value].producer]));
  });
  return !weighs;
}

// From the last operator to the first: what a backward or a replay needs is either made again, and needs its operands,
// or was kept.
Bytes BlockReplay::selective_saved(std::vector<int>& replayed) const {
  std::vector<char> needed(graph_.values.size(), 0);
  for (std::size_t value = 0; value < keepers_.size(); ++value) needed[value] = keepers_[value] > 0 ? 1 : 0;
  Bytes kept{0};
  for (OpId id = range_.end_op - 1; id >= range_.first_op; --id) {
    const Op& op = graph_.ops[id];
    const Bytes hidden = saved_[static_cast<std::size_t>(id - range_.first_op)].hidden;
    Bytes made{0};
    bool wanted = hidden.value > 0;
    for (const ValueId output : op.outputs) {
      // What is sent is there anyway.
      if (output < 0 || storage_.base(output) != output || needed[output] == 0 || is_sent_[output] != 0) continue;
      wanted = true;
      made += storage_.storage_bytes(output);
    }
    if (!wanted) continue;
    if (!runs_again(op)) {
      kept += made + hidden;
      continue;
    }
    replayed.push_back(id - range_.first_op);
    for_each_input(op, [&](ValueId value) { needed[storage_.base(value)] = 1; });
  }
  std::reverse(replayed.begin(), replayed.end());
  return kept;
}

Bytes BlockReplay::forward_peak() const {
  std::vector<OpId> last_use(graph_.values.size(), -1);
  for (OpId id = range_.first_op; id < range_.end_op; ++id) {
    for_each_input(graph_.ops[id], [&](ValueId value) { last_use[storage_.base(value)] = id; });
    for (const ValueId output : graph_.ops[id].outputs)
      if (output >= 0) last_use[storage_.base(output)] = id;
  }
  Bytes live{0}, peak{0};
  for (OpId id = range_.first_op; id < range_.end_op; ++id) {
    const Op& op = graph_.ops[id];
    std::vector<ValueId> touched;
    for_each_input(op, [&](ValueId value) { touched.push_back(storage_.base(value)); });
    for (const ValueId output : op.outputs) {
      if (output < 0) continue;
      if (storage_.base(output) == output) live += storage_.storage_bytes(output);
      touched.push_back(storage_.base(output));
    }
    live += saved_[static_cast<std::size_t>(id - range_.first_op)].hidden;
    peak = std::max(peak, live + workspace_of(graph_, op, storage_).forward);
    std::sort(touched.begin(), touched.end());
    touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
    for (const ValueId base : touched)
      if (last_use[base] == id && role_[base] == Role::Inside && !stays(base)) live -= storage_.storage_bytes(base);
  }
  return peak;
}

/// Gradient storages; a sum hands its own on to both inputs, so one may serve several values.
class Gradients {
 public:
  explicit Gradients(std::size_t num_values) : slot_(num_values, -1) {}

  [[nodiscard]] bool has(ValueId base) const { return slot_[base] >= 0; }
  [[nodiscard]] Bytes live() const { return live_; }

  void make(ValueId base, Bytes bytes) {
    slot_[base] = static_cast<int>(pool_.size());
    pool_.push_back({bytes, 1});
    live_ += bytes;
  }
  /// What the caller hands in lives until the block is done.
  void hold(ValueId base) { ++pool_[static_cast<std::size_t>(slot_[base])].users; }
  void share(ValueId base, ValueId with) {
    slot_[base] = slot_[with];
    ++pool_[static_cast<std::size_t>(slot_[base])].users;
  }
  /// Adds to the gradient of `base`: in place when nobody else holds it, else into a new storage.
  void accumulate(ValueId base, Bytes bytes) {
    if (pool_[static_cast<std::size_t>(slot_[base])].users == 1) return;
    release(base);
    make(base, bytes);
  }
  void release(ValueId base) {
    if (slot_[base] < 0) return;
    Storage& storage = pool_[static_cast<std::size_t>(slot_[base])];
    slot_[base] = -1;
    if (--storage.users == 0) live_ -= storage.bytes;
  }

 private:
  struct Storage {
    Bytes bytes;
    int users;
  };
  std::vector<int> slot_;
  std::vector<Storage> pool_;
  Bytes live_{0};
};

Bytes BlockReplay::backward_peak() const {
  Gradients gradients(graph_.values.size());
  const auto bytes_of = [&](ValueId value) {
    return size_of(graph_.values[value].dtype) * storage_.at(value).elements;
  };
  for (const ValueId value : sent_) {
    if (!graph_.values[value].requires_grad || !storage_.contains(value)) continue;
    const ValueId owner = storage_.gradient_owner(value);
    if (gradients.has(owner)) continue;
    gradients.make(owner, bytes_of(owner));
    gradients.hold(owner);
  }
  for (const LossTerm& term : graph_.loss)
    if (storage_.contains(term.numerator) && !gradients.has(storage_.gradient_owner(term.numerator)))
      gradients.make(storage_.gradient_owner(term.numerator), bytes_of(term.numerator));

  std::vector<int> keepers = keepers_;
  Bytes saved = own_saved(), peak = saved + gradients.live();
  for (OpId id = range_.end_op - 1; id >= range_.first_op; --id) {
    const Op& op = graph_.ops[id];
    const SavedStorages& kept = saved_[static_cast<std::size_t>(id - range_.first_op)];
    const auto owns = [&](ValueId value) { return value >= 0 && storage_.gradient_owner(value) == value; };
    const bool reached = std::any_of(op.outputs.begin(), op.outputs.end(),
                                     [&](ValueId output) { return owns(output) && gradients.has(output); });
    if (reached && is_differentiated(graph_, op)) {
      const ValueId output = op.outputs.front();
      const std::string_view name = base_name(op.target);
      const bool hands_on = name == "aten::add" || name == "aten::sub";
      Bytes contribution{0};
      for_each_input(op, [&](ValueId input) {
        if (!graph_.values[input].requires_grad) return;
        const ValueId owner = storage_.gradient_owner(input);
        const bool same = hands_on && output >= 0 && storage_.at(input).elements == storage_.at(output).elements;
        if (gradients.has(owner)) {
          if (!same) contribution = std::max(contribution, bytes_of(owner));
          gradients.accumulate(owner, bytes_of(owner));
        } else if (same && role_[owner] != Role::Permanent) {
          gradients.share(owner, output);
        } else {
          gradients.make(owner, bytes_of(owner));
        }
      });
      peak = std::max(peak, saved + gradients.live() + contribution + workspace_of(graph_, op, storage_).backward);
    }
    for (const ValueId value : op.outputs)
      if (owns(value)) gradients.release(value);
    saved -= kept.hidden;
    for (const ValueId base : kept.bases)
      if (--keepers[base] == 0 && role_[base] == Role::Inside && is_sent_[base] == 0)
        saved -= storage_.storage_bytes(base);
  }
  return peak;
}

/// Parameters whose first user stands in the block.
void add_parameters(const ModelGraph& graph, const Block& range, BlockTotals& totals) {
  std::vector<OpId> first_use(graph.values.size(), -1);
  for (OpId id = range.end_op - 1; id >= 0; --id)
    for_each_input(graph.ops[id], [&](ValueId value) { first_use[value] = id; });
  for (const Parameter& parameter : graph.parameters) {
    if (first_use[parameter.value] < range.first_op) continue;
    std::int64_t elements = 1;
    for (const std::int64_t dim : parameter.dims) elements *= dim;
    totals.parameter_elements += elements;
    totals.parameter_bytes += size_of(parameter.dtype) * elements;
  }
}

}  // namespace

BlockTotals estimate_block(const ModelGraph& graph, int block, std::int64_t samples, ExpertForm experts) {
  const Block& range = graph.blocks[block];
  const BlockReplay replay(graph, block, samples, experts);
  BlockTotals totals;
  totals.num_ops = range.end_op - range.first_op;
  for (OpId id = range.first_op; id < range.end_op; ++id) {
    const OpCost cost = cost_of(graph, graph.ops[id], replay.storage());
    totals.forward_flop += cost.forward_flop;
    totals.backward_input_flop += cost.backward_input_flop;
    totals.backward_weight_flop += cost.backward_weight_flop;
  }
  totals.matmul_flop = totals.forward_flop;  // only contractions count (C1)
  add_parameters(graph, range, totals);
  for (const ValueId value : replay.received()) totals.received_bytes += value_bytes(graph, value, samples);
  for (const ValueId value : replay.sent()) totals.cut_bytes += value_bytes(graph, value, samples);
  totals.saved_bytes = totals.received_bytes + replay.kept(Role::Input) + replay.own_saved();
  totals.shared_bytes = replay.kept(Role::Shared);
  totals.selective_bytes = totals.saved_bytes - replay.own_saved() + replay.selective_saved(totals.replayed);
  if (totals.selective_bytes >= totals.saved_bytes) {
    totals.selective_bytes = totals.saved_bytes;
    totals.replayed.clear();
  }
  if (const BlockExperts parts = find_experts(graph, block); parts.count > 0)
    totals.expert_bytes = replay.own_saved_of(parts.first_op, parts.end_op);
  const Bytes peak = std::max(replay.forward_peak(), replay.backward_peak());
  totals.transient_bytes = std::max(Bytes(0), peak - replay.own_saved());
  return totals;
}

}  // namespace coxswain::model
