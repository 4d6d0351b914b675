#pragma once
// COX_ENSURE: for our own bugs only; what a user, file or peer can trigger is an Error.
// Throws the one exception that crosses folders; edges (main, service loops) catch it. Source: STYLE section 4.
#include <sstream>
#include <stdexcept>
#include <string>

namespace coxswain {

class EnsureFailure : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

template <class... Values>
[[noreturn]] void fail_ensure(const char* condition, const char* file, int line, const Values&... values) {
  std::ostringstream text;
  text << file << ":" << line << ": ensure failed: " << condition;
  ((text << " | " << values), ...);
  throw EnsureFailure(text.str());
}

}  // namespace coxswain

/// COX_ENSURE(condition, values...): `values` are printed when the condition is false.
#define COX_ENSURE(condition, ...)                                                                        \
  do {                                                                                                    \
    if (!(condition)) ::coxswain::fail_ensure(#condition, __FILE__, __LINE__ __VA_OPT__(, ) __VA_ARGS__); \
  } while (false)
