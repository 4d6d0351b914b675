#pragma once
// SHA-256 and HMAC-SHA-256 (OpenSSL in the .cpp), hex text, and constant-time comparison. Threads: pure.
#include <memory>
#include <string>
#include <string_view>

namespace coxswain {

/// 64 lower-case hex digits.
[[nodiscard]] std::string sha256_hex(std::string_view data);
/// The same of what comes in parts.
class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();
  void add(std::string_view data);
  /// Of all that was added; nothing can be added after.
  [[nodiscard]] std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};
[[nodiscard]] std::string hmac_sha256_hex(std::string_view key, std::string_view data);
/// Takes the same time wherever the two differ.
[[nodiscard]] bool equal_constant_time(std::string_view a, std::string_view b);
/// `num_bytes` from the system's generator, as hex.
[[nodiscard]] std::string random_hex(int num_bytes);

}  // namespace coxswain
