// A move in words and as JSON.
#include "planner/replan.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;

TEST_CASE("a move in words and as JSON", "[replan_text_test]") {
  CHECK(duration_text(Seconds(0.35)) == "350 ms");
  CHECK(duration_text(Seconds(12.34)) == "12.3 s");
  CHECK(duration_text(Seconds(250)) == "4 min 10 s");
  CHECK(duration_text(Seconds(3 * 3600 + 125)) == "3 h 2 min");
  CHECK(duration_text(Seconds(2 * 86400 + 5 * 3600)) == "2 d 5 h");
  Move move;
  move.horizon = Seconds(3600);
  move.estimate.seconds = Seconds(12.3);
  move.estimate.bytes_between = Bytes(std::int64_t{3} << 29);
  move.effective_step = Seconds(0.5);
  move.running_step = Seconds(0.6);
  move.pays_after = Seconds(250);
  CHECK(to_text(move) ==
        "moving takes 12.3 s (1.50 GiB between nodes, 0.00 KiB inside, 0.00 KiB stay) and pays after 4 min 10 s; "
        "horizon 1 h 0 min: 0.5 s a step, moving included\n");
  move.estimate.missing = {"optimizer state of blocks [0,4)"};
  CHECK(to_text(move).find("no device that is left holds optimizer state of blocks [0,4)") != std::string::npos);
  const Json json = to_json(move);
  CHECK(json["seconds"].number() == 12.3);
  CHECK(json["pays_after_seconds"].number() == 250);
  CHECK(json["bytes"]["between_nodes"].integer() == std::int64_t{3} << 29);
  CHECK(json["missing"].array().size() == 1);
  move.keeps_running_plan = true;
  move.alternative = "dp2 pp1";
  CHECK(to_text(move) ==
        "moving: none, the running plan goes on; dp2 pp1 would pay after 4 min 10 s (horizon 1 h 0 min)\n");
}
