// The coordinator's part in checkpoints: when ranks save, and when what they saved is a checkpoint.
#include <algorithm>

#include "launcher/control/coordinator_state.h"
#include "launcher/control/liveness.h"
#include "proto/control.pb.h"
#include "proto/error_json.h"

namespace coxswain::launcher {

void Coordinator::on_saved(int rank, std::string_view bytes, TimePoint now) {
  control::ShardSaved saved;
  saved.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  const checkpoint::Progress progress{saved.step(),          saved.next_sample(),
                                      saved.loss_scale(),    saved.steps_since_scaled(),
                                      saved.skipped_steps(), saved.skipped_in_a_row()};
  save_costs_.stall = std::max(save_costs_.stall, Seconds(saved.copy_seconds()));
  save_costs_.written = std::max(save_costs_.written, Seconds(saved.copy_seconds() + saved.write_seconds()));
  auto shard = saved.shard_json().empty()
                   ? Result<checkpoint::Shard>(proto::error_from_text(saved.error_json()))
                   : checkpoint::shard_from_json(parse_json(saved.shard_json()).value_or(Json()));
  shares_disk_ = !saved.spread();
  if (!saved.copy_error_json().empty())
    record(JsonObject{{"type", "checkpoint_not_copied"},
                      {"step", progress.step},
                      {"rank", rank},
                      {"cause", proto::error_from_text(saved.copy_error_json()).message}});
  auto complete =
      open_saves_.add(rank, static_cast<int>(ranks_.size()), progress, std::move(shard), Seconds(saved.copy_seconds()));
  if (!complete) return;
  if (complete->error) {
    checkpoint_failed(progress.step, *complete->error);
    plan_next_save(now);
  } else {
    ++publishing_;
    PublishCheckpoint publish{progress, std::move(complete->shards), plan_hash_, {}};
    if (!*shares_disk_) {
      const std::set<int> nodes = nodes_left();
      for (const int node : nodes) publish.agents.push_back(nodes_[static_cast<std::size_t>(node)].agent);
      std::vector<std::string> files;
      for (const checkpoint::Shard& each : publish.shards) files.push_back(each.file);
      spread_saves_.begin_storing(progress.step, nodes, std::move(files));
    }
    decisions_.emplace_back(std::move(publish));
  }
}

void Coordinator::on_stored(int node, std::string_view bytes, TimePoint now) {
  control::CheckpointStored stored;
  stored.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  Result<std::vector<std::string>> files(std::vector<std::string>(stored.files().begin(), stored.files().end()));
  if (!stored.error_json().empty()) {
    files = proto::error_from_text(stored.error_json());
    record(JsonObject{
        {"type", "checkpoint_not_copied"}, {"step", stored.step()}, {"node", node}, {"cause", files.error().message}});
  }
  if (auto done = spread_saves_.stored(node, stored.step(), std::move(files))) spread_stored(std::move(*done), now);
}

/// Only then may older ones go.
void Coordinator::spread_stored(SpreadSaves::Stored done, TimePoint now) {
  if (!done.error) {
    control::Work work;
    work.ParseFromString(settings_.train_work);
    control::AgentCommand command;
    command.mutable_prune()->set_directory(work.checkpoint().directory());
    command.mutable_prune()->set_keep(settings_.keep);
    command.mutable_prune()->set_step(done.step);
    send_to_all(command.SerializeAsString());
  }
  published(done.step, std::move(done.error), now);
}

void Coordinator::checkpoint_failed(std::int64_t step, const Error& error) {
  JsonObject event{{"type", "checkpoint_failed"}, {"step", step}, {"cause", error.message}, {"where", error.path}};
  if (const Seconds copy = open_saves_.copy(step); copy > Seconds(0)) event["copy_seconds"] = copy.value;
  if (!error.got.empty()) event["got"] = error.got;
  record(std::move(event));
  open_saves_.close(step);
  first_save_ended(false);
}

std::vector<Decision> Coordinator::checkpoint_published(std::int64_t step, std::optional<Error> error, TimePoint now) {
  published(step, std::move(error), now);
  return take();
}

void Coordinator::published(std::int64_t step, std::optional<Error> error, TimePoint now) {
  --publishing_;
  if (error) {
    checkpoint_failed(step, *error);
  } else {
    const Seconds copy = open_saves_.copy(step);
    open_saves_.close(step);
    last_saved_ = std::max(last_saved_, step);
    record(JsonObject{{"type", "checkpoint_saved"},
                      {"step", step},
                      {"copy_seconds", copy.value},
                      {"stall_seconds", save_costs_.stall.value},
                      {"write_seconds", save_costs_.written.value}});
    first_save_ended(true);
  }
  plan_next_save(now);
  finish_if_done(now);
}

/// One rank of one node is asked; the others learn of it at the step's commit point.
void Coordinator::ask_save(bool stop) {
  control::AgentCommand command;
  command.mutable_save()->set_stop(stop);
  decisions_.emplace_back(
      SendCommand{nodes_[static_cast<std::size_t>(bindings_.front().node)].agent, command.SerializeAsString()});
}

void Coordinator::plan_next_save(TimePoint now) {
  save_at_.reset();
  if (!settings_.saves || settings_.save_every > 0 || phase_ != Phase::Training || !training_since_) return;
  const Seconds elapsed(std::chrono::duration<double>(now - *training_since_).count());
  save_at_ = after(now, save_interval(save_costs_, elapsed, restarts_.count()).value);
}

/// The next node that is left, so that the loss of one loses nothing.
std::string Coordinator::copies_go_to(int node) const {
  for (std::size_t further = 1; further < nodes_.size(); ++further) {
    const Node& other = nodes_[(static_cast<std::size_t>(node) + further) % nodes_.size()];
    if (!other.gone && !other.files_address.empty()) return other.files_address;
  }
  return "";
}

}  // namespace coxswain::launcher
