#include "launcher/rest/problem.h"

#include "common/json.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

TEST_CASE("an error is a problem with a pointer for each thing that is wrong", "[problem]") {
  const Error micro{ErrorCode::InvalidArgument,
                    "micro-batch does not divide the global batch",
                    "job.json:3  batch.micro",
                    "a divisor of 32",
                    "5",
                    "use a divisor, or `auto`"};
  const Error beta{ErrorCode::InvalidArgument, "wrong value", "job.json:7  optimizer.betas[1]", "below 1", "1.5", ""};
  const HttpResponse response =
      problem(within("job", combine_errors(ErrorCode::InvalidArgument, "2 problems in the job file", {micro, beta})));
  CHECK(response.status == 422);
  CHECK(response.content_type == "application/problem+json");
  const auto json = parse_json(response.body);
  REQUIRE(json);
  CHECK((*json)["status"] == Json(422));
  CHECK((*json)["title"] == Json("Unprocessable Content"));
  CHECK((*json)["detail"] == Json("2 problems in the job file"));
  const JsonArray& errors = (*json)["errors"].array();
  REQUIRE(errors.size() == 2);
  CHECK(errors[0] == Json(JsonObject{{"pointer", "/job/batch/micro"},
                                     {"detail", "micro-batch does not divide the global batch"},
                                     {"expected", "a divisor of 32"},
                                     {"got", "5"},
                                     {"hint", "use a divisor, or `auto`"}}));
  CHECK(errors[1]["pointer"] == Json("/job/optimizer/betas/1"));
}

TEST_CASE("what stands nowhere in the body points at the member that it is about", "[problem]") {
  const auto pointer = [](const Error& error) {
    return (*parse_json(problem(error).body))["errors"].array().front()["pointer"].string();
  };
  CHECK(pointer(within("job.model", {ErrorCode::NotFound, "no such file", "/secret/folder/a.pt2", "", "", ""})) ==
        "/job/model");
  CHECK(pointer({ErrorCode::InvalidArgument, "odd", "a/b.c~d", "", "", ""}) == "/a~1b/c~0d");  // RFC 6901
  CHECK(pointer({ErrorCode::InvalidArgument, "odd", "", "", "", ""}).empty());
}

TEST_CASE("each code has its status", "[problem]") {
  const std::vector<std::pair<ErrorCode, int>> statuses{
      {ErrorCode::InvalidArgument, 422},  {ErrorCode::ResourceExhausted, 422}, {ErrorCode::NotFound, 404},
      {ErrorCode::PermissionDenied, 403}, {ErrorCode::Unauthenticated, 401},   {ErrorCode::Cancelled, 409},
      {ErrorCode::Internal, 500},         {ErrorCode::Unavailable, 503}};
  for (const auto& [code, status] : statuses) CHECK(problem(Error{code, "", "", "", "", ""}).status == status);
}
