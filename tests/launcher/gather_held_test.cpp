// State in the memory of ranks comes to the ranks that need it, over the `host` backend.
#include "worker/service/gather_held.h"

#include "tests/collective/ranks.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::checkpoint;
using coxswain::worker::HeldState;

namespace {

/// Elements say which they are: 100 x state + their place in the parameter, and 1,000 in `b`.
struct Elements {
  explicit Elements(const Piece& piece) {
    for (std::size_t state = 0; state < kStates.size(); ++state)
      for (const FlatRun& run : flat_runs(piece))
        for (std::int64_t i = 0; i < run.count; ++i)
          of[state].push_back(static_cast<float>(run.whole + i) + 100.0F * static_cast<float>(state) +
                              (piece.parameter == "b" ? 1000.0F : 0.0F));
  }
  std::array<std::vector<float>, kStates.size()> of;
};

Piece part(const Piece& whole, std::int64_t first, std::int64_t count) {
  Piece piece = whole;
  piece.first = first;
  piece.count = count;
  return piece;
}

}  // namespace

TEST_CASE("ranks get what they lack from those that hold it", "[gather_held]") {
  const Piece a = whole_piece("a", {5}), b = whole_piece("b", {7});
  // Rank 1 is new; ranks 0 and 2 hold parts of b, and both hold a.
  const std::vector<std::vector<Piece>> held{{a, part(b, 0, 3)}, {}, {a, part(b, 3, 4)}};
  const std::string failures = collective::run_threads({"n", "n", "other"}, [&](collective::Rank& rank) {
    const auto world = rank.communicator();
    if (!world) return;
    std::vector<Elements> elements;
    for (const Piece& piece : held[static_cast<std::size_t>(rank.rank)]) elements.emplace_back(piece);
    HeldState own;
    for (std::size_t i = 0; i < elements.size(); ++i)
      own.pieces.push_back({held[static_cast<std::size_t>(rank.rank)][i],
                            {elements[i].of[0].data(), elements[i].of[1].data(), elements[i].of[2].data()}});
    const auto gathered = worker::gather_held(rank.rank == 1 ? nullptr : &own, {a, b}, *world, collective::soon());
    rank.report.expect(gathered.has_value(), "gathers");
    if (!gathered) return;
    const Reader reader = Reader::over(gathered->pieces);
    for (const Piece& piece : {a, b}) {
      for (const State state : kStates) {
        std::vector<float> read(static_cast<std::size_t>(piece.count));
        rank.report.expect(reader.read(state, piece, read).has_value(), piece.parameter + " is there");
        rank.report.expect(read == Elements(piece).of[static_cast<std::size_t>(state)], piece.parameter + " is right");
      }
    }
    rank.report.expect(gathered->fetched.size() == (rank.rank == 1 ? 3 : 1), "takes no more than it needs");
    rank.report.expect(world->barrier(collective::soon()).wait(collective::soon()).has_value(), "all are done");
  });
  CHECK(failures == "");
}
