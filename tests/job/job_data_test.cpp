// What a text must be to feed a model, by hand-counted lengths and vocabularies.
#include <fstream>

#include "launcher/job/job_data.h"
#include "model/load.h"
#include "tests/support/safetensors_file.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

model::ModelGraph gpt(std::int64_t vocabulary) {
  auto graph = model::build_from_config(JsonObject{{"model_type", "gpt2"},
                                                   {"n_layer", 1},
                                                   {"n_head", 1},
                                                   {"n_embd", 8},
                                                   {"n_positions", 10},
                                                   {"vocab_size", vocabulary}},
                                        {.sequence_length = 10});
  REQUIRE(graph);
  return std::move(*graph);
}

struct Scene {
  explicit Scene(const std::string& text) {
    std::ofstream(folder / "text") << text;
    job.file = "job.yaml";
    job.data.text = folder / "text";
    job.data.sequence_length = 10;
    job.global_batch = 2;
  }
  TempDir folder;
  Job job;
};

}  // namespace

TEST_CASE("the vocabulary is the rows of the table that the tokens index, not the positions'") {
  CHECK(vocabulary_of(gpt(97)) == 97);
}

TEST_CASE("a text of one window and one byte is long enough") {
  CHECK(check_data(Scene(std::string(11, 'a')).job, gpt(256)).empty());
  const auto problems = check_data(Scene(std::string(10, 'a')).job, gpt(256));
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].path == "job.yaml  data.text");
  CHECK(problems[0].got == "10 bytes");
}

TEST_CASE("the held-back tail holds every validation window") {
  Scene scene(std::string(100, 'a'));
  scene.job.validation = {0.21, 1, 1};  // 21 bytes: two windows of ten, and the last target
  CHECK(check_data(scene.job, gpt(256)).empty());
  scene.job.validation.fraction = 0.20;
  const auto problems = check_data(scene.job, gpt(256));
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].path == "job.yaml  validation.fraction");
  CHECK(problems[0].got == "1 windows");
}

TEST_CASE("a byte beyond the vocabulary is named with its place") {
  const auto problems = check_data(Scene("aaaaaaaaaaaab").job, gpt('b'));
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].got == "byte 98 at offset 12");
  CHECK(check_data(Scene("aaaaaaaaaaaab").job, gpt('c')).empty());
}

TEST_CASE("tensors are checked as a text is: tail, indices, names") {
  Scene scene("");
  scene.job.data.text.clear();
  scene.job.data.tensors = scene.folder / "rows";
  scene.job.validation = {0.3, 1, 1};  // two rows of seven, as many as a batch
  std::vector<std::int64_t> tokens(70, 1);
  const auto write = [&](const std::string& labels) {
    tests::write_safetensors(scene.job.data.tensors, {{"input_ids", "I64", {7, 10}, tests::bytes_of(tokens)},
                                                      {labels, "I64", {7, 10}, tests::bytes_of(tokens)}});
  };
  write("labels");
  CHECK(check_data(scene.job, gpt(256)).empty());
  scene.job.validation.fraction = 0.28;
  tokens[69] = 256;
  write("labels");
  const auto problems = check_data(scene.job, gpt(256));
  REQUIRE(problems.size() == 2);
  CHECK(problems[0].path == "job.yaml  data.tensors: input_ids");
  CHECK(problems[0].got == "256 in row 6");
  CHECK(problems[1].got == "1 rows");
  write("targets");
  CHECK(check_data(scene.job, gpt(256)).at(0).path == "job.yaml  data.tensors: labels");
}

TEST_CASE("every problem of the data is listed") {
  Scene scene("zzz");
  scene.job.data.sequence_length = 12;
  CHECK(check_data(scene.job, gpt(100)).size() == 3);
  scene.job.data.text = scene.folder / "none";
  CHECK(check_data(scene.job, gpt(100)).at(0).code == ErrorCode::NotFound);
}
