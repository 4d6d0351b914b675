#pragma once
// What the coordinator does beside its loop, each in a thread of its own and each ended by one event: searching for a
// plan, comparing steps with what was predicted, publishing a checkpoint, finding the newest one.
// Threads: its methods by one; the event is handed over by the thread of the work.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "checkpoint/manifest.h"
#include "launcher/control/choose_plan.h"
#include "launcher/control/coordinator_input.h"
#include "launcher/control/recalibration.h"

namespace coxswain::launcher {

struct PlanReady {
  int search = 0;  // which one it answers
  std::shared_ptr<Result<PlanChoice>> choice;
};
struct LookReady {
  int generation = 0;
  std::shared_ptr<Result<Recalibration>> made;
};
using WorkDone = std::variant<PlanReady, LookReady, Publication, RecoveryPoint>;

class CoordinatorWork {
 public:
  using Done = std::function<void(WorkDone)>;
  /// `start`, `job` and `before` outlive it. Its end waits for what is under way.
  CoordinatorWork(const CoordinatorStart& start, const std::optional<Job>& job,
                  const std::optional<MeasuredBefore>& before, Done done)
      : start_(start), job_(job), before_(before), done_(std::move(done)) {}

  /// May take seconds. One that is still running is not waited for. `lost`: another plan runs.
  void choose(int number, Measurements measured, std::string backend, std::optional<LostNodes> lost);
  void look(LookRequest request, Measurements measured);
  /// One after the other: waits for the one before.
  void publish(checkpoint::Manifest manifest);
  /// Every byte is read. Where there is no checkpoint: what the run began with.
  void find_recovery();

 private:
  [[nodiscard]] Result<PlanChoice> plan_for(const Measurements& measured, const std::string& backend,
                                            const std::optional<LostNodes>& lost) const;

  const CoordinatorStart& start_;
  const std::optional<Job>& job_;
  const std::optional<MeasuredBefore>& before_;
  Done done_;
  std::vector<std::jthread> planners_;
  std::jthread publisher_, finder_;
};

}  // namespace coxswain::launcher
