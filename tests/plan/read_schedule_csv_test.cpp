#include "plan/program.h"
#include "tests/plan/pytorch_schedules.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

std::vector<std::string> problems_of(const std::string& csv) {
  const auto read = read_schedule_csv(csv);
  std::vector<std::string> seen;
  if (read) return seen;
  if (read.error().details.empty()) return {read.error().path + ": " + read.error().message};
  for (const Error& detail : read.error().details) seen.push_back(detail.path + ": " + detail.message);
  return seen;
}

using Strings = std::vector<std::string>;

TEST_CASE("PyTorch's own files read, what they communicate passed over", "[read_schedule_csv]") {
  // torch 2.13.0, ScheduleGPipe._get_pipeline_order of 2 stages and 3 micro-batches, written by its _dump_csv.
  const auto gpipe =
      read_schedule_csv("0F0,0F1,0F2,,,,0B0,0B1,0B2,0REDUCE_GRAD\r\n,1F0,1F1,1F2,1B0,1B1,1B2,1REDUCE_GRAD\r\n");
  REQUIRE(gpipe);
  CHECK(gpipe->kind == ScheduleKind::GPipe);
  CHECK(gpipe->num_stages == 2);
  CHECK(gpipe->num_micro_batches == 3);
  CHECK(gpipe->stages[1] == make_schedule(ScheduleKind::GPipe, 1, 2, 3));
  const auto with_sends = read_schedule_csv(
      "0UNSHARD,0F0,0SEND_F0,0RECV_B0,0B0,0REDUCE_GRAD,0RESHARD\n1UNSHARD,1RECV_F0,1F0,1B0,1SEND_B0,1RESHARD\n");
  REQUIRE(with_sends);
  CHECK(with_sends->stages[0] == std::vector<Action>{{ActionKind::Forward, 0}, {ActionKind::Backward, 0}});
}

TEST_CASE("stages, chunks, micro-batches and the kind come from the file", "[read_schedule_csv]") {
  for (const PytorchSchedule& recorded : kPytorchSchedules) {
    const auto read = read_schedule_csv(recorded.csv);
    REQUIRE(read);
    CAPTURE(recorded.kind, recorded.num_stages);
    CHECK(to_text(read->kind) == recorded.kind);
    CHECK(read->num_stages == recorded.num_stages);
    CHECK(read->num_chunks == recorded.num_chunks);
    CHECK(read->num_micro_batches == recorded.num_micro_batches);
  }
  // Another order than any of ours: the first micro-batch's backward last.
  const auto loop = read_schedule_csv("0F0,0F1,0B1,0B0\n1F0,1F1,1B1,1B0\n");
  REQUIRE(loop);
  CHECK(loop->kind == ScheduleKind::Custom);
  CHECK(loop->num_chunks == 1);
  const auto v = read_schedule_csv("0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0\n");
  REQUIRE(v);
  CHECK(v->kind == ScheduleKind::CustomV);
  CHECK(v->num_chunks == 2);
  CHECK(v->stages[1] == std::vector<Action>{{ActionKind::Forward, 0, -1, -1, -1, 0},
                                            {ActionKind::Forward, 0, -1, -1, -1, 1},
                                            {ActionKind::Backward, 0, -1, -1, -1, 1},
                                            {ActionKind::Backward, 0, -1, -1, -1, 0}});
}

TEST_CASE("whole and split backwards may stand side by side, two actions in one cell", "[read_schedule_csv]") {
  const auto read = read_schedule_csv("0F0,(0F1;0B0)OVERLAP_F_B,0I1,0W1\n");
  REQUIRE(read);
  CHECK(read->stages.front() == std::vector<Action>{{ActionKind::Forward, 0},
                                                    {ActionKind::Forward, 1},
                                                    {ActionKind::Backward, 0},
                                                    {ActionKind::BackwardInput, 1},
                                                    {ActionKind::BackwardWeight, 1}});
}

TEST_CASE("every bad cell is named", "[read_schedule_csv]") {
  CHECK(problems_of("0F0,0X1,F2,(0F1;0B0)ELSE,(0F1;0Q)OVERLAP_F_B\n1F0,-1F1,1B0 1B1\n") ==
        Strings{"line 1 cell 2: not a cell of a schedule", "line 1 cell 3: not a cell of a schedule",
                "line 1 cell 4: not a cell of a schedule", "line 1 cell 5: not a cell of a schedule",
                "line 2 cell 2: not a cell of a schedule", "line 2 cell 3: not a cell of a schedule"});
  CHECK(problems_of("") == Strings{": no schedule"});
}

TEST_CASE("parts in another place than a loop or a V are named", "[read_schedule_csv]") {
  const auto problems = problems_of("0F0,2F0,2B0,0B0\n1F0,0F1,1B0,0B1\n");
  REQUIRE(problems.size() == 1);
  CHECK(problems[0] == "line 2: parts are not where a loop or a V puts them");
}

TEST_CASE("what is missing or twice is named", "[read_schedule_csv]") {
  CHECK(problems_of("0F0,0F1,0B0,0I1\n1F0,1F1,1F1,1B0,1B1\n") ==
        Strings{"line 1: wrong number of backwards", "line 2: wrong number of forwards"});
  // PyTorch 2.13's Schedule1F1B begins the last line with micro-batch 1.
  CHECK(problems_of("0F0,0F1,0B0,0B1\n1F1,1B0,1F2,1B1\n").size() == 4);
  // A number that a file names makes nothing large.
  CHECK(problems_of("0F0,0B1000000000\n") == Strings{": parts or micro-batches are missing"});
}

TEST_CASE("cells that wait for each other are named, with what they wait for", "[read_schedule_csv]") {
  const auto read = read_schedule_csv("0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0\n");
  REQUIRE_FALSE(read);
  REQUIRE(read.error().details.size() == 2);
  CHECK(read.error().details[0].path == "line 1 cell 2");
  CHECK(read.error().details[0].expected == "the backward of micro-batch 0 in part 1 before it");
  CHECK(read.error().details[1].path == "line 2 cell 1");
  CHECK(read.error().details[1].expected == "0F1 before it");
  // A weight half before its input half.
  CHECK(problems_of("0F0,0W0,0I0\n") == Strings{"line 1 cell 2: cell can never begin"});
}

}  // namespace
}  // namespace coxswain::plan
