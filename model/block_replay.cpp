#include "model/block_replay.h"

#include <algorithm>

#include "model/finish_parts.h"
#include "model/op_values.h"
#include "model/shard.h"

namespace coxswain::model {

BlockReplay::BlockReplay(const ModelGraph& graph, int block, std::int64_t samples, ExpertForm experts, Width width)
    : graph_(graph),
      range_(graph.blocks[block]),
      storage_(graph, range_.first_op, range_.end_op, samples, experts, width),
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

Bytes BlockReplay::cut_bytes(const std::vector<ValueId>& values) const {
  Bytes bytes{0};
  for (const ValueId value : values) {
    Bytes all = value_bytes(graph_, value, storage_.samples());
    if (storage_.widths().mixed() && graph_.values[value].dtype == DType::Float32) all = Bytes(all.value / 2);
    bytes += all;
  }
  return bytes;
}

Bytes BlockReplay::kept(Role role) const {
  Bytes bytes{0};
  for (std::size_t value = 0; value < keepers_.size(); ++value)
    if (keepers_[value] > 0 && role_[value] == role && (role != Role::Inside || is_sent_[value] == 0))
      bytes += storage_.storage_bytes(static_cast<ValueId>(value));
  return bytes;
}

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
    bytes += saved_of(id).hidden;
    for (const ValueId output : graph_.ops[id].outputs) {
      if (output >= 0 && keepers_[output] > 0 && storage_.base(output) == output && is_sent_[output] == 0)
        bytes += storage_.storage_bytes(output);
    }
  }
  return bytes;
}

namespace {

/// Of a local graph: others would have to take part once more. Only what is known to be local runs again.
bool may_communicate(const Op& op, const OpRule* rule) {
  if (!op.target.starts_with("coxswain::")) return false;
  return rule == nullptr || (rule->op_class != OpClass::Index && rule->op_class != OpClass::Pointwise);
}

}  // namespace

/// Contractions of a parameter, and fused attention, take too long for what they free.
bool BlockReplay::runs_again(const Op& op) const {
  const OpRule* rule = find_rule(op.target);
  if (may_communicate(op, rule)) return false;
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
    const Bytes hidden = saved_of(id).hidden, copies = saved_of(id).copies;
    Bytes made{0};
    bool wanted = copies.value > 0;
    for (const ValueId output : op.outputs) {
      // What is sent is there anyway.
      if (output < 0 || storage_.base(output) != output || needed[output] == 0 || is_sent_[output] != 0) continue;
      wanted = true;
      made += storage_.storage_bytes(output);
    }
    // What lies inside an operator of libtorch stays: statistics of norms, the log-softmax of a loss.
    const bool again = wanted && runs_again(op);
    kept += again ? hidden - copies : made + hidden;
    if (!again) continue;
    replayed.push_back(id - range_.first_op);
    for_each_input(op, [&](ValueId value) { needed[storage_.base(value)] = 1; });
  }
  std::reverse(replayed.begin(), replayed.end());
  return kept;
}

std::vector<char> BlockReplay::find_needed() const {
  std::vector<char> used(graph_.values.size(), 0), needed(static_cast<std::size_t>(range_.end_op - range_.first_op), 0);
  for (OpId id = range_.end_op - 1; id >= range_.first_op; --id) {
    const Op& op = graph_.ops[id];
    const bool is_needed = std::any_of(op.outputs.begin(), op.outputs.end(), [&](ValueId value) {
      return value >= 0 && (used[value] != 0 || graph_.values[value].depends_on_parameter);
    });
    if (!is_needed) continue;
    needed[static_cast<std::size_t>(id - range_.first_op)] = 1;
    for_each_input(op, [&](ValueId value) { used[value] = 1; });
  }
  return needed;
}

Bytes BlockReplay::forward_peak(bool with_graph) const {
  const std::vector<char> needed = find_needed();
  std::vector<OpId> last_use(graph_.values.size(), -1);
  for (OpId id = range_.first_op; id < range_.end_op; ++id) {
    for_each_input(graph_.ops[id], [&](ValueId value) { last_use[storage_.base(value)] = id; });
    for (const ValueId output : graph_.ops[id].outputs)
      if (output >= 0) last_use[storage_.base(output)] = id;
  }
  Bytes live{0}, peak{0};
  for (OpId id = range_.first_op; id < range_.end_op; ++id) {
    const Op& op = graph_.ops[id];
    if (needed[static_cast<std::size_t>(id - range_.first_op)] == 0) continue;
    std::vector<ValueId> touched;
    for_each_input(op, [&](ValueId value) { touched.push_back(storage_.base(value)); });
    for (const ValueId output : op.outputs) {
      if (output < 0) continue;
      if (storage_.base(output) == output) live += storage_.storage_bytes(output);
      touched.push_back(storage_.base(output));
    }
    // Without a graph what is hidden is a temporary.
    const Bytes hidden = saved_of(id).hidden;
    if (with_graph) live += hidden;
    peak = std::max(peak, live + (with_graph ? Bytes(0) : hidden) + workspace_of(graph_, op, storage_).forward);
    std::sort(touched.begin(), touched.end());
    touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
    for (const ValueId base : touched)
      if (last_use[base] == id && role_[base] == Role::Inside && !(with_graph ? stays(base) : is_sent_[base] != 0))
        live -= storage_.storage_bytes(base);
  }
  return peak;
}

}  // namespace coxswain::model
