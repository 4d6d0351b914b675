#include "cost_model/model_facts.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>

#include "cost_model/mesh_facts.h"

namespace coxswain::cost_model {
namespace {

template <class Visit>
void visit_operands(const model::Op& op, Visit visit) {
  for (const model::Argument& argument : op.arguments) {
    if (const auto* one = std::get_if<model::ValueRef>(&argument.value)) {
      if (one->id >= 0) visit(one->id);
    } else if (const auto* list = std::get_if<std::vector<std::optional<model::ValueRef>>>(&argument.value)) {
      for (const auto& item : *list) {
        if (item && item->id >= 0) visit(item->id);
      }
    }
  }
}

/// For every value the ascending blocks whose operators read it.
std::vector<std::vector<int>> find_readers(const model::ModelGraph& graph) {
  std::vector<std::vector<int>> readers(graph.values.size());
  for (int b = 0; b < graph.num_blocks(); ++b) {
    const model::Block& block = graph.blocks[static_cast<std::size_t>(b)];
    for (model::OpId op = block.first_op; op < block.end_op; ++op) {
      visit_operands(graph.ops[static_cast<std::size_t>(op)], [&](model::ValueId value) {
        std::vector<int>& blocks = readers[static_cast<std::size_t>(value)];
        if (blocks.empty() || blocks.back() != b) blocks.push_back(b);
      });
    }
  }
  return readers;
}

/// By value: 1 where an embedding looks up in it, 2 where another operator reads it.
std::vector<char> find_lookups(const model::ModelGraph& graph) {
  std::vector<char> readers(graph.values.size(), 0);
  for (const model::Op& op : graph.ops) {
    bool first = op.target.starts_with("aten::embedding");
    visit_operands(op, [&](model::ValueId value) {
      readers[static_cast<std::size_t>(value)] |= first ? 1 : 2;
      first = false;
    });
  }
  return readers;
}

std::int64_t product(const std::vector<std::int64_t>& dims) {
  std::int64_t elements = 1;
  for (const std::int64_t dim : dims) elements *= dim;
  return elements;
}

}  // namespace

ModelFacts::ModelFacts(const model::ModelGraph& graph) : graph_(graph), uses_(graph) {
  std::unordered_map<std::string, int> numbers;
  for (const model::Block& block : graph.blocks) {
    signatures_.push_back(numbers.emplace(block.signature, static_cast<int>(numbers.size())).first->second);
    if (shards_.size() == numbers.size()) continue;
    const int here = static_cast<int>(signatures_.size()) - 1;
    shards_.push_back(model::find_block_shard(graph, here));
    attentions_.push_back(model::find_attention(graph, here));
    experts_.push_back(model::find_experts(graph, here));
  }
  std::unordered_map<model::ValueId, std::int64_t> tables;  // looked up only
  for (int b = 0; b < graph.num_blocks(); ++b) {
    if (experts(b).count == 0) continue;
    for (const model::ValueId table : model::find_experts(graph, b).tables) tables[table] = experts(b).count;
  }

  const auto readers = find_readers(graph);
  const auto lookups = find_lookups(graph);
  for (const model::Parameter& parameter : graph.parameters) {
    parameters_.push_back({product(parameter.dims), parameter.dtype, parameter.trainable,
                           readers[static_cast<std::size_t>(parameter.value)], model::is_sharded(parameter),
                           tables.contains(parameter.value) ? tables.at(parameter.value) : 0, 0, this,
                           static_cast<int>(parameters_.size())});
    const char lookup = lookups[static_cast<std::size_t>(parameter.value)];
    parameters_.back().wide_bytes = (lookup & 1) == 0 ? 0 : lookup == 1 ? 2 : 4;
  }
  parameters_of_.resize(graph.blocks.size());
  for (const ParameterFacts& parameter : parameters_)
    for (const int block : parameter.blocks) parameters_of_[static_cast<std::size_t>(block)].push_back(parameter.index);
  for (const model::Buffer& buffer : graph.buffers) {
    buffers_.emplace_back(size_of(buffer.dtype) * product(buffer.dims),
                          readers[static_cast<std::size_t>(buffer.value)]);
  }

  // A value crosses every cut between its producer's block and its last reader's; what no parameter influences is made
  // anew on each stage and crosses none.
  cuts_.resize(graph.blocks.size() + 1);
  for (int b = 0; b < graph.num_blocks(); ++b) {
    const model::Block& block = graph.blocks[static_cast<std::size_t>(b)];
    for (model::OpId op = block.first_op; op < block.end_op; ++op) {
      for (const model::ValueId output : graph.ops[static_cast<std::size_t>(op)].outputs) {
        if (output < 0) continue;
        const model::Value& value = graph.values[static_cast<std::size_t>(output)];
        const std::vector<int>& blocks = readers[static_cast<std::size_t>(output)];
        if (!value.depends_on_parameter || blocks.empty()) continue;
        for (int cut = b + 1; cut <= blocks.back(); ++cut)
          cuts_[static_cast<std::size_t>(cut)].push_back({output, value.requires_grad});
      }
    }
  }
}

ModelFacts::~ModelFacts() = default;

const MeshFacts* ModelFacts::mesh(int block, int tensor, int context) const {
  if (tensor * context == 1) return nullptr;
  const std::tuple key{signature_of(block), tensor, context};
  {
    const std::lock_guard lock(mutex_);
    const auto found = meshes_.find(key);
    if (found != meshes_.end()) return found->second.get();
  }
  auto local = plan::localise_block(graph_, block, tensor, context);
  std::unique_ptr<MeshFacts> fresh = local ? std::make_unique<MeshFacts>(std::move(*local)) : nullptr;
  const std::lock_guard lock(mutex_);
  return meshes_.emplace(key, std::move(fresh)).first->second.get();
}

std::int64_t num_experts_at(std::int64_t experts, int expert, int expert_index) {
  return experts / expert + (expert_index < experts % expert ? 1 : 0);
}

std::int64_t ParameterFacts::elements_at(int tensor, int expert, int expert_index) const {
  const std::int64_t held = tensor > 1 && !blocks.empty() ? facts->held_elements(index, tensor) : elements;
  return experts > 0 ? held / experts * num_experts_at(experts, expert, expert_index) : held;
}

std::int64_t ModelFacts::held_elements(int index, int tensor) const {
  const ParameterFacts& parameter = parameters_[static_cast<std::size_t>(index)];
  const int block = parameter.blocks.front();
  const std::vector<int>& of_block = parameters_of_[static_cast<std::size_t>(block)];
  const MeshFacts* local = mesh(block, tensor, 1);
  if (local != nullptr && local->num_parameters() == of_block.size()) {
    const auto at = std::lower_bound(of_block.begin(), of_block.end(), index) - of_block.begin();
    return local->elements(static_cast<int>(at));
  }
  return parameter.sharded ? (parameter.elements + tensor - 1) / tensor : parameter.elements;
}

bool ModelFacts::splits_over(int tensor) const {
  return std::all_of(shards_.begin(), shards_.end(),
                     [tensor](const model::BlockShard& shard) { return shard.num_heads % tensor == 0; });
}

bool ModelFacts::context_splits(int context) const {
  if (context == 1) return true;
  bool attends = false;
  for (const model::BlockAttention& attention : attentions_) {
    if (attention.length % (2 * std::int64_t{context}) != 0) return false;
    attends = attends || attention.length > 0;
  }
  return attends;
}

bool ModelFacts::expert_splits(int expert) const {
  if (expert == 1) return true;
  bool any = false;
  for (const model::BlockExperts& experts : experts_) {
    if (experts.count % expert != 0) return false;
    any = any || experts.count > 0;
  }
  return any;
}

namespace {

/// Value at `step` of `length` between `low` and `high`; false where `middle` is not half way.
bool interpolate(std::int64_t& value, std::int64_t low, std::int64_t middle, std::int64_t high, std::int64_t step,
                 std::int64_t length) {
  if (2 * middle != low + high) return false;
  value = low + static_cast<std::int64_t>(static_cast<__int128>(high - low) * step / length);
  return true;
}
bool interpolate(Bytes& value, Bytes low, Bytes middle, Bytes high, std::int64_t step, std::int64_t length) {
  return interpolate(value.value, low.value, middle.value, high.value, step, length);
}
/// FLOPs are whole numbers, exact below 2^53.
bool interpolate(Flop& value, Flop low, Flop middle, Flop high, std::int64_t step, std::int64_t length) {
  constexpr double kExact = 9007199254740992.0;
  if (high.value >= kExact || 2 * middle.value != low.value + high.value) return false;
  value =
      Flop(low.value + std::round((high.value - low.value) / static_cast<double>(length) * static_cast<double>(step)));
  return true;
}

std::optional<model::BlockTotals> between(const model::BlockTotals& low, const model::BlockTotals& middle,
                                          const model::BlockTotals& high, std::int64_t step, std::int64_t length) {
  using Totals = model::BlockTotals;
  if (low.replayed != middle.replayed || low.replayed != high.replayed) return std::nullopt;
  Totals result = low;
  bool affine = true;
  for (const auto field :
       {&Totals::forward_flop, &Totals::backward_input_flop, &Totals::backward_weight_flop, &Totals::matmul_flop})
    affine = affine && interpolate(result.*field, low.*field, middle.*field, high.*field, step, length);
  for (const auto field :
       {&Totals::input_bytes, &Totals::saved_bytes, &Totals::transient_bytes, &Totals::shared_bytes, &Totals::cut_bytes,
        &Totals::received_bytes, &Totals::selective_bytes, &Totals::expert_bytes, &Totals::forward_transient_bytes,
        &Totals::backward_transient_bytes, &Totals::plain_transient_bytes, &Totals::owed_bytes,
        &Totals::input_transient_bytes, &Totals::weight_transient_bytes})
    affine = affine && interpolate(result.*field, low.*field, middle.*field, high.*field, step, length);
  return affine ? std::optional(std::move(result)) : std::nullopt;
}

std::optional<std::vector<model::OpCost>> between(const std::vector<model::OpCost>& low,
                                                  const std::vector<model::OpCost>& middle,
                                                  const std::vector<model::OpCost>& high, std::int64_t step,
                                                  std::int64_t length) {
  using Cost = model::OpCost;
  std::vector<Cost> result = low;
  bool affine = true;
  for (std::size_t i = 0; i < result.size() && affine; ++i) {
    for (const auto field : {&Cost::forward_flop, &Cost::backward_input_flop, &Cost::backward_weight_flop})
      affine = affine && interpolate(result[i].*field, low[i].*field, middle[i].*field, high[i].*field, step, length);
    for (const auto field : {&Cost::forward_bytes, &Cost::backward_bytes, &Cost::table_bytes})
      affine = affine && interpolate(result[i].*field, low[i].*field, middle[i].*field, high[i].*field, step, length);
  }
  return affine ? std::optional(std::move(result)) : std::nullopt;
}

/// About as much as they take: an operator with its arguments, a value or parameter with its dims, an entry of a map.
constexpr Bytes kOperatorBytes{1024}, kValueBytes{256}, kEntryBytes{128};

Bytes bytes_of(const model::ModelGraph& graph) {
  return kOperatorBytes * static_cast<std::int64_t>(graph.ops.size()) +
         kValueBytes * static_cast<std::int64_t>(graph.values.size() + graph.parameters.size());
}
Bytes bytes_of(const model::BlockTotals& totals) {
  return kEntryBytes + Bytes(static_cast<std::int64_t>(sizeof(totals) + totals.replayed.size() * sizeof(int)));
}
Bytes bytes_of(const std::vector<model::OpCost>& costs) {
  return kEntryBytes + Bytes(static_cast<std::int64_t>(costs.size() * sizeof(model::OpCost)));
}

}  // namespace

template <class Made, class Make>
const Made& ModelFacts::look_up(std::map<Key, Made>& made, int block, std::int64_t samples, model::ExpertForm experts,
                                model::Width width, Make make) const {
  // Both forms are one where there are no experts.
  const Key key{signature_of(block), samples, this->experts(block).count > 0 ? experts : model::ExpertForm::Gathered,
                width};
  {
    const std::lock_guard lock(mutex_);
    const auto found = made.find(key);
    if (found != made.end()) return found->second;
  }
  std::optional<Made> fresh;
  // Every number of a block is affine in the samples, or a greatest of such: convex. So where it is affine at both ends
  // and the middle of an octave it is so in between, and few sample counts need a look at the operators.
  const auto low = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(samples)));
  constexpr std::int64_t kLeastOctave = 4;
  if (low >= kLeastOctave && samples != low && samples != low + low / 2 && static_batch() == 0) {
    const auto at = [&](std::int64_t x) -> const Made& { return look_up(made, block, x, experts, width, make); };
    fresh = between(at(low), at(low + low / 2), at(2 * low), samples - low, low);
  }
  if (!fresh) fresh = make(graph_, block, samples, experts);
  const std::lock_guard lock(mutex_);
  const auto [at, is_new] = made.emplace(key, std::move(*fresh));
  if (is_new) made_bytes_ += bytes_of(at->second);
  return at->second;
}

const model::BlockTotals& ModelFacts::totals(int block, std::int64_t samples, model::ExpertForm experts,
                                             model::Width width) const {
  return look_up(totals_, block, samples, experts, width,
                 [width](const model::ModelGraph& graph, int which, std::int64_t count, model::ExpertForm form) {
                   return model::estimate_block(graph, which, count, form, width);
                 });
}

const std::vector<model::OpCost>& ModelFacts::op_costs(int block, std::int64_t samples,
                                                       model::ExpertForm experts) const {
  return look_up(op_costs_, block, samples, experts, model::Width::Stored, model::estimate_op_costs);
}

Bytes ModelFacts::kept_bytes() const {
  const std::lock_guard lock(mutex_);
  Bytes bytes = made_bytes_;
  for (const auto& [key, mesh] : meshes_) {
    if (mesh == nullptr) continue;
    bytes += bytes_of(mesh->local().graph()) + mesh->local().kept_bytes();
  }
  return bytes;
}

Bytes KnownModel::kept_bytes() const {
  return bytes_of(graph) + facts.kept_bytes();
}

Bytes ModelFacts::value_bytes(model::ValueId value, std::int64_t samples, plan::Precision precision) const {
  const DType dtype = graph_.values[static_cast<std::size_t>(value)].dtype;
  return size_of(dtype == DType::Float32 ? plan::computed_dtype(precision) : dtype) *
         model::num_elements(graph_, value, samples);
}

Bytes ModelFacts::key_value_bytes(int block, std::int64_t samples, plan::Precision precision) const {
  Bytes bytes{0};
  if (samples == 0) return bytes;
  for (const model::ValueId value : attention(block).passed) bytes += value_bytes(value, samples, precision);
  return bytes;
}

Bytes ModelFacts::dispatch_bytes(int block, std::int64_t samples, plan::Precision precision) const {
  if (samples == 0 || experts(block).count == 0) return Bytes(0);
  return value_bytes(experts(block).dispatched, samples, precision);
}

Bytes ModelFacts::cut_bytes(int cut, std::int64_t samples, plan::Precision precision, bool gradients) const {
  Bytes bytes{0};
  if (samples == 0) return bytes;
  for (const CutValue& crossing : cuts_[static_cast<std::size_t>(cut)]) {
    if (gradients && !crossing.requires_grad) continue;
    bytes += value_bytes(crossing.value, samples, precision);
  }
  return bytes;
}

Bytes ModelFacts::activation_bytes(int cut, std::int64_t samples, plan::Precision precision) const {
  return cut_bytes(cut, samples, precision, false);
}

Bytes ModelFacts::gradient_bytes(int cut, std::int64_t samples, plan::Precision precision) const {
  return cut_bytes(cut, samples, precision, true);
}

Bytes ModelFacts::buffer_bytes(int first_block, int end_block) const {
  Bytes bytes{0};
  for (const auto& [size, blocks] : buffers_) {
    for (const int block : blocks) {
      if (block >= first_block && block < end_block) {
        bytes += size;
        break;
      }
    }
  }
  return bytes;
}

Flop ModelFacts::model_flop(std::int64_t samples) const {
  const std::int64_t unit = static_batch() > 0 ? static_batch() : 1;
  Flop flop{0};
  for (int block = 0; block < num_blocks(); ++block) flop += totals(block, unit).matmul_flop;
  return flop * (3.0 * static_cast<double>(samples) / static_cast<double>(unit));
}

}  // namespace coxswain::cost_model
