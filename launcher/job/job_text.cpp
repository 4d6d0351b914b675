// The job written back, with absolute paths.
#include <yaml-cpp/yaml.h>

#include "launcher/job/job.h"

namespace coxswain::launcher {
namespace {

std::string absolute_text(const std::filesystem::path& path) {
  return std::filesystem::absolute(path).lexically_normal().string();
}

void emit_model(YAML::Emitter& out, const JobModel& model) {
  out << YAML::Key << "model" << YAML::Value;
  if (model.config) {
    // JSON is YAML.
    out << YAML::BeginMap << YAML::Key << "config" << YAML::Value << YAML::Load(to_text(*model.config)) << YAML::EndMap;
    return;
  }
  out << YAML::Flow << YAML::BeginMap;
  if (!model.pt2.empty())
    out << YAML::Key << "pt2" << YAML::Value << absolute_text(model.pt2);
  else
    out << YAML::Key << "huggingface" << YAML::Value << absolute_text(model.huggingface_folder);
  out << YAML::EndMap;
}

void emit_data(YAML::Emitter& out, const JobData& data) {
  const bool is_text = data.tensors.empty();
  out << YAML::Key << "data" << YAML::Value << YAML::Flow << YAML::BeginMap << YAML::Key
      << (is_text ? "text" : "tensors") << YAML::Value << absolute_text(is_text ? data.text : data.tensors);
  if (data.sequence_length > 0) out << YAML::Key << "sequence_length" << YAML::Value << data.sequence_length;
  out << YAML::Key << "seed" << YAML::Value << data.seed << YAML::EndMap;
}

void emit_plan(YAML::Emitter& out, const Job& job) {
  if (!job.plan_file.empty()) {
    out << YAML::Key << "plan" << YAML::Value << absolute_text(job.plan_file);
    return;
  }
  if (job.constraint_texts.empty()) return;
  out << YAML::Key << "plan" << YAML::Value << YAML::BeginMap;
  for (const auto& text : job.constraint_texts) {
    const auto equals = text.find('=');
    const std::string value = text.substr(equals + 1);
    const bool alternatives = value.find(',') != std::string::npos && !value.starts_with('[');
    out << YAML::Key << text.substr(0, equals) << YAML::Value;
    if (value.starts_with("csv:")) {
      out << YAML::DoubleQuoted << value;
      continue;
    }
    out << YAML::Load(alternatives ? "[" + value + "]" : value);
  }
  out << YAML::EndMap;
}

void emit_checkpoint(YAML::Emitter& out, const JobCheckpoint& checkpoint) {
  out << YAML::Key << "checkpoint" << YAML::Value << YAML::Flow << YAML::BeginMap;
  if (!checkpoint.directory.empty())
    out << YAML::Key << "directory" << YAML::Value << absolute_text(checkpoint.directory);
  if (checkpoint.every_steps > 0) out << YAML::Key << "every_steps" << YAML::Value << checkpoint.every_steps;
  out << YAML::Key << "keep" << YAML::Value << checkpoint.keep << YAML::EndMap;
}

}  // namespace

std::string to_yaml(const Job& job) {
  YAML::Emitter out;
  out.SetDoublePrecision(17);
  out << YAML::BeginMap << YAML::Key << "name" << YAML::Value << job.name;
  emit_model(out, job.model);
  emit_data(out, job.data);
  if (job.validation.fraction > 0 || job.validation.steps > 0)
    out << YAML::Key << "validation" << YAML::Value << YAML::Flow << YAML::BeginMap << YAML::Key << "fraction"
        << YAML::Value << job.validation.fraction << YAML::Key << "every_steps" << YAML::Value
        << job.validation.every_steps << YAML::Key << "steps" << YAML::Value << job.validation.steps << YAML::EndMap;
  out << YAML::Key << "batch" << YAML::Value << YAML::Flow << YAML::BeginMap << YAML::Key << "global" << YAML::Value
      << job.global_batch << YAML::Key << "micro" << YAML::Value
      << (job.micro_batch > 0 ? std::to_string(job.micro_batch) : "auto") << YAML::EndMap;
  out << YAML::Key << "precision" << YAML::Value << std::string(plan::to_text(job.precision));
  const auto& o = job.optimizer;
  out << YAML::Key << "optimizer" << YAML::Value << YAML::Flow << YAML::BeginMap << YAML::Key << "name" << YAML::Value
      << "adamw" << YAML::Key << "learning_rate" << YAML::Value << o.learning_rate << YAML::Key << "betas"
      << YAML::Value << YAML::BeginSeq << o.beta1 << o.beta2 << YAML::EndSeq << YAML::Key << "weight_decay"
      << YAML::Value << o.weight_decay;
  if (o.clip_grad_norm > 0) out << YAML::Key << "clip_grad_norm" << YAML::Value << o.clip_grad_norm;
  out << YAML::Key << "warmup_steps" << YAML::Value << o.warmup_steps << YAML::Key << "decay" << YAML::Value << o.decay
      << YAML::Key << "min_ratio" << YAML::Value << o.min_ratio;
  if (o.skip_non_finite) out << YAML::Key << "non_finite" << YAML::Value << "skip";
  out << YAML::EndMap;
  out << YAML::Key << "train" << YAML::Value << YAML::Flow << YAML::BeginMap << YAML::Key << "steps" << YAML::Value
      << job.steps << YAML::Key << "seed" << YAML::Value << job.seed << YAML::Key << "log_every" << YAML::Value
      << job.log_every << YAML::EndMap;
  emit_checkpoint(out, job.checkpoint);
  out << YAML::Key << "elastic" << YAML::Value << YAML::Flow << YAML::BeginMap << YAML::Key << "min_nodes"
      << YAML::Value << job.min_nodes;
  if (job.max_nodes > 0) out << YAML::Key << "max_nodes" << YAML::Value << job.max_nodes;
  out << YAML::Key << "max_restarts" << YAML::Value << job.max_restarts << YAML::EndMap;
  if (!job.cluster_file.empty()) out << YAML::Key << "cluster" << YAML::Value << absolute_text(job.cluster_file);
  emit_plan(out, job);
  if (!job.environment.empty()) {
    out << YAML::Key << "environment" << YAML::Value << YAML::BeginMap;
    for (const auto& [key, value] : job.environment)
      out << YAML::Key << key << YAML::Value << YAML::DoubleQuoted << value;
    out << YAML::EndMap;
  }
  out << YAML::EndMap;
  return std::string(out.c_str()) + "\n";
}

}  // namespace coxswain::launcher
