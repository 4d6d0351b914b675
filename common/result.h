#pragma once
// Result<T>: a value or an Error, and the one macro that passes errors on.
// Threads: pure values. Source: STYLE section 4.
#include <exception>
#include <functional>
#include <new>
#include <string>
#include <tl/expected.hpp>
#include <utility>

#include "common/error.h"

namespace coxswain {

template <class T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
  Result(Error error) : tl::expected<T, Error>(tl::make_unexpected(std::move(error))) {}
};

template <>
class [[nodiscard]] Result<void> : public tl::expected<void, Error> {
 public:
  using tl::expected<void, Error>::expected;
  Result(Error error) : tl::expected<void, Error>(tl::make_unexpected(std::move(error))) {}
};

/// Runs `body` (returning a Result) and turns any exception that escapes into Internal, naming `folder`; of memory that
/// could not be had it says so.
template <class Body>
auto guard(const char* folder, Body&& body) -> decltype(body()) {
  try {
    return std::forward<Body>(body)();
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::Internal,
                 std::string("out of memory in ") + folder,
                 "",
                 "",
                 "",
                 "give the process more memory, or the work to more devices"};
  } catch (const std::exception& e) {
    return Error{
        ErrorCode::Internal, std::string("unexpected exception in ") + folder + ": " + e.what(), "", "", "", ""};
  }
}

}  // namespace coxswain

#define COX_CONCAT_INNER(a, b) a##b
#define COX_CONCAT(a, b) COX_CONCAT_INNER(a, b)

/// COX_TRY(auto value, expression): declares `value` from the Result, or returns its error.
#define COX_TRY(name, ...)                                                                                         \
  auto COX_CONCAT(cox_result_, __LINE__) = (__VA_ARGS__);                                                          \
  if (!COX_CONCAT(cox_result_, __LINE__).has_value()) return std::move(COX_CONCAT(cox_result_, __LINE__)).error(); \
  name = std::move(*COX_CONCAT(cox_result_, __LINE__))

/// COX_TRY_VOID(expression): returns the error of a Result<void>.
#define COX_TRY_VOID(...)                                                        \
  do {                                                                           \
    auto cox_result_void = (__VA_ARGS__);                                        \
    if (!cox_result_void.has_value()) return std::move(cox_result_void).error(); \
  } while (false)
