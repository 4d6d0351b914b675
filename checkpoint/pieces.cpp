#include "checkpoint/pieces.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>
#include <utility>

namespace coxswain::checkpoint {
namespace {

using Runs = std::vector<plan::Cut::Run>;

/// Appends the runs of a part, row-major, to a list that begins anew at every gap.
class PartWalk {
 public:
  explicit PartWalk(const Piece& piece) : piece_(piece), cut_(piece.rows.size()) {
    while (cut_ > 0 && takes_all(cut_ - 1)) --cut_;
    for (std::size_t d = piece.dims.size(); d > 0; --d) strides_.insert(strides_.begin(), stride(d));
  }

  std::vector<FlatRun> walk() {
    if (cut_ == 0) {
      if (piece_.count > 0) runs_.push_back({piece_.first, 0, piece_.count});
    } else {
      visit(0, 0);
    }
    return std::move(runs_);
  }

 private:
  [[nodiscard]] bool takes_all(std::size_t dim) const {
    const Runs& runs = piece_.rows[dim];
    return runs.size() == 1 && runs[0].first == 0 && runs[0].size == piece_.dims[dim];
  }
  [[nodiscard]] std::int64_t stride(std::size_t end) const {
    std::int64_t stride = 1;
    for (std::size_t d = end; d < piece_.dims.size(); ++d) stride *= piece_.dims[d];
    return stride;
  }

  /// Dims before `dim` stand at `whole`. The last cut dim's runs carry all dims behind it.
  void visit(std::size_t dim, std::int64_t whole) {
    for (const plan::Cut::Run& run : piece_.rows[dim]) {
      if (dim + 1 == cut_) {
        add(whole + run.first * strides_[dim], run.size * strides_[dim]);
        continue;
      }
      for (std::int64_t i = run.first; i < run.first + run.size; ++i) visit(dim + 1, whole + i * strides_[dim]);
    }
  }

  /// Of the part's next `count` elements, those that are in the piece.
  void add(std::int64_t whole, std::int64_t count) {
    const std::int64_t begin = std::max(next_, piece_.first);
    const std::int64_t end = std::min(next_ + count, piece_.first + piece_.count);
    if (begin < end) {
      const FlatRun run{whole + begin - next_, begin - piece_.first, end - begin};
      if (!runs_.empty() && runs_.back().whole + runs_.back().count == run.whole)
        runs_.back().count += run.count;
      else
        runs_.push_back(run);
    }
    next_ += count;
  }

  const Piece& piece_;
  std::size_t cut_;                    // dims from here on are whole
  std::vector<std::int64_t> strides_;  // by dim, in the whole
  std::int64_t next_ = 0;              // element of the part
  std::vector<FlatRun> runs_;
};

auto order_of(const Piece& piece) {
  std::vector<std::int64_t> rows;
  for (const Runs& runs : piece.rows) {
    rows.push_back(static_cast<std::int64_t>(runs.size()));
    for (const plan::Cut::Run& run : runs) rows.insert(rows.end(), {run.first, run.size});
  }
  return std::tuple(-piece.count, piece.parameter, piece.first, std::move(rows));
}

}  // namespace

std::int64_t num_elements(const std::vector<std::int64_t>& dims) {
  return std::accumulate(dims.begin(), dims.end(), std::int64_t{1}, std::multiplies<>());
}

Piece whole_piece(std::string parameter, std::vector<std::int64_t> dims) {
  Piece piece{std::move(parameter), std::move(dims), {}, 0, 0};
  piece.count = num_elements(piece.dims);
  return piece;
}

std::vector<FlatRun> flat_runs(const Piece& piece) { return PartWalk(piece).walk(); }

std::vector<FlatRun> take_common(const std::vector<FlatRun>& wanted, const std::vector<FlatRun>& present,
                                 const std::function<void(std::int64_t, std::int64_t, std::int64_t)>& copy) {
  std::vector<FlatRun> left;
  std::size_t p = 0;
  for (FlatRun want : wanted) {
    while (p < present.size() && present[p].whole + present[p].count <= want.whole) ++p;
    for (std::size_t q = p; want.count > 0; ++q) {
      const bool meets = q < present.size() && present[q].whole < want.whole + want.count;
      const std::int64_t before = meets ? std::max<std::int64_t>(present[q].whole - want.whole, 0) : want.count;
      if (before > 0) left.push_back({want.whole, want.own, before});
      if (!meets) break;
      want = {want.whole + before, want.own + before, want.count - before};
      const std::int64_t common = std::min(present[q].whole + present[q].count - want.whole, want.count);
      copy(want.own, present[q].own + want.whole - present[q].whole, common);
      want = {want.whole + common, want.own + common, want.count - common};
    }
  }
  return left;
}

std::vector<std::vector<Piece>> share_out(const std::vector<std::vector<Piece>>& by_rank) {
  struct Shared {
    const Piece* piece;
    std::vector<std::size_t> ranks;
  };
  std::map<decltype(order_of(Piece())), Shared> pieces;
  for (std::size_t rank = 0; rank < by_rank.size(); ++rank) {
    for (const Piece& piece : by_rank[rank]) {
      if (piece.count == 0) continue;
      pieces.try_emplace(order_of(piece), Shared{&piece, {}}).first->second.ranks.push_back(rank);
    }
  }
  std::vector<std::vector<Piece>> written(by_rank.size());
  std::vector<std::int64_t> load(by_rank.size(), 0);
  for (const auto& [order, shared] : pieces) {
    const std::size_t rank = *std::min_element(shared.ranks.begin(), shared.ranks.end(),
                                               [&](std::size_t a, std::size_t b) { return load[a] < load[b]; });
    written[rank].push_back(*shared.piece);
    load[rank] += shared.piece->count;
  }
  return written;
}

}  // namespace coxswain::checkpoint
