#include "launcher/control/failure.h"

#include <cstdlib>

#include "common/exit_code.h"
#include "launcher/control/exit_cause.h"
#include "launcher/control/restarts.h"

namespace coxswain::launcher {
namespace {

std::string where(const Failure& failure, const RunPosition& position) {
  std::string text = position.node;
  if (failure.rank >= 0) {
    text = "rank " + std::to_string(failure.rank) + ", " + text;
  } else if (failure.node_lost && !position.node_ranks.empty()) {
    std::string ranks;
    for (const int rank : position.node_ranks) ranks += (ranks.empty() ? "rank " : ", ") + std::to_string(rank);
    text = ranks + ", " + text;
  }
  if (position.generation == 0) return text + ", while measuring";
  return text + ", generation " + std::to_string(position.generation) + ", after step " +
         std::to_string(position.last_step);
}

std::string message(const Failure& failure, const std::string& node) {
  if (failure.node_lost) return node + " is lost: " + failure.cause;
  if (failure.rank < 0) return node + " failed: " + failure.cause;
  std::string cause = failure.cause;
  if (cause.starts_with("signal ")) {
    if (const std::string name = signal_name(std::atoi(cause.c_str() + 7)); !name.empty()) cause += " (" + name + ")";
  }
  return "rank " + std::to_string(failure.rank) + " on " + node + " failed: " + cause;
}

std::string last_words(const Failure& failure) {
  if (!failure.evidence.empty())
    return (failure.log.empty() ? "last lines of its stderr:" : "last lines of " + failure.log + ":") +
           std::string("\n") + failure.evidence;
  return failure.log.empty() ? "" : "nothing on its stderr (" + failure.log + ")";
}

std::string hint(const RunPosition& position) {
  if (position.hopeless)
    return "step " + std::to_string(position.last_step + 1) + " failed " + std::to_string(kSameFailures) +
           " times like this: mend the cause, then " + position.resume_hint;
  if (position.generation == 0) return "start again";
  return position.last_saved >= 0 ? position.resume_hint : "start the run again";
}

}  // namespace

bool is_bad_input(const Failure& failure) {
  if (!failure.error) return false;
  const ExitCode code = exit_code_for(failure.error->code);
  return code == ExitCode::BadInput || code == ExitCode::MachineLacks;
}

Error failure_error(const Failure& failure, const RunPosition& position) {
  // A mistake in the user's files is told as such; the rank that met it first is of no interest.
  if (failure.error && (failure.node < 0 || is_bad_input(failure))) return *failure.error;
  Error error{ErrorCode::Unavailable,   message(failure, position.node),
              where(failure, position), "",
              last_words(failure),      hint(position)};
  if (failure.error) {
    if (failure.error->code == ErrorCode::Internal) error.code = ErrorCode::Internal;
    error.details.push_back(*failure.error);
  }
  return error;
}

Error stopped_error(int signal, const RunPosition& position) {
  const std::string what = "stopped by " + signal_name(signal) + " after step " + std::to_string(position.last_step);
  if (position.last_saved == position.last_step)
    return {ErrorCode::Cancelled, what + ", which is saved", "", "", "", position.resume_hint};
  if (position.last_saved >= 0)
    return {ErrorCode::Cancelled, what + "; the last saved is " + std::to_string(position.last_saved), "", "", "",
            position.resume_hint};
  return {ErrorCode::Cancelled, what, "", "", "", "nothing was saved"};
}

}  // namespace coxswain::launcher
