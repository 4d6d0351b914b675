// Job files: every problem once, each with line and path; what is read is what was written.
#include <algorithm>

#include "common/exit_code.h"
#include "launcher/job/job.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

// The example of INTERFACE section 2 without what this version cannot do.
const std::string kGood = R"(name: kjv-gpt
model: {pt2: gpt.pt2}
data: {text: kjv.txt, sequence_length: 128, seed: 7}
validation: {fraction: 0.05, every_steps: 50, steps: 10}
batch: {global: 32, micro: auto}
precision: float32
optimizer: {name: adamw, learning_rate: 1.0e-3, betas: [0.9, 0.95], weight_decay: 0.1, clip_grad_norm: 1.0, warmup_steps: 20, decay: cosine, min_ratio: 0.1}
train: {steps: 300, seed: 1234, log_every: 10}
cluster: auto
plan: {data: 2, pipeline: [1, 2], schedule: [1f1b], cuts: [2, 4]}
environment: {OMP_NUM_THREADS: "1"}
)";

std::vector<Error> problems_of(const std::string& text) {
  const auto job = parse_job(text, "folder/job.yaml");
  REQUIRE_FALSE(job.has_value());
  return job.error().details.empty() ? std::vector<Error>{job.error()} : job.error().details;
}

std::string replaced(const std::string& from, const std::string& to) {
  std::string text = kGood;
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("the example job is read as written") {
  const auto job = parse_job(kGood, "folder/job.yaml");
  if (!job) FAIL(to_text(job.error()));
  CHECK(job->name == "kjv-gpt");
  CHECK(job->model.pt2 == std::filesystem::absolute("folder/gpt.pt2"));
  CHECK(job->data.text == std::filesystem::absolute("folder/kjv.txt"));
  CHECK(job->data.sequence_length == 128);
  CHECK(job->global_batch == 32);
  CHECK(job->micro_batch == 0);
  CHECK(job->optimizer.learning_rate == 1.0e-3);
  CHECK(job->optimizer.beta2 == 0.95);
  CHECK(job->validation.every_steps == 50);
  CHECK(job->steps == 300);
  CHECK(job->constraints.data == std::vector<int>{2});
  CHECK(job->constraints.pipeline == std::vector<int>{1, 2});
  CHECK(job->constraints.cuts == "[2,4]");
  CHECK(job->environment.at("OMP_NUM_THREADS") == "1");
}

TEST_CASE("a job written back is the same job") {
  const auto job = parse_job(kGood, "folder/job.yaml");
  REQUIRE(job.has_value());
  const auto again = parse_job(to_yaml(*job), "elsewhere/job.yaml");
  if (!again) FAIL(to_text(again.error()));
  CHECK(again->model.pt2 == job->model.pt2);
  CHECK(again->data.text == job->data.text);
  CHECK(again->constraint_texts == job->constraint_texts);
  CHECK(again->optimizer.learning_rate == job->optimizer.learning_rate);
  CHECK(to_yaml(*again) == to_yaml(*job));
}

TEST_CASE("tensors need no sequence length, a text does, and one of the two is enough") {
  const auto job =
      parse_job(replaced("{text: kjv.txt, sequence_length: 128, seed: 7}", "{tensors: rows.safetensors, seed: 7}"),
                "folder/job.yaml");
  if (!job) FAIL(to_text(job.error()));
  CHECK(job->data.tensors == std::filesystem::absolute("folder/rows.safetensors"));
  CHECK(job->data.text.empty());
  CHECK(job->data.sequence_length == 0);
  const auto again = parse_job(to_yaml(*job), "elsewhere/job.yaml");
  if (!again) FAIL(to_text(again.error()));
  CHECK(again->data.tensors == job->data.tensors);
  CHECK(problems_of(replaced("sequence_length: 128, ", "")).at(0).path == "folder/job.yaml:3  data.sequence_length");
  CHECK(problems_of(replaced("text: kjv.txt", "text: kjv.txt, tensors: rows")).at(0).message == "data given twice");
  CHECK(problems_of(replaced("text: kjv.txt, ", "")).at(0).expected == "`text` or `tensors`");
}

TEST_CASE("every problem is listed once with line and path") {
  const auto problems = problems_of(R"(name: kjv
model: {pt2: a.pt2, huggingface: b}
data: {text: kjv.txt, sequence_length: -3}
batch: {global: 32, micro: 5}
optimiser: {name: adamw}
optimizer: {name: sgd, betas: [0.9, 1.5], learning_rate: fast}
train: {seed: 1}
)");
  std::vector<std::string> paths;
  for (const auto& problem : problems) paths.push_back(problem.path);
  std::sort(paths.begin(), paths.end());
  CHECK(paths == std::vector<std::string>{"folder/job.yaml:2  model", "folder/job.yaml:3  data.sequence_length",
                                          "folder/job.yaml:4  batch.micro", "folder/job.yaml:5  optimiser",
                                          "folder/job.yaml:6  optimizer.betas[1]",
                                          "folder/job.yaml:6  optimizer.learning_rate",
                                          "folder/job.yaml:6  optimizer.name", "folder/job.yaml:7  train.steps"});
}

TEST_CASE("an unknown key names the nearest known one") {
  const auto problems = problems_of(replaced("precision:", "precison:"));
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].hint == "did you mean `precision`?");
}

TEST_CASE("names in a model's configuration are short enough to be written") {
  const auto with_name = [](std::size_t bytes) {
    return replaced("model: {pt2: gpt.pt2}", "model: {config: {inner: [{\"" + std::string(bytes / 2, '\f') +
                                                 std::string(bytes - bytes / 2, 'a') + "\": 1}]}}");
  };
  const auto job = parse_job(with_name(128), "job.yaml");
  REQUIRE(job.has_value());
  CHECK(parse_job(to_yaml(*job), "job.yaml").has_value());
  const auto problems = problems_of(with_name(129));
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].path == "folder/job.yaml:2  model.config");
  CHECK(problems[0].got == "129");
}

TEST_CASE("what this version cannot do is refused by name") {
  const auto job = parse_job(kGood + "deploy: {image: i}\n", "job.yaml");
  REQUIRE_FALSE(job.has_value());
  CHECK(job.error().code == ErrorCode::Unimplemented);
  CHECK(exit_code_for(job.error().code) == ExitCode::BadInput);
  CHECK(job.error().message == "this version cannot submit to Kubernetes or Slurm");
}

TEST_CASE("a job says how many nodes it takes, and with how few it goes on") {
  const auto job = parse_job(kGood + "elastic: {min_nodes: 2, max_nodes: 4}\n", "job.yaml");
  REQUIRE(job.has_value());
  const auto again = parse_job(to_yaml(*job), "job.yaml");
  REQUIRE(again.has_value());
  CHECK(again->min_nodes == 2);
  CHECK(again->max_nodes == 4);
  CHECK(parse_job(kGood, "job.yaml")->max_nodes == 0);
  CHECK(problems_of(kGood + "elastic: {min_nodes: 3, max_nodes: 2}\n").size() == 1);
}

TEST_CASE("checkpoints have a folder, an interval and a number that is kept") {
  const auto job = parse_job(kGood + "checkpoint: {directory: c, every_steps: 50, keep: 5}\n", "folder/job.yaml");
  REQUIRE(job.has_value());
  CHECK(job->checkpoint.directory == std::filesystem::absolute("folder/c"));
  CHECK(job->checkpoint.every_steps == 50);
  CHECK(job->checkpoint.keep == 5);
  const auto again = parse_job(to_yaml(*job), "elsewhere/job.yaml");
  REQUIRE(again.has_value());
  CHECK(again->checkpoint.directory == job->checkpoint.directory);
  CHECK(again->checkpoint.every_steps == 50);
  CHECK(again->checkpoint.keep == 5);
  const auto without = parse_job(kGood, "job.yaml");
  CHECK(without->checkpoint.directory.empty());
  CHECK(without->checkpoint.every_steps == 0);
  CHECK(without->checkpoint.keep == 3);
  CHECK_FALSE(parse_job(kGood + "checkpoint: {every_steps: 0}\n", "job.yaml").has_value());
  CHECK_FALSE(parse_job(kGood + "checkpoint: {keep: 0}\n", "job.yaml").has_value());
}

TEST_CASE("bad constraints are problems of the job") {
  const auto problems = problems_of(replaced("data: 2, pipeline", "dta: 2, pipeline"));
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].path == "folder/job.yaml:10  plan.dta");
}

TEST_CASE("a key given twice is a problem") {
  CHECK(problems_of(kGood + "name: again\n").at(0).message == "key given twice");
}

TEST_CASE("an alias bomb is refused") {
  std::string text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n";
  for (char c = 'b'; c < 'j'; ++c) {
    const std::string before(1, static_cast<char>(c - 1));
    text += std::string(1, c) + ": &" + c + " [*" + before + ", *" + before + ", *" + before + ", *" + before + ", *" +
            before + ", *" + before + ", *" + before + ", *" + before + "]\n";
  }
  const auto job = parse_job(
      kGood + "environment: {}\n" + text + "deploy: {volumes: *i}\nmodel: {config: {deep: *i}}\n", "job.yaml");
  REQUIRE_FALSE(job.has_value());
}

TEST_CASE("text that is no UTF-8 names its line") {
  const auto job = parse_job("name: a\nmodel: {config: {model_type: gpt2, n_\xb6: 2}}\n", "job.yaml");
  REQUIRE_FALSE(job.has_value());
  CHECK(job.error().path == "job.yaml:2");
  CHECK(job.error().got == "byte 182 at offset 45");
}

TEST_CASE("text that is no YAML names its line") {
  const auto problems = problems_of("name: x\nmodel: [unclosed\n");
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].path.starts_with("folder/job.yaml:"));
}

TEST_CASE("a Python script as job says how to export") {
  const auto job = load_job("train.py");
  REQUIRE_FALSE(job.has_value());
  CHECK(job.error().hint.find("coxswain.export") != std::string::npos);
}

TEST_CASE("float16, steps that are not finite and a schedule's file are read and written back") {
  std::string text = kGood;
  const auto put = [&](const std::string& from, const std::string& to) {
    text.replace(text.find(from), from.size(), to);
  };
  put("precision: float32", "precision: float16");
  put("min_ratio: 0.1", "min_ratio: 0.1, non_finite: skip");
  put("schedule: [1f1b], cuts: [2, 4]", "schedule: \"csv:order.csv\"");
  const auto job = parse_job(text, "folder/job.yaml");
  if (!job) FAIL(to_text(job.error()));
  CHECK(job->precision == plan::Precision::Float16);
  CHECK(job->optimizer.skip_non_finite);
  CHECK(job->constraints.schedule_file == std::filesystem::absolute("folder/order.csv"));
  const auto again = parse_job(to_yaml(*job), "elsewhere/job.yaml");
  if (!again) FAIL(to_text(again.error()));
  CHECK(again->optimizer.skip_non_finite);
  CHECK(again->constraints.schedule_file == job->constraints.schedule_file);
  CHECK_FALSE(parse_job(kGood, "folder/job.yaml")->optimizer.skip_non_finite);
  const auto problems = problems_of(replaced("min_ratio: 0.1", "non_finite: perhaps"));
  REQUIRE(problems.size() == 1);
  CHECK(problems.front().expected.find("skip") != std::string::npos);
}
