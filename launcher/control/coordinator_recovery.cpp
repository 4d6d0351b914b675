// Failures, as the coordinator sees them: which one is the cause, whether the run goes on, from which checkpoint and
// under which plan.
#include <algorithm>

#include "checkpoint/folder.h"
#include "launcher/control/coordinator_state.h"
#include "launcher/control/liveness.h"
#include "proto/control.pb.h"
#include "proto/error_json.h"
#include "proto/time_limits.h"

namespace coxswain::launcher {
namespace {

// The first checkpoint, which shows what one costs.
constexpr double kFirstSaveSeconds = 60;
// Where a generation that began from memory takes no step, it may be for want of memory; or something else failed just
// then, as may happen once.
constexpr int kMostMemoryStarts = 2;

const char* from_words(const RecoveryPoint& point) {
  if (point.memory) return "memory";
  return point.folder.empty() ? "weights" : "checkpoint";
}

}  // namespace

void Coordinator::suspect(Failure failure, TimePoint now) {
  if (phase_ != Phase::Measuring && phase_ != Phase::Training) return;
  if (suspected_ && (suspected_->primary || !failure.primary)) return;
  suspect_until_ = after(now, failure.primary ? limits::kFailedExit : limits::kPeerLost);
  suspected_ = std::move(failure);
  if (!suspected_since_) suspected_since_ = now;
  // The others would wait for a peer that is gone.
  control::AgentCommand command;
  command.set_abort("rank " + std::to_string(suspected_->rank) + " failed");
  send_to_all(command.SerializeAsString());
}

void Coordinator::fail(Failure failure, TimePoint now) {
  if (phase_ == Phase::Ending || phase_ == Phase::Ended) return;
  // Whoever failed by itself and spoke first is the cause, whichever exit arrives first.
  if (suspected_ && suspected_->primary && suspected_->rank != failure.rank) failure = *suspected_;
  const bool between =
      generation_ > 0 && (phase_ == Phase::Stopping || phase_ == Phase::Recovering || phase_ == Phase::Replanning);
  if (between && !failure.node_lost && failure.rank >= 0) return;  // follows from a generation's end
  const bool training = generation_ > 0;
  if (failure.node_lost) {
    if (between && enough_nodes()) return finish_if_done(now);  // the next generation does without it
    if (phase_ == Phase::Training && enough_nodes() && ranks_on(failure.node).empty()) return;  // nobody misses it
  } else if (training && failure.rank >= 0) {
    JsonObject event{{"type", "worker_failed"},
                     {"rank", failure.rank},
                     {"node", failure.node},
                     {"cause", failure.cause},
                     {"suspected_seconds", suspected_seconds(now)}};
    if (!failure.evidence.empty()) event["evidence"] = failure.evidence;
    if (!failure.log.empty()) event["log"] = failure.log;
    record(std::move(event));
  }
  const bool restarts = may_restart(failure, now);
  failure_ = std::move(failure);
  if (restarts) return stop_for_restart(now);
  stop_everything(0, now);
}

/// Since the first word of it.
double Coordinator::suspected_seconds(TimePoint now) const {
  return suspected_since_ ? std::chrono::duration<double>(now - *suspected_since_).count() : 0;
}

bool Coordinator::enough_nodes() const {
  const auto left = static_cast<int>(nodes_.size() - lost_nodes_.size());
  return left >= std::max(1, settings_.min_nodes);
}

std::vector<int> Coordinator::ranks_on(int node) const {
  std::vector<int> ranks;
  for (std::size_t rank = 0; rank < bindings_.size(); ++rank) {
    if (bindings_[rank].node == node) ranks.push_back(static_cast<int>(rank));
  }
  return ranks;
}

bool Coordinator::plan_needs_lost() const {
  return std::any_of(bindings_.begin(), bindings_.end(),
                     [this](const RankBinding& rank) { return nodes_[static_cast<std::size_t>(rank.node)].gone; });
}

bool Coordinator::may_restart(const Failure& failure, TimePoint now) const {
  if (phase_ != Phase::Training || stop_signal_ != 0) return false;
  if (failure.node_lost ? !enough_nodes() : failure.rank < 0) return false;
  // A checkpoint that was whole when it was looked at and is damaged now: the next look finds it so, and an older one.
  const bool damaged = from_checkpoint_ && failure.error && failure.error->code == ErrorCode::DataLoss;
  if (is_bad_input(failure) && !damaged) return false;
  return restarts_.allows(point_of(failure), now);
}

FailurePoint Coordinator::point_of(const Failure& failure) const {
  if (failure.node_lost) return {last_step_, failure.cause + " (node " + std::to_string(failure.node) + ")"};
  return {last_step_, failure.error ? std::string(to_text(failure.error->code)) : failure.cause};
}

bool Coordinator::is_hopeless() const {
  return failure_ && failure_->rank >= 0 && !failure_->node_lost && restarts_.is_hopeless(point_of(*failure_));
}

/// A generation ends with all its processes, so that nothing of it is left to meet the next one.
void Coordinator::stop_for_restart(TimePoint now) {
  // A failure on the way to the failed step is part of the same outage.
  if (!failed_since_) {
    failed_since_ = now;
    failed_step_ = last_step_;
  }
  restarts_.add(point_of(*failure_), now);
  const bool on_its_way = growth_ == Growth::Proving || growth_ == Growth::Moving;
  const bool for_same_nodes = on_its_way && !came_back(planned_without_);
  if (growth_ != Growth::None) growth_ = for_same_nodes ? Growth::None : Growth::Wanted;  // once the run goes on
  next_plan_.reset();
  stop_everything(0, now, Phase::Stopping);
}

/// What ranks that let go of their generation hold of its last step. All steps up to it are taken then: those that a
/// rank which is gone did not tell of any more are recorded without it.
std::optional<RecoveryPoint> Coordinator::point_in_memory(TimePoint) {
  const auto held = held_states_.newest(bindings_);
  if (!held || memory_starts_ >= kMostMemoryStarts) return std::nullopt;
  const std::int64_t step = held->progress.step;
  if (step < last_step_ || !open_steps_.tells_of(last_step_ + 1, step)) return std::nullopt;
  while (last_step_ < step) {
    StepRow row = open_steps_.take(generation_);
    if (row.skipped) record(skip_event(row));
    last_step_ = row.step;
    memory_starts_ = 0;
    decisions_.emplace_back(RecordStep{std::move(row)});
  }
  RecoveryPoint point;
  point.step = step;
  point.memory = held;
  return point;
}

void Coordinator::find_checkpoint(TimePoint now) {
  phase_ = Phase::Recovering;
  const bool asks_nodes = asks_newcomers_ || (shares_disk_ ? !*shares_disk_ : settings_.asks_nodes);
  if (!asks_nodes) {
    decisions_.emplace_back(FindCheckpoint{});
    return;
  }
  control::Work work;
  work.ParseFromString(settings_.train_work);
  control::AgentCommand command;
  command.mutable_list()->set_generation(generation_);
  command.mutable_list()->set_directory(work.checkpoint().directory());
  spread_saves_.begin_listing(nodes_left());
  list_by_ = after(now, limits::kListing);
  send_to_all(command.SerializeAsString());
}

/// Whoever has not told by now holds nothing.
void Coordinator::end_listing(TimePoint now) {
  for (const int node : spread_saves_.end_listing())
    record(JsonObject{{"type", "checkpoint_rejected"},
                      {"cause", "node " + std::to_string(node) + " did not tell in time what it holds"},
                      {"where", nodes_[static_cast<std::size_t>(node)].host}});
  list_by_.reset();
  if (phase_ != Phase::Recovering) return;
  begun_by_listing_ = generation_ > 0;
  go_on_from(newest_spread(), now);
}

void Coordinator::on_listed(int node, std::string_view bytes, TimePoint now) {
  control::CheckpointsListed listed;
  listed.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  if (phase_ != Phase::Recovering || listed.generation() != generation_) return;
  std::vector<checkpoint::HeldPart> parts;
  for (const control::CheckpointPart& part : listed.parts())
    parts.push_back({node, part.manifest(), {part.files().begin(), part.files().end()}});
  if (spread_saves_.listed(node, std::move(parts))) end_listing(now);
}

RecoveryPoint Coordinator::newest_spread() const {
  control::Work work;
  work.ParseFromString(settings_.train_work);
  // Disks may hold checkpoints of other runs, and of what this one went back from.
  const auto is_own = [this](const checkpoint::Manifest& manifest) {
    return generation_ == 0 || (manifest.model_hash == settings_.model_hash && manifest.progress.step <= last_step_);
  };
  const auto newest = checkpoint::find_newest_spread(spread_saves_.parts(), is_own);
  if (!newest) return {work.checkpoint().from(), settings_.first_step, {}, "", {}};
  const std::int64_t step = newest->manifest.progress.step;
  return {checkpoint::folder_of(work.checkpoint().directory(), step).string(), step, {}, newest->text, newest->holders};
}

/// Every shard is on a node that is left; of what is in memory, every element in a process that is used again.
bool Coordinator::in_reach(const RecoveryPoint& point) const {
  if (point.memory) return held_states_.newest(bindings_) == point.memory;
  return std::all_of(point.holders.begin(), point.holders.end(), [this](const auto& holder) {
    return std::any_of(holder.second.begin(), holder.second.end(),
                       [this](int node) { return !nodes_[static_cast<std::size_t>(node)].gone; });
  });
}

/// What a node that is lost held, or was still to answer.
void Coordinator::lose_parts(int node, TimePoint now) {
  for (auto& done : spread_saves_.lose(node)) spread_stored(std::move(done), now);
  if (spread_saves_.lose_listing(node)) end_listing(now);
}

std::vector<Decision> Coordinator::recovery_found(const RecoveryPoint& point, TimePoint now) {
  if (phase_ == Phase::Recovering) {
    begun_by_listing_ = false;
    go_on_from(point, now);
  }
  return take();
}

void Coordinator::go_on_from(const RecoveryPoint& point, TimePoint now) {
  if (generation_ == 0) return begin_from(point, now);
  for (const Error& rejected : point.rejected)
    record(JsonObject{{"type", "checkpoint_rejected"}, {"cause", rejected.message}, {"where", rejected.path}});
  recovery_ = point;
  if (plan_needs_lost())
    choose_again(now);
  else
    start_when_allowed(now);
}

void Coordinator::choose_again(TimePoint now) {
  // A rank's own failure may have hidden the loss of its node.
  if (!enough_nodes()) return stop_everything(0, now);
  phase_ = Phase::Replanning;
  start_at_.reset();
  decisions_.emplace_back(ChoosePlan{});
}

void Coordinator::start_when_allowed(TimePoint now) {
  const Seconds wait = restarts_.back_off();
  start_at_ = after(now, wait.value);
  if (wait == Seconds(0)) start_again(now);
}

void Coordinator::start_again(TimePoint now) {
  if (plan_needs_lost()) return choose_again(now);
  start_at_.reset();
  if (!in_reach(recovery_)) return find_checkpoint(now);
  held_states_.clear();
  phase_ = Phase::Training;
  ++generation_;
  JsonObject event{{"type", "generation_started"},
                   {"generation", generation_},
                   {"ranks", static_cast<int>(bindings_.size())},
                   {"nodes", static_cast<int>(nodes_.size())},
                   {"after_step", recovery_.step},
                   {"from", from_words(recovery_)},
                   {"kept_processes", num_kept_}};
  if (failure_) {
    event["failed_rank"] = failure_->rank;
    event["failed_node"] = failure_->node;
    event["cause"] = failure_->cause;
    event["restarts"] = restarts_.count();
  }
  record(std::move(event));
  failure_.reset();
  memory_starts_ = recovery_.memory ? memory_starts_ + 1 : 0;
  last_step_ = recovery_.step;
  first_save_asked_ = false;
  if (asks_newcomers_) shares_disk_.reset();
  asks_newcomers_ = false;
  start_generation(work_from(recovery_), std::vector<RankBinding>(bindings_), plan_json_, now);
  plan_next_save(now);
}

std::string Coordinator::work_from(const RecoveryPoint& point) const {
  control::Work work;
  work.ParseFromString(settings_.train_work);
  work.mutable_checkpoint()->set_from(point.folder);
  if (point.memory) {
    control::HeldState& held = *work.mutable_checkpoint()->mutable_from_memory();
    held.set_generation(point.memory->generation);
    const checkpoint::Progress& progress = point.memory->progress;
    control::ShardSaved& state = *held.mutable_state();
    state.set_step(progress.step);
    state.set_next_sample(progress.next_sample);
    state.set_loss_scale(progress.loss_scale);
    state.set_steps_since_scaled(progress.steps_since_scaled);
    state.set_skipped_steps(progress.skipped_steps);
    state.set_skipped_in_a_row(progress.skipped_in_a_row);
  }
  if (shares_disk_) work.mutable_checkpoint()->set_sharing(*shares_disk_ ? control::SHARING_ALL : control::SHARING_NOT);
  work.mutable_checkpoint()->set_from_manifest(point.manifest);
  for (const auto& [file, holders] : point.holders) {
    control::ShardHolders& to = *work.mutable_checkpoint()->add_holders();
    to.set_file(file);
    for (const int node : holders) {
      const Node& holder = nodes_[static_cast<std::size_t>(node)];
      if (!holder.gone) to.add_addresses(holder.files_address);
    }
  }
  return work.SerializeAsString();
}

void Coordinator::tell_recovered(std::int64_t step, TimePoint now) {
  record(JsonObject{{"type", "recovered"},
                    {"generation", generation_},
                    {"step", step},
                    {"seconds", std::chrono::duration<double>(now - *failed_since_).count()},
                    {"steps_lost", std::max<std::int64_t>(failed_step_ - recovery_.step, 0)}});
  memory_starts_ = 0;
  failed_since_.reset();
  restarts_.recovered();
}

/// As find_resume_point refuses what node 0 holds.
std::optional<Error> Coordinator::unfit_to_begin(const RecoveryPoint& point) const {
  const auto manifest = checkpoint::parse_manifest(point.manifest);
  if (!manifest) return manifest.error();
  if (manifest->model_hash != settings_.model_hash)
    return Error{ErrorCode::InvalidArgument,
                 "the checkpoint is of another model",
                 point.folder,
                 settings_.model_hash,
                 manifest->model_hash,
                 "train the model that it was saved from, or start anew with --resume never"};
  if (point.step >= total_steps_)
    return Error{ErrorCode::InvalidArgument,
                 "all steps are taken already",
                 point.folder,
                 "fewer than train.steps = " + std::to_string(total_steps_),
                 std::to_string(point.step),
                 "raise train.steps, or start anew with --resume never and another checkpoint.directory"};
  return std::nullopt;
}

/// The first generation. `point` without a folder: from where settings_.train_work says.
void Coordinator::begin_from(const RecoveryPoint& point, TimePoint now) {
  const bool found = !point.manifest.empty() && point.step >= settings_.first_step;
  if (found) {
    if (auto unfit = unfit_to_begin(point)) {
      Failure failure;
      failure.cause = unfit->message;
      failure.error = std::move(unfit);
      return fail(std::move(failure), now);
    }
    if (point.step > settings_.first_step)  // else node 0 alone found it, and it is told
      record(JsonObject{{"type", "checkpoint_loaded"}, {"step", point.step}, {"folder", point.folder}});
    last_step_ = point.step;
  }
  phase_ = Phase::Training;
  generation_ = 1;
  record(JsonObject{{"type", "generation_started"},
                    {"generation", generation_},
                    {"ranks", static_cast<int>(bindings_.size())},
                    {"nodes", static_cast<int>(nodes_.size())}});
  training_since_ = now;
  if (settings_.saves && settings_.save_every == 0) save_at_ = after(now, kFirstSaveSeconds);
  start_generation(found ? work_from(point) : settings_.train_work, std::vector<RankBinding>(bindings_), plan_json_,
                   now);
  for (const Newcomer& newcomer : std::exchange(newcomers_, {})) take_in(newcomer);
}

}  // namespace coxswain::launcher
