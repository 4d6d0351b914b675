#pragma once
// Which elements of a parameter a rank updates, and how pieces of different plans meet: every piece is a list of runs
// in the whole parameter, so what any plan saved can be read by any other. Called by manifest, reader and the engine.
// Threads: pure. Source: DESIGN 3.9, docs/checkpoint.md.
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "plan/layout/local_graph.h"

namespace coxswain::checkpoint {

/// A run of elements of a part of a parameter. A mesh gives the part (rows of each dim), ZeRO the run.
struct Piece {
  std::string parameter;
  std::vector<std::int64_t> dims;                 // of the whole parameter
  std::vector<std::vector<plan::Cut::Run>> rows;  // by dim, ascending: what the part takes; none: the part is the whole
  std::int64_t first = 0, count = 0;              // of the part's elements, row-major
  friend bool operator==(const Piece&, const Piece&) = default;
};

[[nodiscard]] std::int64_t num_elements(const std::vector<std::int64_t>& dims);
/// The piece that is all of a parameter.
[[nodiscard]] Piece whole_piece(std::string parameter, std::vector<std::int64_t> dims);

/// Of all parameters that one of the pieces is of, each whole.
[[nodiscard]] std::int64_t num_elements(const std::vector<std::vector<Piece>>& by_rank);

/// Elements that follow each other in the whole parameter and in the piece.
struct FlatRun {
  std::int64_t whole = 0, own = 0, count = 0;
  friend bool operator==(const FlatRun&, const FlatRun&) = default;
};
/// The piece's elements, ascending in both, as few runs as there can be.
/// Requires: the piece lies inside its parameter (shard_from_json checks that).
[[nodiscard]] std::vector<FlatRun> flat_runs(const Piece& piece);

/// Calls `copy(own of wanted, own of present, count)` for what both have, and returns what of `wanted` is left.
[[nodiscard]] std::vector<FlatRun> take_common(
    const std::vector<FlatRun>& wanted, const std::vector<FlatRun>& present,
    const std::function<void(std::int64_t, std::int64_t, std::int64_t)>& copy);

/// Of what each rank updates, what each writes: equal pieces are written by one of the ranks that have them, so that
/// the most that a rank writes is little (largest first, to the least loaded; equal: the lowest rank).
[[nodiscard]] std::vector<std::vector<Piece>> share_out(const std::vector<std::vector<Piece>>& by_rank);

/// One of the pieces that a rank holds.
struct Source {
  int rank = 0;
  std::size_t piece = 0;  // among those that it holds
  friend bool operator==(const Source&, const Source&) = default;
};
/// By rank, what it takes of what ranks hold, so that it has every element of what it needs: of its own first, then of
/// those that come after it, in turn, so that few are asked by many. What nobody holds stays out.
[[nodiscard]] std::vector<std::vector<Source>> choose_sources(const std::vector<std::vector<Piece>>& held,
                                                              const std::vector<std::vector<Piece>>& needed);

}  // namespace coxswain::checkpoint
