#include "launcher/control/run_output.h"

#include <algorithm>
#include <iostream>
#include <sstream>

#include "common/bytes_io.h"
#include "tests/support/manual_clock.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

/// What is told goes to a text.
class Listening {
 public:
  Listening() : before_(std::cout.rdbuf(text_.rdbuf())) {}
  ~Listening() { std::cout.rdbuf(before_); }
  /// The member `outcome` of the last line.
  [[nodiscard]] Json outcome() const {
    std::istringstream lines(text_.str());
    Json last;
    for (std::string line; std::getline(lines, line);) last = *parse_json(line);
    return last["outcome"];
  }

 private:
  std::ostringstream text_;
  std::streambuf* before_;
};

/// A coordinator's output, in the run's folder.
struct Scene {
  explicit Scene(const std::filesystem::path& folder) : start(start_in(folder)) { job.steps = 100; }
  static CoordinatorStart start_in(const std::filesystem::path& folder) {
    CoordinatorStart made;
    made.run_dir = folder;
    return made;
  }
  void steps(std::int64_t first, std::int64_t last) {
    for (std::int64_t step = first; step <= last; ++step) {
      clock.advance(Seconds(1));
      output.set_time(clock.now());
      StepRow row;
      row.step = step;
      row.loss = 100.0 / static_cast<double>(step);
      row.step_seconds = static_cast<double>(step) / 128;
      row.peak_memory_bytes = {10 * step, step};
      if (step == 4) row.validation_loss = 0.5;
      output.record_step(row);
      if (step == 6) output.record(JsonObject{{"type", "recovered"}});  // follows from a step
    }
  }
  void begin() {
    output.begin({});
    output.record(JsonObject{{"type", "generation_started"}, {"generation", 1}});
  }
  Json end() {
    const Listening listening;
    output.record(JsonObject{{"type", "job_finished"}});
    output.end({});
    return listening.outcome();
  }

  CoordinatorStart start;
  Job job;
  ManualClock clock;
  RunOutput output{start, &job, clock};
};

}  // namespace

TEST_CASE("a restart passes over what was told, and its outcome is of the whole run", "[run_output]") {
  TempDir folder;
  Json state;
  {
    const Listening listening;
    Scene first(folder.path());
    first.begin();
    first.steps(1, 9);
    state = *parse_json(to_text(first.output.state()));
    first.steps(10, 11);
  }
  Scene second(folder.path());
  SECTION("from the newest state on") {
    const Listening listening;
    REQUIRE(second.output.find_told(state));
    second.begin();
    second.output.go_on_from(state);
    second.steps(10, 11);
  }
  SECTION("where there is none") {
    const Listening listening;
    REQUIRE(second.output.find_told(Json()));
    second.begin();
    second.steps(1, 11);
  }
  SECTION("and no step after it") {
    const Listening listening;
    REQUIRE(second.output.find_told(state));
    second.begin();
    second.output.go_on_from(state);
  }
  const std::string rows = *read_file(folder / "metrics.jsonl");
  CHECK(std::count(rows.begin(), rows.end(), '\n') == 11);
  const Json last = second.end();
  const std::int64_t steps = last["steps"].integer();
  CHECK((steps == 11 || steps == 9));
  CHECK(last["loss"].number() == 100.0 / static_cast<double>(steps));
  CHECK(last["validation_loss"].number() == 0.5);
  CHECK(last["peak_memory_bytes"] == Json(JsonArray{10 * steps, steps}));
  CHECK(last["median_step_seconds"].number() == static_cast<double>(5 + steps) / 2 / 128);  // of 5 to the last
  CHECK(last["goodput"].array().size() == 1);
  const std::string events = *read_file(folder / "events.jsonl");
  CHECK(std::count(events.begin(), events.end(), '\n') == 6);  // probed, chosen, started, recovered, goodput, finished
  CHECK(events.find("\"goodput\"") < events.find("\"job_finished\""));
}
