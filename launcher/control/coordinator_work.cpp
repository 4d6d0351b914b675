#include "launcher/control/coordinator_work.h"

#include "checkpoint/folder.h"

namespace coxswain::launcher {

Result<PlanChoice> CoordinatorWork::plan_for(const Measurements& measured, const std::string& backend,
                                             const std::optional<LostNodes>& lost) const {
  if (start_.mode == RunMode::Check) return PlanChoice{};
  if (lost) return plan_again(start_, *job_, measured, before_, *lost);
  if (start_.mode == RunMode::Train) return choose_plan(start_, *job_, measured, backend, before_);
  PlanChoice probe;
  COX_TRY(probe.cluster, build_cluster(measured));
  return probe;
}

void CoordinatorWork::choose(int number, Measurements measured, std::string backend, std::optional<LostNodes> lost) {
  planners_.emplace_back(
      [this, number, measured = std::move(measured), backend = std::move(backend), lost = std::move(lost)] {
        auto choice = std::make_shared<Result<PlanChoice>>(
            guard("launcher", [&]() -> Result<PlanChoice> { return plan_for(measured, backend, lost); }));
        done_(PlanReady{number, std::move(choice)});
      });
}

void CoordinatorWork::look(LookRequest request, Measurements measured) {
  planners_.emplace_back([this, request = std::move(request), measured = std::move(measured)] {
    auto made = std::make_shared<Result<Recalibration>>(
        guard("launcher", [&] { return recalibrate(start_, *job_, measured, before_, request); }));
    done_(LookReady{request.generation, std::move(made)});
  });
}

void CoordinatorWork::publish(checkpoint::Manifest manifest) {
  if (publisher_.joinable()) publisher_.join();
  publisher_ = std::jthread([this, manifest = std::move(manifest)] {
    const std::int64_t step = manifest.progress.step;
    const auto published = guard("launcher", [&]() -> Result<void> {
      COX_TRY_VOID(checkpoint::publish(start_.checkpoint_directory, manifest));
      return checkpoint::prune(start_.checkpoint_directory, job_->checkpoint.keep, step);
    });
    done_(Publication{step, published ? std::nullopt : std::optional<Error>(published.error())});
  });
}

void CoordinatorWork::find_recovery() {
  if (finder_.joinable()) finder_.join();
  finder_ = std::jthread([this] {
    RecoveryPoint point;
    checkpoint::Search search = checkpoint::find_newest(start_.checkpoint_directory);
    point.rejected = std::move(search.rejected);
    if (search.newest) {
      point.folder = search.newest->folder.string();
      point.step = search.newest->manifest.progress.step;
    } else {
      point.folder = start_.resume_from.string();
      point.step = start_.resume_step;
    }
    done_(std::move(point));
  });
}

}  // namespace coxswain::launcher
