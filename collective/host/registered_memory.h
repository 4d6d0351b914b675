#pragma once
// Buffers in memory that other ranks of the node can map: which address belongs to which memfd. One per process and
// communicator tree. Threads: any.
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "collective/host/region.h"

namespace coxswain::collective {

class RegisteredMemory : public std::enable_shared_from_this<RegisteredMemory> {
 public:
  struct Place {
    std::uint64_t id = 0;
    std::size_t offset = 0;
    std::size_t whole_bytes = 0;
    std::shared_ptr<const UniqueFd> fd;
  };

  /// Freed with the last copy. Errors: ResourceExhausted.
  [[nodiscard]] Result<std::shared_ptr<void>> allocate(std::size_t bytes);
  /// Where [data, data + bytes) lies, if in memory from `allocate`.
  [[nodiscard]] std::optional<Place> find(const std::byte* data, std::size_t bytes) const;

 private:
  struct Entry {
    std::uint64_t id = 0;
    std::shared_ptr<const UniqueFd> fd;
    std::size_t bytes = 0;
  };

  mutable std::mutex mutex_;
  std::map<const std::byte*, Entry> entries_;  // by first address
  std::uint64_t next_id_ = 1;
};

}  // namespace coxswain::collective
