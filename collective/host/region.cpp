#include "collective/host/region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace coxswain::collective {
namespace {

constexpr std::size_t kHeaderBytes = 4096;
static_assert(sizeof(RegionHeader) <= kHeaderBytes);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free && std::atomic<std::uint64_t>::is_always_lock_free);

// header | positions of each ring | rings | staging slots; every part starts on a page.
std::size_t positions_bytes(int num_local) {
  const std::size_t bytes = sizeof(RingPositions) * static_cast<std::size_t>(num_local);
  return (bytes + kHeaderBytes - 1) / kHeaderBytes * kHeaderBytes;
}

}  // namespace

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  if (this != &other) {
    if (data_ != nullptr) ::munmap(data_, bytes_);
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

Mapping::~Mapping() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

Result<UniqueFd> Mapping::make_memory(std::size_t bytes) {
  UniqueFd fd(::memfd_create("coxswain", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return system_error(ErrorCode::ResourceExhausted, "cannot make shared memory");
  if (::ftruncate(fd.value(), static_cast<off_t>(bytes)) != 0 ||
      ::fcntl(fd.value(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return system_error(ErrorCode::ResourceExhausted,
                        "cannot size shared memory to " + std::to_string(bytes) + " bytes");
  }
  return fd;
}

Result<Mapping> Mapping::map(const UniqueFd& fd, std::size_t bytes) {
  struct stat status = {};
  if (::fstat(fd.value(), &status) != 0)
    return system_error(ErrorCode::FailedPrecondition, "cannot look at shared memory");
  const int seals = ::fcntl(fd.value(), F_GET_SEALS);
  if (static_cast<std::size_t>(status.st_size) < bytes || seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return Error{ErrorCode::FailedPrecondition,
                 "shared memory is not what was agreed",
                 "",
                 std::to_string(bytes) + " bytes, sealed",
                 std::to_string(status.st_size) + " bytes",
                 ""};
  }
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.value(), 0);
  if (data == MAP_FAILED) return system_error(ErrorCode::ResourceExhausted, "cannot map shared memory");
  Mapping mapping;
  mapping.data_ = static_cast<std::byte*>(data);
  mapping.bytes_ = bytes;
  return mapping;
}

std::size_t Region::bytes_for(int num_local) {
  return kHeaderBytes + positions_bytes(num_local) + kRingBytes * static_cast<std::size_t>(num_local) +
         static_cast<std::size_t>(kSharedChunk.value) * kNumStageSlots;
}

RingPositions& Region::ring(int from) const {
  return reinterpret_cast<RingPositions*>(mapping_.data() + kHeaderBytes)[from];
}

std::byte* Region::ring_data(int from) const {
  return mapping_.data() + kHeaderBytes + positions_bytes(num_local_) + kRingBytes * static_cast<std::size_t>(from);
}

std::byte* Region::stage(int slot) const {
  return ring_data(num_local_) + static_cast<std::size_t>(kSharedChunk.value) * static_cast<std::size_t>(slot);
}

}  // namespace coxswain::collective
