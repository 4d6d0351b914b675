#include "worker/engine/attention_tiles.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "worker/engine/row_kernels.h"

namespace coxswain::worker {
namespace {

constexpr float kHidden = -std::numeric_limits<float>::infinity();

at::TensorOptions floats() { return at::TensorOptions().dtype(c10::ScalarType::Float); }

/// The rows of one tile, a matrix without a copy.
at::Tensor rows_of(const at::Tensor& tensor, std::int64_t batch, std::int64_t head, const RowTile& tile) {
  const std::int64_t offset =
      tensor.storage_offset() + batch * tensor.stride(0) + head * tensor.stride(1) + tile.first * tensor.stride(2);
  return tensor.as_strided({tile.size, tensor.size(3)}, {tensor.stride(2), 1}, offset);
}
at::Tensor float_rows_of(const at::Tensor& tensor, std::int64_t batch, std::int64_t head, const RowTile& tile) {
  return rows_of(tensor, batch, head, tile).to(c10::ScalarType::Float);
}

std::int64_t largest_of(const std::vector<RowTile>& tiles) {
  std::int64_t largest = 0;
  for (const RowTile& tile : tiles) largest = std::max(largest, tile.size);
  return largest;
}

/// Memory for one tile of scores, taken once a thread.
class Scratch {
 public:
  Scratch(const AttentionQueries& queries, const KeyBlock& keys)
      : memory_(at::empty({largest_of(queries.tiles) * largest_of(keys.tiles)}, floats())) {}
  at::Tensor tile(std::int64_t rows, std::int64_t columns) {
    return memory_.as_strided({rows, columns}, {columns, 1}, 0);
  }

 private:
  at::Tensor memory_;
};

/// Where a tile of scores stands.
struct Corner {
  std::int64_t batch, head;
  const RowTile &query, &key;
};

/// Leading keys of the tile that row `row` may see.
std::int64_t visible_keys(const AttentionQueries& queries, const Corner& at, std::int64_t row) {
  if (!queries.is_causal) return at.key.size;
  return std::clamp<std::int64_t>(at.query.position + row - at.key.position + 1, 0, at.key.size);
}

template <class T>
const T* mask_row(const at::Tensor& mask, const Corner& at, std::int64_t row) {
  return mask.const_data_ptr<T>() + at.batch * mask.stride(0) + at.head * mask.stride(1) +
         (at.query.first + row) * mask.stride(2) + at.key.position * mask.stride(3);
}

void add_mask(const AttentionQueries& queries, const Corner& at, std::int64_t row, float* scores) {
  const at::Tensor& mask = queries.mask;
  if (!mask.defined()) return;
  const std::int64_t stride = mask.stride(3);
  switch (mask.scalar_type()) {
    case c10::ScalarType::Bool: {
      const bool* shown = mask_row<bool>(mask, at, row);
      for (std::int64_t i = 0; i < at.key.size; ++i)
        if (!shown[i * stride]) scores[i] = kHidden;
      break;
    }
    case c10::ScalarType::BFloat16: {
      const auto* bias = mask_row<at::BFloat16>(mask, at, row);
      for (std::int64_t i = 0; i < at.key.size; ++i) scores[i] += static_cast<float>(bias[i * stride]);
      break;
    }
    default: {
      const float* bias = mask_row<float>(mask, at, row);
      for (std::int64_t i = 0; i < at.key.size; ++i) scores[i] += bias[i * stride];
    }
  }
}

template <class T, class Shows>
bool hides_all(const AttentionQueries& queries, const Corner& at, const Shows& shows) {
  const std::int64_t rows = queries.mask.stride(2) == 0 ? std::min<std::int64_t>(at.query.size, 1) : at.query.size;
  const std::int64_t keys = queries.mask.stride(3) == 0 ? std::min<std::int64_t>(at.key.size, 1) : at.key.size;
  for (std::int64_t row = 0; row < rows; ++row) {
    const T* values = mask_row<T>(queries.mask, at, row);
    for (std::int64_t i = 0; i < keys; ++i)
      if (shows(values[i * queries.mask.stride(3)])) return false;
  }
  return true;
}

/// No row of the tile sees a key of it. A mask is read until the first that does.
bool is_hidden(const AttentionQueries& queries, const Corner& at) {
  if (queries.is_causal) return at.key.position > at.query.position + at.query.size - 1;
  if (!queries.mask.defined()) return false;
  switch (queries.mask.scalar_type()) {
    case c10::ScalarType::Bool: return hides_all<bool>(queries, at, [](bool shown) { return shown; });
    case c10::ScalarType::BFloat16:
      return hides_all<at::BFloat16>(queries, at,
                                     [](at::BFloat16 bias) { return static_cast<float>(bias) != kHidden; });
    default: return hides_all<float>(queries, at, [](float bias) { return bias != kHidden; });
  }
}

/// Random words of the leading `count` keys of a row.
class Words {
 public:
  explicit Words(const AttentionQueries& queries)
      : dropout_(queries.dropout),
        words_(static_cast<std::size_t>(dropout_.active() ? kKeyTile + 2 * kWordGroup : 0)) {}

  const std::uint32_t* draw(const Corner& at, std::int64_t row, std::int64_t count) {
    const DropoutPlace& place = dropout_.place;
    const bool has_samples = place.rows_per_sample > 0;
    const auto sample =
        has_samples ? static_cast<std::uint32_t>(place.first_sample + at.batch / place.rows_per_sample) : kNoSample;
    const std::int64_t batch = has_samples ? at.batch % place.rows_per_sample : at.batch;
    const std::int64_t head = batch * dropout_.num_heads + dropout_.first_head + at.head;
    const std::int64_t query = head * dropout_.num_queries + at.query.position + row;
    const std::int64_t row_groups = (dropout_.num_keys + kWordGroup - 1) / kWordGroup;
    const std::int64_t before = at.key.position % kWordGroup;
    random_words(dropout_.stream, sample, query * row_groups + at.key.position / kWordGroup,
                 (before + count + kWordGroup - 1) / kWordGroup, words_.data());
    return words_.data() + before;
  }

 private:
  const AttentionDropout& dropout_;
  std::vector<std::uint32_t> words_;
};

float* row_of(const at::Tensor& tensor, std::int64_t batch, std::int64_t head, std::int64_t row) {
  return tensor.mutable_data_ptr<float>() + batch * tensor.stride(0) + head * tensor.stride(1) + row * tensor.stride(2);
}

/// scores -> exp(score - greatest so far), dropped where dropout says; the row's state follows.
void merge_row(const AttentionQueries& queries, const Corner& at, std::int64_t row, float* scores, Words& words,
               AttentionState& state) {
  const std::int64_t visible = visible_keys(queries, at, row), query = at.query.first + row;
  add_mask(queries, at, row, scores);
  float& largest = *row_of(state.largest, at.batch, at.head, query);
  float& sum = *row_of(state.log_sums, at.batch, at.head, query);
  const float here = max_of(scores, visible);
  // Not a number stays so.
  const float top = std::isnan(here) ? here : std::max(largest, here);
  if (top == kHidden) {
    std::fill(scores, scores + at.key.size, 0.0F);
    return;
  }
  const float added = exp_in_place(scores, visible, top);
  std::fill(scores + visible, scores + at.key.size, 0.0F);
  const float factor = largest == kHidden ? 0.0F : std::exp(largest - top);
  if (factor != 1.0F) scale_in_place(row_of(state.output, at.batch, at.head, query), state.output.size(3), factor);
  sum = sum * factor + added;
  largest = top;
  if (queries.dropout.active() && visible > 0)
    keep_by_words(queries.dropout.stream, words.draw(at, row, visible), visible, scores, scores);
}

/// scores -> probabilities in `scores`, those after dropout in `dropped`; gradient of those -> of the scores.
void gradient_row(const AttentionQueries& queries, const Corner& at, std::int64_t row, const OutputSide& side,
                  float* scores, float* dropped, float* gradient, Words& words) {
  const std::int64_t visible = visible_keys(queries, at, row), query = at.query.first + row;
  const float log_sum = *row_of(side.log_sums, at.batch, at.head, query);
  add_mask(queries, at, row, scores);
  if (log_sum == std::numeric_limits<float>::infinity() || visible == 0) {
    for (float* all : {scores, dropped, gradient}) std::fill(all, all + at.key.size, 0.0F);
    return;
  }
  scaled_exp(scores, visible, log_sum, 1, 0, scores);
  if (queries.dropout.active()) {
    const std::uint32_t* drawn = words.draw(at, row, visible);
    keep_by_words(queries.dropout.stream, drawn, visible, scores, dropped);
    keep_by_words(queries.dropout.stream, drawn, visible, gradient, gradient);
  }
  score_gradient(scores, visible, *row_of(side.products, at.batch, at.head, query), queries.scale, gradient);
  for (float* all : {scores, dropped, gradient}) std::fill(all + visible, all + at.key.size, 0.0F);
}

struct Sizes {
  explicit Sizes(const AttentionQueries& queries, const KeyBlock& keys)
      : batch(queries.query.size(0)), heads(queries.query.size(1)), key_heads(keys.key.size(1)) {}
  std::int64_t batch, heads, key_heads;
  [[nodiscard]] std::int64_t group() const { return heads / key_heads; }
};

}  // namespace

std::vector<RowTile> make_tiles(const std::vector<Run>& runs, std::int64_t largest) {
  std::vector<RowTile> tiles;
  std::int64_t before = 0;
  for (const Run& run : runs) {
    for (std::int64_t row = 0; row < run.size; row += largest)
      tiles.push_back({before + row, std::min(largest, run.size - row), run.first + row});
    before += run.size;
  }
  return tiles;
}

AttentionState make_state(const AttentionQueries& queries, std::int64_t value_depth) {
  const at::Tensor& query = queries.query;
  AttentionState state;
  state.output = at::zeros({query.size(0), query.size(2), query.size(1), value_depth}, floats()).transpose(1, 2);
  state.largest = at::full({query.size(0), query.size(1), query.size(2)}, kHidden, floats());
  state.log_sums = at::zeros({query.size(0), query.size(1), query.size(2)}, floats());
  return state;
}

void attend(const AttentionQueries& queries, const KeyBlock& keys, AttentionState& state) {
  const Sizes sizes(queries, keys);
  const auto num_tiles = static_cast<std::int64_t>(queries.tiles.size());
  at::parallel_for(0, sizes.batch * sizes.heads * num_tiles, 1, [&](std::int64_t begin, std::int64_t end) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    Scratch scratch(queries, keys);
    Words words(queries);
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t head = task / num_tiles % sizes.heads, batch = task / num_tiles / sizes.heads;
      const RowTile& tile = queries.tiles[static_cast<std::size_t>(task % num_tiles)];
      at::Tensor query;
      at::Tensor output = rows_of(state.output, batch, head, tile);
      for (const RowTile& key_tile : keys.tiles) {
        const Corner corner{batch, head, tile, key_tile};
        if (is_hidden(queries, corner)) continue;
        if (!query.defined()) query = float_rows_of(queries.query, batch, head, tile);
        at::Tensor scores = scratch.tile(tile.size, key_tile.size);
        const at::Tensor key = rows_of(keys.key, batch, head / sizes.group(), key_tile);
        at::addmm_out(scores, scores, query, key.t(), 0, queries.scale);
        float* data = scores.mutable_data_ptr<float>();
        for (std::int64_t row = 0; row < tile.size; ++row)
          merge_row(queries, corner, row, data + row * key_tile.size, words, state);
        output.addmm_(scores, rows_of(keys.value, batch, head / sizes.group(), key_tile));
      }
    }
  });
}

void finish_attention(AttentionState& state) {
  const at::Tensor& output = state.output;
  const std::int64_t heads = output.size(1), rows = output.size(2), depth = output.size(3);
  at::parallel_for(0, output.size(0) * heads * rows, 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t row = i % rows, head = i / rows % heads, batch = i / rows / heads;
      float& sum = *row_of(state.log_sums, batch, head, row);
      if (sum == 0) {
        sum = std::numeric_limits<float>::infinity();
        continue;
      }
      scale_in_place(row_of(output, batch, head, row), depth, 1 / sum);
      sum = *row_of(state.largest, batch, head, row) + std::log(sum);
    }
  });
}

void attend_backward(const AttentionQueries& queries, const KeyBlock& keys, const OutputSide& side,
                     const at::Tensor& query_gradient, const at::Tensor& key_gradient,
                     const at::Tensor& value_gradient) {
  const Sizes sizes(queries, keys);
  const auto num_tiles = static_cast<std::int64_t>(queries.tiles.size());
  const bool drops = queries.dropout.active();
  // One task owns the gradients of a key head and of the query heads that read it.
  at::parallel_for(0, sizes.batch * sizes.key_heads, 1, [&](std::int64_t begin, std::int64_t end) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    Scratch score_memory(queries, keys), gradient_memory(queries, keys);
    std::optional<Scratch> dropped_memory;
    if (drops) dropped_memory.emplace(queries, keys);
    Words words(queries);
    const auto tile_pair = [&](const Corner& corner, std::int64_t key_head, const at::Tensor& query,
                               const at::Tensor& output_gradient) {
      const std::int64_t rows = corner.query.size, columns = corner.key.size;
      at::Tensor scores = score_memory.tile(rows, columns), gradient = gradient_memory.tile(rows, columns);
      const at::Tensor dropped = drops ? dropped_memory->tile(rows, columns) : scores;
      const at::Tensor key = rows_of(keys.key, corner.batch, key_head, corner.key);
      at::addmm_out(scores, scores, query, key.t(), 0, queries.scale);
      at::mm_out(gradient, output_gradient, rows_of(keys.value, corner.batch, key_head, corner.key).t());
      for (std::int64_t row = 0; row < rows; ++row)
        gradient_row(queries, corner, row, side, scores.mutable_data_ptr<float>() + row * columns,
                     dropped.mutable_data_ptr<float>() + row * columns,
                     gradient.mutable_data_ptr<float>() + row * columns, words);
      rows_of(value_gradient, corner.batch, key_head, corner.key).addmm_(dropped.t(), output_gradient);
      rows_of(key_gradient, corner.batch, key_head, corner.key).addmm_(gradient.t(), query);
      rows_of(query_gradient, corner.batch, corner.head, corner.query).addmm_(gradient, key);
    };
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t batch = task / sizes.key_heads, key_head = task % sizes.key_heads;
      for (std::int64_t i = 0; i < sizes.group() * num_tiles; ++i) {
        const RowTile& tile = queries.tiles[static_cast<std::size_t>(i % num_tiles)];
        const std::int64_t head = key_head * sizes.group() + i / num_tiles;
        at::Tensor query, output_gradient;
        for (const RowTile& key_tile : keys.tiles) {
          const Corner corner{batch, head, tile, key_tile};
          if (is_hidden(queries, corner)) continue;
          if (!query.defined()) {
            query = float_rows_of(queries.query, batch, head, tile);
            output_gradient = float_rows_of(side.gradient, batch, head, tile);
          }
          tile_pair(corner, key_head, query, output_gradient);
        }
      }
    }
  });
}

}  // namespace coxswain::worker
