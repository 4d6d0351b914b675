#pragma once
// Models that were read for a request, with what was found out about them: the next request that names one begins with
// that. Called by plan_request. Threads: any.
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "common/result.h"
#include "common/units.h"
#include "cost_model/model_facts.h"

namespace coxswain::launcher {

class KnownModels {
 public:
  using Model = std::shared_ptr<const cost_model::KnownModel>;

  /// `most_kept`: bytes of all models, as far as KnownModel::kept_bytes counts them.
  explicit KnownModels(Bytes most_kept = Bytes(std::int64_t{64} << 20)) : most_kept_(most_kept) {}

  /// What was read under an equal key, else what `read` gives, which is kept. `key`: equal for equal models alone. The
  /// models that were asked for longest ago are let go once all take more than they may. Errors: of `read`.
  [[nodiscard]] Result<Model> get(const std::string& key, const std::function<Result<Model>()>& read);
  [[nodiscard]] std::size_t num_kept() const;

 private:
  struct Entry {
    std::string key;
    Model model;
  };

  void drop_oldest();

  const Bytes most_kept_;
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // asked for last first
};

}  // namespace coxswain::launcher
