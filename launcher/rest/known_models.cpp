#include "launcher/rest/known_models.h"

#include <algorithm>
#include <utility>

namespace coxswain::launcher {

Result<KnownModels::Model> KnownModels::get(const std::string& key, const std::function<Result<Model>()>& read) {
  {
    const std::lock_guard lock(mutex_);
    const auto found =
        std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.key == key; });
    if (found != entries_.end()) {
      entries_.splice(entries_.begin(), entries_, found);
      const Model model = found->model;
      drop_oldest();
      return model;
    }
  }
  COX_TRY(Model model, read());
  const std::lock_guard lock(mutex_);
  // One that somebody else read meanwhile is behind it, and goes first.
  entries_.push_front({key, model});
  drop_oldest();
  return model;
}

// What is known of a model grows while it is planned for: one that takes too much by itself is read anew.
void KnownModels::drop_oldest() {
  Bytes kept{0};
  for (const Entry& entry : entries_) kept += entry.model->kept_bytes();
  while (kept > most_kept_) {
    kept = kept - entries_.back().model->kept_bytes();
    entries_.pop_back();
  }
}

std::size_t KnownModels::num_kept() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

}  // namespace coxswain::launcher
