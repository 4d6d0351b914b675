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

std::int64_t num_elements(const std::vector<std::vector<Piece>>& by_rank) {
  std::map<std::string, std::int64_t> parameters;
  for (const std::vector<Piece>& pieces : by_rank)
    for (const Piece& piece : pieces) parameters[piece.parameter] = num_elements(piece.dims);
  std::int64_t sum = 0;
  for (const auto& [name, count] : parameters) sum += count;
  return sum;
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

std::vector<std::vector<Source>> choose_sources(const std::vector<std::vector<Piece>>& held,
                                                const std::vector<std::vector<Piece>>& needed) {
  std::map<std::string, std::vector<Source>> holders;  // by parameter, ascending ranks
  for (std::size_t rank = 0; rank < held.size(); ++rank)
    for (std::size_t piece = 0; piece < held[rank].size(); ++piece)
      holders[held[rank][piece].parameter].push_back({static_cast<int>(rank), piece});
  std::vector<std::vector<Source>> chosen(needed.size());
  for (std::size_t rank = 0; rank < needed.size(); ++rank) {
    for (const Piece& piece : needed[rank]) {
      const std::vector<Source>& all = holders[piece.parameter];
      const auto own = std::find_if(all.begin(), all.end(),
                                    [rank](const Source& source) { return source.rank >= static_cast<int>(rank); });
      const auto first = static_cast<std::size_t>(own - all.begin());
      std::vector<FlatRun> missing = flat_runs(piece);
      for (std::size_t i = 0; i < all.size() && !missing.empty(); ++i) {
        const Source& source = all[(first + i) % all.size()];
        bool has_some = false;
        missing = take_common(missing, flat_runs(held[static_cast<std::size_t>(source.rank)][source.piece]),
                              [&has_some](auto...) { has_some = true; });
        if (has_some) chosen[rank].push_back(source);
      }
    }
  }
  return chosen;
}

}  // namespace coxswain::checkpoint
