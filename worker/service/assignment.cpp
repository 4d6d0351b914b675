#include "worker/service/assignment.h"

#include "common/json.h"
#include "model/load.h"
#include "proto/control.pb.h"
#include "worker/service/progress_message.h"

namespace coxswain::worker {
namespace {

TrainSettings decode_settings(const control::TrainSettings& from, int threads) {
  TrainSettings settings;
  settings.optimizer.learning_rate = from.learning_rate();
  settings.optimizer.beta1 = from.beta1();
  settings.optimizer.beta2 = from.beta2();
  settings.optimizer.epsilon = from.epsilon();
  settings.optimizer.weight_decay = from.weight_decay();
  settings.optimizer.clip_grad_norm = from.clip_grad_norm();
  settings.optimizer.warmup_steps = from.warmup_steps();
  settings.optimizer.decay = from.decay();
  settings.optimizer.min_ratio = from.min_ratio();
  settings.optimizer.skip_non_finite = from.skip_non_finite();
  settings.data.text = from.text();
  settings.data.tensors = from.tensors();
  settings.data.sequence_length = from.data_sequence_length();
  settings.data.seed = from.data_seed();
  settings.data.validation_fraction = from.validation_fraction();
  settings.data.validation_steps = from.validation_steps();
  settings.steps = from.steps();
  settings.seed = from.seed();
  settings.threads = threads;
  return settings;
}

}  // namespace

Result<Assignment> decode_assignment(std::string_view bytes) {
  control::WorkerCommand command;
  if (!command.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) || !command.has_assignment()) {
    return Error{ErrorCode::Internal, "the agent sent no assignment", "", "", "", ""};
  }
  const control::Assignment& from = command.assignment();
  const control::Work& work = from.work();
  Assignment assignment;
  assignment.mode = work.mode() == control::MODE_MEASURE ? Mode::Measure
                    : work.mode() == control::MODE_CHECK ? Mode::Check
                                                         : Mode::Train;
  assignment.rank = from.rank();
  assignment.world_size = work.world_size();
  assignment.generation = work.generation();
  assignment.run_id = work.run_id();
  assignment.backend = work.backend();
  assignment.node = from.node();
  assignment.nodes = {from.nodes().begin(), from.nodes().end()};
  assignment.num_nodes = from.num_nodes();
  assignment.local_addr = from.local_addr();
  assignment.scratch_dir = from.scratch_dir();
  assignment.device_class = from.device_class();
  assignment.log_folder = from.log_folder();
  assignment.pt2 = work.model().pt2();
  assignment.config_json = work.model().config_json();
  assignment.sequence_length = work.model().sequence_length();
  assignment.plan_json = work.plan_json();
  assignment.settings = decode_settings(work.train(), from.threads());
  assignment.settings.precision = plan::parse_precision(work.measure().precision()).value_or(plan::Precision::Float32);
  assignment.validation_every = work.train().validation_every();
  if (work.trace().first_step() > 0)
    assignment.traced_steps.emplace_back(work.trace().first_step(), work.trace().last_step());
  for (const control::TraceSettings& look : work.looks())
    assignment.traced_steps.emplace_back(look.first_step(), look.last_step());
  assignment.checkpoint_directory = work.checkpoint().directory();
  assignment.checkpoint_every = work.checkpoint().every_steps();
  assignment.checkpoint_from = work.checkpoint().from();
  if (work.checkpoint().has_from_memory()) {
    assignment.from_memory = progress_of(work.checkpoint().from_memory().state());
    assignment.from_memory_generation = work.checkpoint().from_memory().generation();
  }
  if (work.checkpoint().sharing() != control::SHARING_UNKNOWN)
    assignment.shares_checkpoints = work.checkpoint().sharing() == control::SHARING_ALL;
  assignment.from_manifest = work.checkpoint().from_manifest();
  for (const control::ShardHolders& shard : work.checkpoint().holders())
    assignment.holders[shard.file()] = {shard.addresses().begin(), shard.addresses().end()};
  assignment.files_address = from.files_address();
  assignment.copy_to = from.copy_to();
  assignment.profile_samples = {work.measure().samples().begin(), work.measure().samples().end()};
  assignment.rates_budget = Seconds(work.measure().rates_budget_seconds());
  assignment.profile_budget = Seconds(work.measure().profile_budget_seconds());
  assignment.step_timeout = Seconds(work.step_timeout_seconds());
  assignment.connect_timeout = Seconds(work.connect_timeout_seconds());
  assignment.action_timeout = Seconds(work.action_timeout_seconds());
  assignment.stall_timeout = Seconds(work.stall_timeout_seconds());
  return assignment;
}

Result<model::ModelGraph> load_graph(const Assignment& assignment) {
  if (!assignment.pt2.empty()) return model::load_pt2(assignment.pt2);
  COX_TRY(const Json config, parse_json(assignment.config_json));
  return model::build_from_config(config, {assignment.sequence_length});
}

}  // namespace coxswain::worker
