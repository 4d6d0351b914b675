#include "common/error.h"

#include "common/ensure.h"
#include "common/result.h"

#include <catch2/catch.hpp>

namespace coxswain {
namespace {

Error heads_error() {
  return Error{ErrorCode::InvalidArgument,
               "tensor-parallel degree does not divide the attention heads",
               "job.yaml:14  plan.tensor",
               "a divisor of 12 (1, 2, 3, 4, 6, 12)",
               "8",
               "use 4 or 6, or delete plan.tensor and let the planner choose"};
}

TEST_CASE("an error renders what, where, expected, got and how to fix") {
  CHECK(to_text(heads_error()) ==
        "error: tensor-parallel degree does not divide the attention heads\n"
        "  at:       job.yaml:14  plan.tensor\n"
        "  expected: a divisor of 12 (1, 2, 3, 4, 6, 12)\n"
        "  got:      8\n"
        "  fix:      use 4 or 6, or delete plan.tensor and let the planner choose\n");
}

TEST_CASE("an error leaves out the lines it has nothing for") {
  CHECK(to_text(Error{ErrorCode::NotFound, "cannot open the file", "a.pt2", "", "No such file", ""}) ==
        "error: cannot open the file\n"
        "  at:       a.pt2\n"
        "  got:      No such file\n");
}

TEST_CASE("an error with several lines keeps its column") {
  CHECK(to_text(Error{ErrorCode::Unknown, "odd", "", "", "one\ntwo", ""}) ==
        "error: odd\n"
        "  got:      one\n"
        "            two\n");
}

TEST_CASE("an error renders each detail after itself") {
  const Error all = combine_errors(ErrorCode::InvalidArgument, "2 problems in job.yaml",
                                   {Error{ErrorCode::InvalidArgument, "first", "a", "", "", ""},
                                    Error{ErrorCode::InvalidArgument, "second", "b", "", "", ""}});
  CHECK(to_text(all) ==
        "error: 2 problems in job.yaml\n"
        "error: first\n"
        "  at:       a\n"
        "error: second\n"
        "  at:       b\n");
}

TEST_CASE("one problem is returned as it is") {
  CHECK(combine_errors(ErrorCode::InvalidArgument, "1 problem", {heads_error()}) == heads_error());
}

TEST_CASE("combining no problem is our bug") {
  CHECK_THROWS_AS(combine_errors(ErrorCode::InvalidArgument, "none", {}), EnsureFailure);
}

TEST_CASE("a path prefix is joined by a dot, but not before an index and not after a blank") {
  const Error inner{ErrorCode::InvalidArgument, "odd", "samples", "", "", ""};
  const Error replica = with_path_prefix(inner, "replicas[2]");
  const Error stage = with_path_prefix(with_path_prefix(replica, "[1]"), "stages");
  CHECK(with_path_prefix(inner, "").path == "samples");
  CHECK(replica.path == "replicas[2].samples");
  CHECK(with_path_prefix(stage, "plan").path == "plan.stages[1].replicas[2].samples");
  CHECK(with_path_prefix(stage, "job.yaml:3  ").path == "job.yaml:3  stages[1].replicas[2].samples");
  CHECK(with_path_prefix(Error{}, "plan").path == "plan");
}

TEST_CASE("a path prefix reaches the details") {
  Error error{ErrorCode::InvalidArgument, "all", "", "", "", ""};
  error.details = {Error{ErrorCode::InvalidArgument, "one", "[0]", "", "", ""}};
  CHECK(with_path_prefix(error, "stages").details[0].path == "stages[0]");
}

TEST_CASE("every error code has a name of its own") {
  CHECK(to_text(ErrorCode::Cancelled) == "Cancelled");
  CHECK(to_text(ErrorCode::InvalidArgument) == "InvalidArgument");
  CHECK(to_text(ErrorCode::Unauthenticated) == "Unauthenticated");
}

Result<int> half(int n) {
  if (n % 2 != 0) return Error{ErrorCode::OutOfRange, "odd", "", "", std::to_string(n), ""};
  return n / 2;
}

Result<int> quarter(int n) {
  COX_TRY(const int once, half(n));
  COX_TRY(const int twice, half(once));
  return twice;
}

Result<void> check_quarter(int n) {
  COX_TRY_VOID(quarter(n).has_value() ? Result<void>{}
                                      : Result<void>(Error{ErrorCode::OutOfRange, "none", "", "", "", ""}));
  return {};
}

TEST_CASE("COX_TRY passes a value on and returns the first error") {
  CHECK(quarter(12).value() == 3);
  CHECK(quarter(6).error().got == "3");
  CHECK(quarter(5).error().got == "5");
  CHECK(check_quarter(4).has_value());
  CHECK(check_quarter(2).error().message == "none");
}

TEST_CASE("guard turns an exception into Internal and names the folder") {
  const Result<int> result = guard("model", []() -> Result<int> { throw std::runtime_error("boom"); });
  REQUIRE_FALSE(result.has_value());
  CHECK(result.error().code == ErrorCode::Internal);
  CHECK(result.error().message == "unexpected exception in model: boom");
}

TEST_CASE("guard tells that memory is out") {
  const Result<int> result = guard("worker", []() -> Result<int> { throw std::bad_alloc(); });
  REQUIRE_FALSE(result.has_value());
  CHECK(result.error().code == ErrorCode::Internal);
  CHECK(result.error().message == "out of memory in worker");
}

TEST_CASE("COX_ENSURE prints the condition and the values") {
  const int ranks = 3;
  try {
    COX_ENSURE(ranks == 4, "ranks", ranks);
    FAIL("did not throw");
  } catch (const EnsureFailure& e) {
    CHECK_THAT(e.what(), Catch::Contains("ensure failed: ranks == 4 | ranks | 3"));
  }
}

}  // namespace
}  // namespace coxswain
