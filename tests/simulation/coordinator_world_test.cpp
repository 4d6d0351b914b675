// Whole runs in simulated time, under faults that a seed stands for; and that a defect does not go unseen.
#include "bench/support/coordinator_world.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::bench;

TEST_CASE("no invariant is broken, whatever strikes a run", "[simulation]") {
  int faults = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    const WorldResult result = run_scenario(make_scenario(seed, 0));
    INFO("replay: coordinator_simulation --run " << seed << " --tell 1\n" << result.broken.value_or(""));
    REQUIRE_FALSE(result.broken);
    faults += result.num_struck;
  }
  CHECK(faults > 600);
}

TEST_CASE("a run without faults takes every step in one generation", "[simulation]") {
  Scenario scenario = make_scenario(7, 5);
  scenario.faults.clear();
  const WorldResult result = run_scenario(scenario);
  CHECK_FALSE(result.broken);
  CHECK(result.exit_code == ExitCode::Done);
  CHECK(result.generations == 1);
  CHECK(result.steps == 5);
  CHECK(result.coordinators == 1);
}

TEST_CASE("a seed makes the same run again", "[simulation]") {
  const auto told = [](std::uint64_t seed) {
    World world(make_scenario(seed, 8));
    std::vector<std::string> lines;
    world.tell = [&](const std::string& what) { lines.push_back(std::to_string(world.time.seconds()) + what); };
    (void)world.run();
    return lines;
  };
  CHECK(told(3) == told(3));
  CHECK(told(3) != told(4));
}

TEST_CASE("a planted defect is found", "[simulation]") {
  const auto [planted, words] = GENERATE(table<Planted, std::string>({
      {Planted::EndsTooEarly, "still runs"},   // an agent says that its ranks are gone, and they are not
      {Planted::ForgetsAnInput, "made anew"},  // the journal lacks what was acted on
      {Planted::RecordsTwice, "step 7"},       // one line too many
      {Planted::LosesAnEvent, "line"},         // one too few
  }));
  std::string found;
  for (std::uint64_t seed = 1; seed <= 20 && found.empty(); ++seed)
    found = run_scenario(make_scenario(seed, 6), planted).broken.value_or("");
  INFO(found);
  CHECK(found.find(words) != std::string::npos);
}
