#include "common/exit_code.h"

namespace coxswain {

ExitCode exit_code_for(ErrorCode code) {
  switch (code) {
    case ErrorCode::Cancelled: return ExitCode::Stopped;
    case ErrorCode::InvalidArgument:
    case ErrorCode::NotFound:
    case ErrorCode::OutOfRange:
    case ErrorCode::Unimplemented:
    case ErrorCode::DataLoss: return ExitCode::BadInput;
    case ErrorCode::ResourceExhausted: return ExitCode::Infeasible;
    case ErrorCode::AlreadyExists:
    case ErrorCode::PermissionDenied:
    case ErrorCode::FailedPrecondition: return ExitCode::MachineLacks;
    case ErrorCode::Internal:
    case ErrorCode::Unauthenticated: return ExitCode::Hopeless;
    case ErrorCode::Unknown:
    case ErrorCode::DeadlineExceeded:
    case ErrorCode::Aborted:
    case ErrorCode::Unavailable: return ExitCode::Failed;
  }
  return ExitCode::Failed;
}

}  // namespace coxswain
