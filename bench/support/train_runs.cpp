#include "bench/support/train_runs.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>

namespace coxswain::bench {
namespace {

void run_or_exit(const std::vector<std::string>& arguments) {
  const auto result = run_process(arguments, 300);
  if (result.exit_code == 0) return;
  std::fprintf(stderr, "%s failed (%d)\n%s%s\n", arguments[0].c_str(), result.exit_code, result.output.c_str(),
               result.errors.c_str());
  std::exit(1);
}

std::vector<double> numbers(const Json& json) {
  std::vector<double> values;
  if (json.is_array())
    for (const auto& item : json.array()) values.push_back(item.number());
  return values;
}

}  // namespace

std::filesystem::path make_example(const ModelSize& size) {
  const auto folder = make_scratch_folder("example");
  const auto source = source_folder();
  run_or_exit({(source / ".venv/bin/python").string(), (source / "examples/gpt/export.py").string(), "--out",
               (folder / "gpt.pt2").string(), "--layers", std::to_string(size.layers), "--width",
               std::to_string(size.width), "--heads", std::to_string(size.heads), "--context",
               std::to_string(size.context), "--dropout", std::to_string(size.dropout)});
  run_or_exit({"sh", (source / "examples/gpt/text.sh").string(), (folder / "kjv.txt").string()});
  return folder;
}

std::vector<std::filesystem::path> make_family_models(const std::vector<std::string>& size) {
  const auto folder = make_scratch_folder("models");
  std::vector<std::string> line{(source_folder() / ".venv/bin/python").string(),
                                (source_folder() / "tests/model/make_models.py").string(), folder.string()};
  line.insert(line.end(), size.begin(), size.end());
  run_or_exit(line);
  std::vector<std::filesystem::path> models;
  for (const char* name : {"gpt2", "llama", "bert", "vit", "moe"})
    models.push_back(folder / (std::string(name) + ".pt2"));
  return models;
}

void write_text(const std::filesystem::path& path, std::uint64_t seed) {
  std::ofstream out(path, std::ios::binary);
  std::mt19937_64 random(seed);
  for (int i = 0; i < 60000; ++i) out.put(static_cast<char>((i * 5 + random() % 4) % 32));
}

std::filesystem::path write_job(const TrainJob& job, const std::filesystem::path& folder) {
  std::ofstream out(folder / "job.yaml");
  const auto model = job.model.empty() ? job.example / "gpt.pt2" : job.model;
  const auto text = job.text.empty() ? job.example / "kjv.txt" : job.text;
  out << "name: bench\nmodel: {pt2: " << model.string() << "}\ndata: {"
      << (job.tensors.empty() ? "text: " + text.string() + ", sequence_length: " + std::to_string(job.context)
                              : "tensors: " + job.tensors.string())
      << ", seed: 7}\nbatch: {global: " << job.global_batch << "}\nprecision: " << job.precision << "\n"
      << "optimizer: {name: adamw, learning_rate: 1.0e-3, betas: [0.9, 0.95], weight_decay: 0.1, clip_grad_norm: 1.0, "
         "warmup_steps: "
      << job.warmup << "}\n"
      << "train: {steps: " << job.steps << ", seed: 1234, log_every: 5}\n";
  if (!job.plan.empty()) out << "plan: " << job.plan << "\n";
  if (!job.cluster.empty()) out << "cluster: " << job.cluster.string() << "\n";
  return folder / "job.yaml";
}

TrainRun read_run(const std::filesystem::path& run_dir, int first_measured_step) {
  TrainRun run;
  run.run_dir = run_dir;
  std::ifstream metrics(run_dir / "metrics.jsonl");
  std::vector<double> measured;
  for (std::string line; std::getline(metrics, line);) {
    const auto json = parse_json(line);
    if (!json) continue;
    run.losses.push_back((*json)["loss"].number());
    run.grad_norms.push_back((*json)["grad_norm"].number());
    if ((*json)["step"].integer() >= first_measured_step) measured.push_back((*json)["step_seconds"].number());
    run.predicted_step = (*json)["predicted_step_seconds"].number();
    run.predicted_peak = numbers((*json)["predicted_peak_memory_bytes"]);
    run.measured_peak = numbers((*json)["peak_memory_bytes"]);
    run.resident = numbers((*json)["resident_bytes"]);
  }
  run.ok = !measured.empty();
  if (run.ok)
    run.measured_step = median(measured);
  else
    run.failure = "no step " + std::to_string(first_measured_step) + " in metrics.jsonl";
  return run;
}

TrainRun run_train(const TrainJob& job, const std::vector<std::string>& flags, double limit_seconds) {
  const auto folder = make_scratch_folder("run");
  const auto programs = job.programs.empty() ? program_folder() : job.programs;
  std::vector<std::string> arguments{(programs / "launch").string(), "train", write_job(job, folder).string(),
                                     "--run-dir", (folder / "run").string()};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  const auto result = run_process(arguments, limit_seconds);
  if (result.exit_code != 0) {
    TrainRun run;
    run.failure = "exit " + std::to_string(result.exit_code) + ": " +
                  result.errors.substr(result.errors.size() > 2000 ? result.errors.size() - 2000 : 0);
    return run;
  }
  return read_run(folder / "run", job.first_measured_step);
}

}  // namespace coxswain::bench
