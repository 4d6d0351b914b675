#include "worker/engine/text_data.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "common/philox.h"

namespace coxswain::worker {
namespace {

Error unreadable(const std::string& path) {
  return Error{ErrorCode::FailedPrecondition,
               "the training text cannot be read",
               "data.text",
               "a readable file",
               path + ": " + std::strerror(errno),
               ""};
}

Result<std::shared_ptr<const unsigned char>> map_file(const std::string& path, std::int64_t& size) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return unreadable(path);
  struct stat status{};
  if (::fstat(file, &status) != 0) {
    ::close(file);
    return unreadable(path);
  }
  size = status.st_size;
  if (size == 0) {
    ::close(file);
    return std::shared_ptr<const unsigned char>();
  }
  void* mapping = ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ, MAP_PRIVATE, file, 0);
  ::close(file);
  if (mapping == MAP_FAILED) return unreadable(path);
  const auto bytes = static_cast<std::size_t>(size);
  return std::shared_ptr<const unsigned char>(
      static_cast<const unsigned char*>(mapping),
      [bytes](const unsigned char* p) { ::munmap(const_cast<unsigned char*>(p), bytes); });
}

}  // namespace

std::vector<std::uint32_t> permutation_of(std::uint64_t seed, std::int64_t epoch, std::int64_t count) {
  std::vector<std::uint32_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0U);
  const auto key = make_philox_key(seed, "data");
  for (std::int64_t i = count - 1; i > 0; --i) {
    const auto words = philox4x32(key, {static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(epoch),
                                        static_cast<std::uint32_t>(epoch >> 32), 0});
    const std::uint64_t word = words[0] | (static_cast<std::uint64_t>(words[1]) << 32);
    std::swap(order[i], order[word % static_cast<std::uint64_t>(i + 1)]);
  }
  return order;
}

Result<TextData> TextData::open(const DataSettings& settings, std::int64_t num_validation) {
  TextData data;
  std::int64_t size = 0;
  COX_TRY(data.bytes_, map_file(settings.text, size));
  data.sequence_length_ = settings.sequence_length;
  data.seed_ = settings.seed;
  const auto tail = static_cast<std::int64_t>(std::floor(static_cast<double>(size) * settings.validation_fraction));
  data.tail_first_ = size - tail;
  const std::int64_t sequence = settings.sequence_length;
  data.num_windows_ = (data.tail_first_ - 1) / sequence;
  if (data.tail_first_ < sequence + 1) {
    return Error{ErrorCode::FailedPrecondition,
                 "the training text is too short for one window",
                 "data.text",
                 "at least " + std::to_string(sequence + 1) + " bytes before the held-back tail",
                 std::to_string(data.tail_first_) + " bytes",
                 "use a longer text or a smaller data.sequence_length"};
  }
  const std::int64_t tail_windows = tail > 0 ? (tail - 1) / sequence : 0;
  if (num_validation > tail_windows) {
    return Error{ErrorCode::FailedPrecondition,
                 "the held-back tail is too short for validation",
                 "validation.fraction",
                 "at least " + std::to_string(num_validation) + " windows of " + std::to_string(sequence) + " bytes",
                 std::to_string(tail_windows) + " windows",
                 "raise validation.fraction or lower validation.steps"};
  }
  return data;
}

const unsigned char* TextData::training_window(std::int64_t position) {
  const std::int64_t epoch = position / num_windows_;
  if (epoch != epoch_) {
    permutation_ = permutation_of(seed_, epoch, num_windows_);
    epoch_ = epoch;
  }
  return bytes_.get() + permutation_[static_cast<std::size_t>(position % num_windows_)] * sequence_length_;
}

const unsigned char* TextData::validation_window(std::int64_t index) const {
  return bytes_.get() + tail_first_ + index * sequence_length_;
}

}  // namespace coxswain::worker
