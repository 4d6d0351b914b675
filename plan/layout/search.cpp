#include "plan/layout/search.h"

#include <algorithm>
#include <limits>
#include <unordered_map>

#include "common/ensure.h"

namespace coxswain::plan {
namespace {

using model::ModelGraph;
using model::OpId;
using model::ValueId;

constexpr double kLinkBytesPerSecond = 5e10;
// What starting a collective costs, in bytes a sample: a message of row statistics is not free.
constexpr double kStartBytes = 5e4 * kSamples;
constexpr double kCopyBytesPerSecond = 2e11;
constexpr std::size_t kMaxStates = 512;  // the best are kept

using Mask = std::uint32_t;

class Searcher {
 public:
  Searcher(const ModelGraph& graph, const BlockRun& run, const MeshStep& step, const std::map<OpId, OpChoices>& choices,
           std::map<ValueId, Form>& stored)
      : graph_(graph),
        step_(step),
        choices_(choices),
        stored_(stored),
        table_(graph, step),
        parameter_of_(graph.values.size(), -1),
        last_use_(graph.values.size(), -1),
        slot_(graph.values.size(), -1),
        forms_(graph.values.size()) {
    for (std::size_t p = 0; p < graph.parameters.size(); ++p)
      if (graph.parameters[p].trainable)
        parameter_of_[static_cast<std::size_t>(graph.parameters[p].value)] = static_cast<int>(p);
    const model::StageSlice slice = model::slice_stage(graph, run.first_block, run.end_block);
    received_ = slice.received;
    for (const ValueId v : slice.sent) leaves_.emplace_back(v, edge_form(graph, v, step));
    const OpId first = graph.blocks[static_cast<std::size_t>(run.first_block)].first_op;
    const OpId end = graph.blocks[static_cast<std::size_t>(run.end_block) - 1].end_op;
    for (const model::LossTerm& term : graph.loss) {
      const OpId producer = graph.values[static_cast<std::size_t>(term.numerator)].producer;
      if (producer >= first && producer < end) leaves_.emplace_back(term.numerator, replicate());
    }
    for (const auto& [id, op] : choices)
      for (const Read& read : op.reads)
        if (is_carried(read.value)) last_use_[static_cast<std::size_t>(read.value)] = id;
    for (const auto& [value, form] : leaves_) last_use_[static_cast<std::size_t>(value)] = end;
  }

  RunLayout find() {
    start();
    for (const auto& [id, op] : choices_) advance(id, op);
    return finish();
  }

 private:
  struct State {
    std::vector<Mask> masks;  // by live value
    LayoutCost cost;
    int previous = -1, choice = -1;
  };

  [[nodiscard]] bool is_carried(ValueId v) const {
    const model::Value& value = graph_.values[static_cast<std::size_t>(v)];
    return (value.producer >= 0 && value.depends_on_parameter) || parameter_of_[static_cast<std::size_t>(v)] >= 0;
  }

  int form_index(ValueId v, const Form& form) {
    auto& known = forms_[static_cast<std::size_t>(v)];
    const auto at = std::find(known.begin(), known.end(), form);
    if (at != known.end()) return static_cast<int>(at - known.begin());
    COX_ENSURE(known.size() < 32, graph_.values[static_cast<std::size_t>(v)].name);
    known.push_back(form);
    return static_cast<int>(known.size()) - 1;
  }

  void start() {
    State first;
    for (const ValueId v : received_) {
      enter(v);
      first.masks.push_back(Mask{1} << form_index(v, edge_form(graph_, v, step_)));
    }
    layers_.push_back({first});
  }

  void enter(ValueId v) {
    slot_[static_cast<std::size_t>(v)] = static_cast<int>(live_.size());
    live_.push_back(v);
  }

  void advance(OpId id, const OpChoices& op) {
    // Parameters begin to live where they are first read.
    for (const Read& read : op.reads) {
      if (parameter_of_[static_cast<std::size_t>(read.value)] < 0 || slot_[static_cast<std::size_t>(read.value)] >= 0)
        continue;
      enter(read.value);
    }
    std::vector<ValueId> written;
    const model::Op& node = graph_.ops[static_cast<std::size_t>(id)];
    for (const int o : op.writes) written.push_back(node.outputs[static_cast<std::size_t>(o)]);
    std::vector<ValueId> after;
    std::vector<int> kept;  // slots that go on
    for (std::size_t s = 0; s < live_.size(); ++s) {
      if (last_use_[static_cast<std::size_t>(live_[s])] <= id) continue;
      after.push_back(live_[s]);
      kept.push_back(static_cast<int>(s));
    }
    std::map<std::vector<Mask>, State> found;
    const std::vector<State>& states = layers_.back();
    for (std::size_t s = 0; s < states.size(); ++s) {
      for (std::size_t c = 0; c < op.choices.size(); ++c) {
        State next;
        next.masks = states[s].masks;
        next.masks.resize(live_.size(), 0);
        next.cost = states[s].cost;
        if (!apply(op, op.choices[c], next)) continue;
        std::vector<Mask> masks;
        for (const int slot : kept) masks.push_back(next.masks[static_cast<std::size_t>(slot)]);
        for (std::size_t w = 0; w < written.size(); ++w)
          if (last_use_[static_cast<std::size_t>(written[w])] > id)
            masks.push_back(Mask{1} << form_index(written[w], op.choices[c].writes[w]));
        next.previous = static_cast<int>(s);
        next.choice = static_cast<int>(c);
        const auto at = found.find(masks);
        if (at != found.end() && at->second.cost <= next.cost) continue;
        next.masks = masks;
        found.insert_or_assign(std::move(masks), std::move(next));
      }
    }
    std::vector<State> layer;
    for (auto& [masks, state] : found) layer.push_back(std::move(state));
    std::stable_sort(layer.begin(), layer.end(), [](const State& a, const State& b) { return a.cost < b.cost; });
    if (layer.size() > kMaxStates) layer.resize(kMaxStates);
    layers_.push_back(std::move(layer));
    for (const ValueId v : live_) slot_[static_cast<std::size_t>(v)] = -1;
    live_.clear();
    for (const ValueId v : after) enter(v);
    for (const ValueId v : written)
      if (last_use_[static_cast<std::size_t>(v)] > id) enter(v);
  }

  // Brings every read into its form.
  bool apply(const OpChoices& op, const Choice& choice, State& state) {
    state.cost.seconds += choice.seconds;
    for (std::size_t r = 0; r < op.reads.size(); ++r) {
      const ValueId v = op.reads[r].value;
      if (is_carried(v) && !bring(v, choice.reads[r], state)) return false;
    }
    return true;
  }

  bool bring(ValueId v, const Form& wanted, State& state) {
    Mask& mask = state.masks[static_cast<std::size_t>(slot_[static_cast<std::size_t>(v)])];
    if (mask == 0) {
      const Form form = stored_form(v, wanted);
      if (form.kind == Form::Kind::Replicate) state.cost.whole_parameter_bytes += weight_bytes(v);
      mask = Mask{1} << form_index(v, form);
    }
    const int index = form_index(v, wanted);
    if ((mask >> index & 1U) != 0) return true;
    const LayoutCost* cost = cost_to(v, mask, wanted, index);
    if (cost == nullptr) return false;
    state.cost.seconds += cost->seconds;
    state.cost.whole_parameter_bytes += cost->whole_parameter_bytes;
    mask |= Mask{1} << index;
    return true;
  }

  /// Of the transition by which `v` comes to be at hand as `wanted` (form `index`) too; null: there is none. States ask
  /// for the same few again and again.
  const LayoutCost* cost_to(ValueId v, Mask mask, const Form& wanted, int index) {
    constexpr int kIndexBits = 5, kMaskBits = 32;
    const std::uint64_t key = (static_cast<std::uint64_t>(v) << (kMaskBits + kIndexBits)) |
                              (std::uint64_t{mask} << kIndexBits) | static_cast<std::uint64_t>(index);
    const auto [at, fresh] = transitions_.try_emplace(key);
    if (fresh) {
      double seconds = 0;
      bool found = false;
      const auto step = table_.step_to(v, at_hand(v, mask), wanted, seconds, found);
      // A weight that travels while it is used is no better than a whole one.
      const double whole = step && step->from.kind == Form::Kind::Shard ? weight_bytes(v) : 0;
      if (found) at->second = LayoutCost{whole, seconds};
    }
    return at->second ? &*at->second : nullptr;
  }

  [[nodiscard]] FormTable::AtHand at_hand(ValueId v, Mask mask) const {
    FormTable::AtHand forms;
    const auto& known = forms_[static_cast<std::size_t>(v)];
    for (std::size_t f = 0; f < known.size(); ++f)
      if ((mask >> f & 1U) != 0) forms.push_back(known[f]);
    return forms;
  }

  // A parameter lies as its first reader wants it, whole where that is a sum.
  [[nodiscard]] Form stored_form(ValueId v, const Form& wanted) const {
    const auto at = stored_.find(v);
    if (at != stored_.end()) return at->second;
    return wanted.kind == Form::Kind::Shard ? wanted : replicate();
  }

  [[nodiscard]] double weight_bytes(ValueId v) const {
    if (parameter_of_[static_cast<std::size_t>(v)] < 0 || graph_.values[static_cast<std::size_t>(v)].dims.size() < 2)
      return 0;
    double bytes = static_cast<double>(size_of(graph_.values[static_cast<std::size_t>(v)].dtype).value);
    for (const std::int64_t size : sizes_of(graph_, v)) bytes *= static_cast<double>(size);
    return bytes;
  }

  RunLayout finish() {
    int best = -1;
    LayoutCost least;
    std::vector<State>& last = layers_.back();
    for (std::size_t s = 0; s < last.size(); ++s) {
      State state = last[s];
      bool possible = true;
      for (const auto& [value, form] : leaves_)
        possible = possible && slot_[static_cast<std::size_t>(value)] >= 0 && bring(value, form, state);
      if (!possible || (best >= 0 && least <= state.cost)) continue;
      best = static_cast<int>(s);
      least = state.cost;
    }
    COX_ENSURE(best >= 0, layers_.size());
    RunLayout layout;
    layout.cost = least;
    auto id = choices_.rbegin();
    for (std::size_t layer = layers_.size(); layer-- > 1; ++id) {
      const State& state = layers_[layer][static_cast<std::size_t>(best)];
      layout.chosen[id->first] = id->second.choices[static_cast<std::size_t>(state.choice)];
      best = state.previous;
    }
    for (const auto& [op, choice] : layout.chosen) {
      const OpChoices& choices = choices_.at(op);
      for (std::size_t r = 0; r < choices.reads.size(); ++r)
        if (const ValueId v = choices.reads[r].value; parameter_of_[static_cast<std::size_t>(v)] >= 0)
          stored_.emplace(v, stored_form(v, choice.reads[r]));
    }
    return layout;
  }

  const ModelGraph& graph_;
  const MeshStep step_;
  const std::map<OpId, OpChoices>& choices_;
  std::map<ValueId, Form>& stored_;
  const FormTable table_;
  std::vector<int> parameter_of_;
  std::vector<OpId> last_use_;
  std::vector<ValueId> received_;
  std::vector<std::pair<ValueId, Form>> leaves_;
  std::vector<ValueId> live_;
  std::vector<int> slot_;
  std::vector<std::vector<Form>> forms_;
  std::unordered_map<std::uint64_t, std::optional<LayoutCost>> transitions_;  // looked up only
  std::vector<std::vector<State>> layers_;
};

}  // namespace

RunLayout find_layout(const ModelGraph& graph, const BlockRun& run, const MeshStep& step,
                      const std::map<OpId, OpChoices>& choices, std::map<ValueId, Form>& stored) {
  return Searcher(graph, run, step, choices, stored).find();
}

std::optional<double> transition_seconds(const Form& from, const Form& to, double bytes, bool has_gradient,
                                         const MeshStep& step) {
  const int size = step.size;
  const double start = kStartBytes * step.start_share / kLinkBytesPerSecond;
  const double passes = has_gradient ? 2 : 1, others = static_cast<double>(size - 1) / size;
  const double moved = bytes * others / kLinkBytesPerSecond, copied = bytes / kCopyBytesPerSecond;
  using Kind = Form::Kind;
  switch (from.kind) {
    case Kind::Partial:
      if (to.kind == Kind::Replicate) return passes * (start + 2 * moved + copied);
      if (to.kind == Kind::Shard) return passes * (start + moved + copied);  // back: a gather
      return std::nullopt;
    case Kind::Replicate:
      if (to.kind == Kind::Shard) return passes * copied / size;
      return passes * copied;  // one member keeps it
    case Kind::Shard:
      if (to.kind == Kind::Replicate) return passes * (start + moved + copied);
      if (to.kind == Kind::Shard) return passes * (start + moved / size + copied);
      return std::nullopt;
  }
  return std::nullopt;
}

std::optional<FormTable::Step> FormTable::step_to(ValueId value, const AtHand& at_hand, const Form& wanted,
                                                  double& seconds, bool& found) const {
  const model::Value& tensor = graph_.values[static_cast<std::size_t>(value)];
  double bytes = static_cast<double>(size_of(tensor.dtype).value);
  for (const std::int64_t size : sizes_of(graph_, value)) bytes *= static_cast<double>(size);
  std::optional<Step> best;
  found = false;
  for (const Form& form : at_hand) {
    if (form == wanted) {
      seconds = 0;
      found = true;
      return std::nullopt;
    }
    const auto cost = transition_seconds(form, wanted, bytes, tensor.requires_grad, step_);
    if (!cost || (best && seconds <= *cost)) continue;
    best = Step{value, form, wanted};
    seconds = *cost;
    found = true;
  }
  return best;
}

}  // namespace coxswain::plan
