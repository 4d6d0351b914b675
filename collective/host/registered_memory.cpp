#include "collective/host/registered_memory.h"

namespace coxswain::collective {

Result<std::shared_ptr<void>> RegisteredMemory::allocate(std::size_t bytes) {
  const std::size_t whole = bytes == 0 ? 1 : bytes;
  COX_TRY(UniqueFd fd, Mapping::make_memory(whole));
  COX_TRY(Mapping mapping, Mapping::map(fd, whole));
  auto owner = std::make_shared<Mapping>(std::move(mapping));
  const std::byte* first = owner->data();
  {
    const std::lock_guard lock(mutex_);
    entries_[first] = {next_id_++, std::make_shared<const UniqueFd>(std::move(fd)), whole};
  }
  void* data = owner->data();
  // Out of the table before the address can be given to somebody else.
  return std::shared_ptr<void>(data, [owner = std::move(owner), registry = shared_from_this(), first](void*) mutable {
    const std::lock_guard lock(registry->mutex_);
    registry->entries_.erase(first);
    owner.reset();
  });
}

std::optional<RegisteredMemory::Place> RegisteredMemory::find(const std::byte* data, std::size_t bytes) const {
  const std::lock_guard lock(mutex_);
  auto entry = entries_.upper_bound(data);
  if (entry == entries_.begin()) return std::nullopt;
  --entry;
  const auto offset = static_cast<std::size_t>(data - entry->first);
  if (offset + bytes > entry->second.bytes) return std::nullopt;
  return Place{entry->second.id, offset, entry->second.bytes, entry->second.fd};
}

}  // namespace coxswain::collective
