#include "checkpoint/pieces.h"

#include <set>

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::checkpoint;

namespace {

using Runs = std::vector<plan::Cut::Run>;

/// Element by element: which of the whole the piece has, in its own order.
std::vector<std::int64_t> elements_of(const Piece& piece) {
  std::vector<std::int64_t> of_part;
  for (std::int64_t e = 0; e < num_elements(piece.dims); ++e) {
    bool taken = true;
    std::int64_t rest = e;
    for (std::size_t d = piece.dims.size(); d-- > 0; rest /= piece.dims[d]) {
      const std::int64_t index = rest % piece.dims[d];
      bool in_dim = piece.rows.empty();
      for (std::size_t r = 0; !piece.rows.empty() && r < piece.rows[d].size(); ++r)
        in_dim = in_dim || (piece.rows[d][r].first <= index && index < piece.rows[d][r].first + piece.rows[d][r].size);
      taken = taken && in_dim;
    }
    if (taken) of_part.push_back(e);
  }
  return {of_part.begin() + piece.first, of_part.begin() + piece.first + piece.count};
}

std::vector<std::int64_t> elements_of(const std::vector<FlatRun>& runs) {
  std::vector<std::int64_t> elements;
  for (const FlatRun& run : runs) {
    CHECK(run.own == static_cast<std::int64_t>(elements.size()));
    for (std::int64_t i = 0; i < run.count; ++i) elements.push_back(run.whole + i);
  }
  return elements;
}

/// Parts of a 4 x 6 x 5 parameter: whole, by one dim or by several, in one run or two, and runs of their elements.
std::vector<Piece> pieces() {
  const std::vector<std::int64_t> dims{4, 6, 5};
  const std::vector<std::vector<Runs>> parts = {{},
                                                {{{0, 4}}, {{0, 6}}, {{0, 5}}},
                                                {{{1, 2}}, {{0, 6}}, {{0, 5}}},
                                                {{{0, 4}}, {{0, 2}, {4, 2}}, {{0, 5}}},
                                                {{{0, 4}}, {{3, 3}}, {{1, 2}, {4, 1}}},
                                                {{{0, 1}, {3, 1}}, {{2, 1}}, {{0, 5}}},
                                                {{{0, 4}}, {{0, 6}}, {{2, 0}, {4, 1}}}};
  std::vector<Piece> result;
  for (const auto& rows : parts) {
    std::int64_t count = 1;
    for (std::size_t d = 0; d < dims.size(); ++d) {
      std::int64_t taken = rows.empty() ? dims[d] : 0;
      for (std::size_t r = 0; !rows.empty() && r < rows[d].size(); ++r) taken += rows[d][r].size;
      count *= taken;
    }
    result.push_back({"w", dims, rows, 0, count});
    result.push_back({"w", dims, rows, count / 3, count / 2});
    result.push_back({"w", dims, rows, count / 2, 0});
  }
  return result;
}

}  // namespace

TEST_CASE("a piece's runs are its elements, in as few runs as there are") {
  for (const Piece& piece : pieces()) {
    const auto runs = flat_runs(piece);
    const auto expected = elements_of(piece);
    CHECK(elements_of(runs) == expected);
    std::size_t gaps = expected.empty() ? 0 : 1;
    for (std::size_t i = 1; i < expected.size(); ++i) gaps += expected[i] == expected[i - 1] + 1 ? 0 : 1;
    CHECK(runs.size() == gaps);
  }
}

TEST_CASE("what two pieces share is copied once, and the rest is left") {
  for (const Piece& wanted : pieces()) {
    for (const Piece& present : pieces()) {
      const auto want = elements_of(wanted), have = elements_of(present);
      std::vector<std::int64_t> copied(want.size(), -1);
      const auto left = take_common(flat_runs(wanted), flat_runs(present), [&](auto own, auto from, auto count) {
        for (std::int64_t i = 0; i < count; ++i) {
          REQUIRE(copied.at(static_cast<std::size_t>(own + i)) == -1);
          copied[static_cast<std::size_t>(own + i)] = have.at(static_cast<std::size_t>(from + i));
        }
      });
      const std::set<std::int64_t> there(have.begin(), have.end());
      std::vector<std::int64_t> missing, found;
      for (std::size_t i = 0; i < want.size(); ++i) {
        CHECK(copied[i] == (there.count(want[i]) > 0 ? want[i] : -1));
        if (there.count(want[i]) == 0) missing.push_back(want[i]);
      }
      for (const FlatRun& run : left) {
        for (std::int64_t i = 0; i < run.count; ++i) {
          found.push_back(run.whole + i);
          CHECK(want.at(static_cast<std::size_t>(run.own + i)) == run.whole + i);
        }
      }
      CHECK(found == missing);
    }
  }
}

TEST_CASE("equal pieces are written once, and ranks share the writing") {
  const Piece a = whole_piece("a", {100}), b = whole_piece("b", {60}), c = whole_piece("c", {50});
  Piece half = a;
  half.count = 50;
  // Ranks 0 and 1 are replicas, rank 2 has half of one parameter of its own.
  const auto written = share_out({{a, b, c}, {c, a, b}, {half}});
  CHECK(written == std::vector<std::vector<Piece>>{{a}, {b, c}, {half}});
  CHECK(share_out({{}, {}}) == std::vector<std::vector<Piece>>(2));
}

TEST_CASE("a rank takes of others what it does not hold itself, and not all of the same rank") {
  const Piece a = whole_piece("a", {4}), b = whole_piece("b", {6});
  Piece first = b, second = b;
  first.count = 2;
  second.first = 2;
  second.count = 4;
  const std::vector<std::vector<Piece>> held{{a, first}, {}, {a, second}, {}};
  const auto chosen = choose_sources(held, {{a}, {a, b}, {b}, {a}});
  CHECK(chosen[0] == std::vector<Source>{{0, 0}});                  // its own
  CHECK(chosen[1] == std::vector<Source>{{2, 0}, {2, 1}, {0, 1}});  // from the next one on, both parts of b
  CHECK(chosen[2] == std::vector<Source>{{2, 1}, {0, 1}});          // its own part first
  CHECK(chosen[3] == std::vector<Source>{{0, 0}});
  CHECK(choose_sources({{}, {first}}, {{b}, {a}}) == std::vector<std::vector<Source>>{{{1, 0}}, {}});
}

TEST_CASE("elements of all parameters are counted once, whoever has which part") {
  const Piece a = whole_piece("a", {2, 3}), b = whole_piece("b", {5});
  Piece part = b;
  part.count = 1;
  CHECK(num_elements(std::vector<std::vector<Piece>>{{a, part}, {a}, {b}}) == 11);
  CHECK(num_elements(std::vector<std::vector<Piece>>{}) == 0);
}
