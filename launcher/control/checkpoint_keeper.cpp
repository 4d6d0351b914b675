#include "launcher/control/checkpoint_keeper.h"

#include "checkpoint/folder.h"
#include "common/clock.h"
#include "common/log.h"
#include "launcher/control/liveness.h"
#include "proto/control.pb.h"
#include "proto/error_json.h"

namespace coxswain::launcher {
namespace {

control::CheckpointStored store(const control::StoreCheckpoint& command) {
  control::CheckpointStored stored;
  const auto files = guard("launcher", [&]() -> Result<std::vector<std::string>> {
    COX_TRY(const checkpoint::Manifest manifest, checkpoint::parse_manifest(command.manifest()));
    stored.set_step(manifest.progress.step);
    return checkpoint::publish_part(command.directory(), manifest);
  });
  if (!files) {
    stored.set_error_json(proto::error_to_text(files.error()));
    return stored;
  }
  for (const std::string& file : *files) stored.add_files(file);
  return stored;
}

void prune(const control::PruneCheckpoints& command) {
  const auto done = guard("launcher", [&]() -> Result<void> {
    return checkpoint::prune(command.directory(), command.keep(), command.step());
  });
  if (!done) log(LogLevel::Warn, "agent", "old checkpoints stay: " + done.error().message + ": " + done.error().path);
}

control::CheckpointsListed list(const control::ListCheckpoints& command) {
  control::CheckpointsListed listed;
  listed.set_generation(command.generation());
  const auto parts = guard("launcher", [&]() -> Result<std::vector<checkpoint::Part>> {
    return checkpoint::list_parts(command.directory());
  });
  if (!parts) log(LogLevel::Warn, "agent", "cannot look for checkpoints: " + parts.error().message);
  for (const checkpoint::Part& part : parts ? *parts : std::vector<checkpoint::Part>()) {
    control::CheckpointPart& to = *listed.add_parts();
    to.set_manifest(part.manifest);
    for (const std::string& file : part.files) to.add_files(file);
  }
  return listed;
}

}  // namespace

std::string keep_checkpoints(std::string_view bytes) {
  control::AgentCommand command;
  control::AgentReport report;
  command.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  if (command.has_prune()) {
    prune(command.prune());
    return "";
  }
  if (command.has_store())
    *report.mutable_stored() = store(command.store());
  else
    *report.mutable_listed() = list(command.list());
  return report.SerializeAsString();
}

CheckpointKeeper::CheckpointKeeper(Report report) : report_(std::move(report)), thread_([this] { work(); }) {}

CheckpointKeeper::~CheckpointKeeper() { commands_.push(""); }

bool CheckpointKeeper::take(std::string_view bytes) {
  control::AgentCommand command;
  if (!command.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return false;
  if (!command.has_store() && !command.has_list() && !command.has_prune()) return false;
  commands_.push(std::string(bytes));
  return true;
}

void CheckpointKeeper::work() {
  constexpr double kLongSeconds = 3600;  // an idle look, no limit
  for (;;) {
    const auto command = commands_.pop(after(steady_clock().now(), kLongSeconds));
    if (!command) continue;
    if (command->empty()) return;
    if (std::string report = keep_checkpoints(*command); !report.empty()) report_(std::move(report));
  }
}

}  // namespace coxswain::launcher
