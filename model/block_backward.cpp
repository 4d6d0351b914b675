// The backward of one block, whole or as I and W (docs/adr/0008): what lives while each operator's derivative runs.
#include <algorithm>
#include <string_view>

#include "model/block_replay.h"
#include "model/op_values.h"

namespace coxswain::model {
namespace {

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
  int hold(ValueId base) {
    ++pool_[static_cast<std::size_t>(slot_[base])].users;
    return slot_[base];
  }
  void drop(int held) {
    Storage& storage = pool_[static_cast<std::size_t>(held)];
    if (--storage.users == 0) live_ -= storage.bytes;
  }
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
    const int held = slot_[base];
    slot_[base] = -1;
    drop(held);
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

}  // namespace

/// Runs over the operators from the last to the first. `Input` leaves gradients and kept storages to `Weight`.
class BackwardReplay {
 public:
  enum class Half { Whole, Input, Weight };

  explicit BackwardReplay(const BlockReplay& block)
      : block_(block),
        graph_(block.graph_),
        gradients_(block.graph_.values.size()),
        keepers_(block.keepers_),
        leads_(block.graph_.values.size(), 0),
        saved_(block.own_saved()) {
    find_ways();
    seed();
  }

  /// The peak, above nothing.
  Bytes run(Half half) {
    Bytes peak = now();
    for (OpId id = block_.range_.end_op - 1; id >= block_.range_.first_op; --id) {
      if (half == Half::Whole || is_in(id, half)) peak = std::max(peak, differentiate(id, half));
      finish(id, half);
    }
    return peak;
  }
  [[nodiscard]] Bytes now() const { return saved_ + gradients_.live(); }
  /// After `Input`: what was handed to the blocks before is theirs.
  void hand_on() {
    for (const ValueId value : block_.received_)
      if (block_.storage_.contains(value)) gradients_.release(block_.storage_.gradient_owner(value));
    for (const int held : held_) gradients_.drop(held);
  }
  [[nodiscard]] bool keeps(BlockReplay::Role role) const {
    for (std::size_t value = 0; value < keepers_.size(); ++value)
      if (keepers_[value] > 0 && block_.role_[value] == role) return true;
    return false;
  }

 private:
  [[nodiscard]] Bytes bytes_of(ValueId value) const { return block_.storage_.value_bytes(value); }

  /// Values through which a gradient reaches what the block received.
  void find_ways() {
    for (const ValueId value : block_.received_) leads_[value] = graph_.values[value].requires_grad ? 1 : 0;
    for (OpId id = block_.range_.first_op; id < block_.range_.end_op; ++id) {
      const Op& op = graph_.ops[id];
      if (!is_differentiated(graph_, op)) continue;
      bool leads = false;
      for_each_input(op, [&](ValueId input) { leads = leads || (requires_grad(input) && leads_[input] != 0); });
      for (const ValueId output : op.outputs)
        if (output >= 0) leads_[output] = leads ? 1 : 0;
    }
  }
  [[nodiscard]] bool requires_grad(ValueId value) const { return graph_.values[value].requires_grad; }
  [[nodiscard]] bool leads(const Op& op) const {
    return std::any_of(op.outputs.begin(), op.outputs.end(),
                       [&](ValueId output) { return output >= 0 && leads_[output] != 0; });
  }
  /// An input leads to parameters alone, so W comes here; but I makes the gradients of a norm's gain and shift, vectors
  /// beside data (docs/adr/0013).
  [[nodiscard]] bool is_owed(const Op& op) const {
    if (!is_differentiated(graph_, op)) return false;
    bool owed = false, vectors = true;
    for_each_input(op, [&](ValueId input) {
      if (!requires_grad(input) || leads_[input] != 0) return;
      owed = true;
      vectors = vectors && graph_.values[input].producer < 0 && graph_.values[input].dims.size() == 1;
    });
    return owed && !(vectors && leads(op));
  }
  [[nodiscard]] bool is_in(OpId id, Half half) const {
    const Op& op = graph_.ops[id];
    return half == Half::Input ? leads(op) : is_owed(op);
  }

  void seed() {
    for (const ValueId value : block_.sent_) {
      if (!requires_grad(value) || !block_.storage_.contains(value)) continue;
      const ValueId owner = block_.storage_.gradient_owner(value);
      if (gradients_.has(owner)) continue;
      gradients_.make(owner, bytes_of(owner));
      held_.push_back(gradients_.hold(owner));
    }
    for (const LossTerm& term : graph_.loss)
      if (block_.storage_.contains(term.numerator) && !gradients_.has(block_.storage_.gradient_owner(term.numerator)))
        gradients_.make(block_.storage_.gradient_owner(term.numerator), bytes_of(term.numerator));
  }

  [[nodiscard]] bool owns(ValueId value) const { return value >= 0 && block_.storage_.gradient_owner(value) == value; }

  Bytes differentiate(OpId id, Half half) {
    const Op& op = graph_.ops[id];
    const StorageMap& storage = block_.storage_;
    const bool reached = std::any_of(op.outputs.begin(), op.outputs.end(),
                                     [&](ValueId output) { return owns(output) && gradients_.has(output); });
    if (!reached || !is_differentiated(graph_, op)) return Bytes(0);
    const ValueId output = op.outputs.front();
    const std::string_view name = base_name(op.target);
    const bool hands_on = name == "aten::add" || name == "aten::sub";
    Bytes contribution{0};
    for_each_input(op, [&](ValueId input) {
      if (!requires_grad(input)) return;
      const bool in_input_half = leads_[input] != 0 || !is_owed(op);
      if (half != Half::Whole && in_input_half != (half == Half::Input)) return;
      const ValueId owner = storage.gradient_owner(input);
      const bool same = hands_on && output >= 0 && storage.at(input).elements == storage.at(output).elements &&
                        storage.widths().element(input) == storage.widths().element(output);
      if (gradients_.has(owner)) {
        if (!same) contribution = std::max(contribution, bytes_of(owner));
        gradients_.accumulate(owner, bytes_of(owner));
      } else if (same && block_.role_[owner] != BlockReplay::Role::Permanent) {
        gradients_.share(owner, output);
      } else {
        gradients_.make(owner, bytes_of(owner));
      }
    });
    return now() + contribution + workspace_of(graph_, op, storage).backward;
  }

  /// Frees what nobody needs any more.
  void finish(OpId id, Half half) {
    const Op& op = graph_.ops[id];
    if (half == Half::Input && is_owed(op)) return;
    if (half == Half::Weight && !is_owed(op)) return;
    for (const ValueId value : op.outputs)
      if (owns(value)) gradients_.release(value);
    const SavedStorages& kept = block_.saved_of(id);
    saved_ -= kept.hidden;
    for (const ValueId base : kept.bases)
      if (--keepers_[base] == 0 && block_.role_[base] == BlockReplay::Role::Inside && block_.is_sent_[base] == 0)
        saved_ -= block_.storage_.storage_bytes(base);
  }

  const BlockReplay& block_;
  const ModelGraph& graph_;
  Gradients gradients_;
  std::vector<int> keepers_;
  std::vector<char> leads_;  // by value
  std::vector<int> held_;    // what the caller handed in
  Bytes saved_;
};

BlockReplay::Backward BlockReplay::backward() const {
  Backward result;
  result.whole = BackwardReplay(*this).run(BackwardReplay::Half::Whole);
  BackwardReplay halves(*this);
  result.input = halves.run(BackwardReplay::Half::Input);
  halves.hand_on();
  result.owed = halves.now();
  result.owes_received = halves.keeps(Role::Received);
  result.owes_inputs = halves.keeps(Role::Input);
  result.weight = halves.run(BackwardReplay::Half::Weight);
  return result;
}

}  // namespace coxswain::model
