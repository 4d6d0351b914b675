#include "launcher/control/work_messages.h"

#include "common/bytes_io.h"
#include "proto/control.pb.h"
#include "proto/time_limits.h"

namespace coxswain::launcher {
namespace {

// Bounds of what measuring takes: a fresh run starts within seconds.
constexpr double kRatesSeconds = 2.0;
constexpr double kProfileSeconds = 8.0;

void set_model(control::ModelSource& source, const Job& job) {
  source.set_sequence_length(job.data.sequence_length);
  if (!job.model.pt2.empty()) {
    source.set_pt2(std::filesystem::absolute(job.model.pt2).string());
  } else if (job.model.config) {
    source.set_config_json(to_text(*job.model.config));
  } else if (auto text = read_file(job.model.huggingface_folder / "config.json")) {
    source.set_config_json(*text);
  }
}

control::Work make_work(control::Mode mode) {
  control::Work work;
  work.set_mode(mode);
  work.set_step_timeout_seconds(limits::kStep);
  work.set_connect_timeout_seconds(limits::kConnect);
  return work;
}

void set_train(control::TrainSettings& settings, const Job& job) {
  settings.set_learning_rate(job.optimizer.learning_rate);
  settings.set_beta1(job.optimizer.beta1);
  settings.set_beta2(job.optimizer.beta2);
  settings.set_epsilon(1e-8);
  settings.set_weight_decay(job.optimizer.weight_decay);
  settings.set_clip_grad_norm(job.optimizer.clip_grad_norm);
  settings.set_warmup_steps(job.optimizer.warmup_steps);
  settings.set_decay(job.optimizer.decay);
  settings.set_min_ratio(job.optimizer.min_ratio);
  if (job.data.tensors.empty())
    settings.set_text(std::filesystem::absolute(job.data.text).string());
  else
    settings.set_tensors(std::filesystem::absolute(job.data.tensors).string());
  settings.set_data_sequence_length(job.data.sequence_length);
  settings.set_data_seed(job.data.seed);
  settings.set_validation_fraction(job.validation.fraction);
  settings.set_validation_steps(job.validation.steps);
  settings.set_validation_every(job.validation.fraction > 0 ? job.validation.every_steps : 0);
  settings.set_steps(job.steps);
  settings.set_seed(job.seed);
  settings.set_skip_non_finite(job.optimizer.skip_non_finite);
}

}  // namespace

std::vector<std::int64_t> profile_samples(std::int64_t global_batch, std::int64_t micro_batch) {
  const std::int64_t largest = micro_batch > 0 ? micro_batch : global_batch;
  std::vector<std::int64_t> samples;
  for (std::int64_t n = 1; n < largest; n *= 2) samples.push_back(n);
  samples.push_back(largest);
  return samples;
}

std::string make_measure_work(const std::optional<Job>& job) {
  control::Work work = make_work(control::MODE_MEASURE);
  work.mutable_measure()->set_rates_budget_seconds(kRatesSeconds);
  if (job) {
    set_model(*work.mutable_model(), *job);
    set_train(*work.mutable_train(), *job);
    work.mutable_measure()->set_profile_budget_seconds(kProfileSeconds);
    work.mutable_measure()->set_precision(std::string(plan::to_text(job->precision)));
    for (std::int64_t n : profile_samples(job->global_batch, job->micro_batch)) work.mutable_measure()->add_samples(n);
  }
  return work.SerializeAsString();
}

std::string make_train_work(const Job& job, const TraceSteps& trace, const std::filesystem::path& directory,
                            const std::filesystem::path& from) {
  control::Work work = make_work(control::MODE_TRAIN);
  set_model(*work.mutable_model(), job);
  set_train(*work.mutable_train(), job);
  if (trace.any()) {
    work.mutable_trace()->set_first_step(trace.first);
    work.mutable_trace()->set_last_step(trace.last);
  }
  work.mutable_checkpoint()->set_directory(directory.string());
  work.mutable_checkpoint()->set_every_steps(job.checkpoint.every_steps);
  work.mutable_checkpoint()->set_from(from.string());
  return work.SerializeAsString();
}

std::string make_check_work(const std::filesystem::path& pt2) {
  control::Work work = make_work(control::MODE_CHECK);
  work.mutable_model()->set_pt2(std::filesystem::absolute(pt2).string());
  return work.SerializeAsString();
}

}  // namespace coxswain::launcher
