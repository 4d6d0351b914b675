#pragma once
// Bytes of a text as tokens: windows of sequence_length + 1, permuted per epoch by the counter generator, a held-back
// tail for validation. Every rank computes the same order from the seed, so a step's samples depend on no plan. Called
// by the engine. Threads: pure after opening. Source: DESIGN 3.7.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/result.h"
#include "worker/settings.h"

namespace coxswain::worker {

class TextData {
 public:
  /// Maps the file. `num_validation` = samples that validation will ask for.
  /// Errors: FailedPrecondition (unreadable, or too short for one window or for validation).
  [[nodiscard]] static Result<TextData> open(const DataSettings& settings, std::int64_t num_validation);

  /// Training sample number `position` since the first step: sequence_length + 1 bytes.
  [[nodiscard]] const unsigned char* training_window(std::int64_t position);
  /// Window `index` of the held-back tail. Requires: index < num_validation of open.
  [[nodiscard]] const unsigned char* validation_window(std::int64_t index) const;
  [[nodiscard]] std::int64_t sequence_length() const { return sequence_length_; }
  [[nodiscard]] std::int64_t num_training_windows() const { return num_windows_; }

 private:
  TextData() = default;
  std::shared_ptr<const unsigned char> bytes_;
  std::int64_t sequence_length_ = 0, num_windows_ = 0, tail_first_ = 0;
  std::uint64_t seed_ = 0;
  std::int64_t epoch_ = -1;  // whose order is in permutation_
  std::vector<std::uint32_t> permutation_;
};

/// Fisher-Yates from the last place down: place i swaps with (64-bit word of counter (i, epoch)) mod (i + 1).
/// Words 0 and 1 of the generator are the low and high half; the key is make_philox_key(seed, "data").
[[nodiscard]] std::vector<std::uint32_t> permutation_of(std::uint64_t seed, std::int64_t epoch, std::int64_t count);

}  // namespace coxswain::worker
