#pragma once
// An owned file descriptor, and the one place where errno becomes an Error. Threads: pure values.
#include <string>
#include <utility>

#include "common/result.h"

namespace coxswain::collective {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      close();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~UniqueFd() { close(); }

  [[nodiscard]] int value() const { return fd_; }
  [[nodiscard]] explicit operator bool() const { return fd_ >= 0; }
  void close();

 private:
  int fd_ = -1;
};

/// "WHAT: strerror"; call right after the failing call.
[[nodiscard]] Error system_error(ErrorCode code, const std::string& what);

}  // namespace coxswain::collective
