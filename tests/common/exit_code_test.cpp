#include "common/exit_code.h"

#include <catch2/catch.hpp>

namespace coxswain {
namespace {

// INTERFACE section 1: what a script that called `launch` relies on.
TEST_CASE("errors map to the documented exit codes") {
  const auto code = [](ErrorCode error) { return static_cast<int>(exit_code_for(error)); };
  CHECK(code(ErrorCode::InvalidArgument) == 65);
  CHECK(code(ErrorCode::NotFound) == 65);
  CHECK(code(ErrorCode::OutOfRange) == 65);
  CHECK(code(ErrorCode::Unimplemented) == 65);
  CHECK(code(ErrorCode::DataLoss) == 65);
  CHECK(code(ErrorCode::ResourceExhausted) == 69);
  CHECK(code(ErrorCode::FailedPrecondition) == 71);
  CHECK(code(ErrorCode::PermissionDenied) == 71);
  CHECK(code(ErrorCode::AlreadyExists) == 71);
  CHECK(code(ErrorCode::Cancelled) == 75);
  CHECK(code(ErrorCode::Internal) == 93);
  CHECK(code(ErrorCode::Unauthenticated) == 93);
  CHECK(code(ErrorCode::Unavailable) == 1);
  CHECK(code(ErrorCode::DeadlineExceeded) == 1);
  CHECK(code(ErrorCode::Aborted) == 1);
  CHECK(code(ErrorCode::Unknown) == 1);
  CHECK(static_cast<int>(ExitCode::Done) == 0);
  CHECK(static_cast<int>(ExitCode::Usage) == 64);
}

}  // namespace
}  // namespace coxswain
