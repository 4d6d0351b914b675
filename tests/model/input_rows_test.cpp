// Tensors that feed a model's inputs, and every way in which they do not.
#include "model/input_rows.h"
#include "model/load.h"
#include "tests/support/safetensors_file.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::tests;

namespace {

// Inputs: pixel_values float32 [batch, 1, 2, 2], labels int64 [batch].
model::ModelGraph vit() {
  auto graph = model::build_from_config(JsonObject{{"model_type", "vit"},
                                                   {"hidden_size", 8},
                                                   {"intermediate_size", 8},
                                                   {"num_hidden_layers", 1},
                                                   {"num_attention_heads", 1},
                                                   {"image_size", 2},
                                                   {"patch_size", 1},
                                                   {"num_channels", 1}},
                                        {.sequence_length = 0});
  REQUIRE(graph);
  return std::move(*graph);
}

model::ModelGraph gpt(std::int64_t vocabulary) {
  auto graph = model::build_from_config(JsonObject{{"model_type", "gpt2"},
                                                   {"n_layer", 1},
                                                   {"n_head", 1},
                                                   {"n_embd", 8},
                                                   {"n_positions", 2},
                                                   {"vocab_size", vocabulary}},
                                        {.sequence_length = 2});
  REQUIRE(graph);
  return std::move(*graph);
}

WrittenTensor pixels(std::vector<float> elements, std::vector<std::int64_t> dims) {
  return {"pixel_values", "F32", std::move(dims), bytes_of(elements)};
}
WrittenTensor labels(std::vector<std::int64_t> elements) {
  const auto count = static_cast<std::int64_t>(elements.size());
  return {"labels", "I64", {count}, bytes_of(elements)};
}

std::vector<Error> problems_of(const model::ModelGraph& graph, const std::vector<WrittenTensor>& tensors) {
  const TempDir folder;
  write_safetensors(folder / "data", tensors);
  const auto rows = model::open_input_rows(graph, folder / "data");
  REQUIRE_FALSE(rows);
  return rows.error().details.empty() ? std::vector<Error>{rows.error()} : rows.error().details;
}

}  // namespace

TEST_CASE("rows are found by the names of inputs, whatever else the file holds") {
  const auto graph = vit();
  const TempDir folder;
  write_safetensors(folder / "data",
                    {labels({1, 0}), {"other", "I8", {1}, "x"}, pixels({1, 2, 3, 4, 5, 6, 7, 8}, {2, 1, 2, 2})});
  const auto rows = model::open_input_rows(graph, folder / "data");
  if (!rows) FAIL(to_text(rows.error()));
  CHECK(rows->num_rows == 2);
  REQUIRE(graph.inputs.at(0).name == "pixel_values");
  CHECK(rows->columns[0].row == Bytes(16));
  CHECK(rows->columns[1].row == Bytes(8));
  CHECK(std::string(reinterpret_cast<const char*>(rows->columns[0].first + 16), 4) == bytes_of<float>({5}));
}

TEST_CASE("what does not fit is named, all of it") {
  const auto graph = vit();
  SECTION("a missing name lists those that there are") {
    const auto problems =
        problems_of(graph, {pixels({1, 2, 3, 4}, {1, 1, 2, 2}), {"label", "I64", {1}, std::string(8, '\0')}});
    REQUIRE(problems.size() == 1);
    CHECK(problems[0].path == "data.tensors: labels");
    CHECK(problems[0].got == "label, pixel_values");
  }
  SECTION("dtype and dims of several inputs") {
    const auto problems = problems_of(graph, {{"pixel_values", "F64", {1, 2, 2}, std::string(32, '\0')},
                                              {"labels", "I32", {1}, std::string(4, '\0')}});
    REQUIRE(problems.size() == 3);
    CHECK(problems[0].expected == "float32");
    CHECK(problems[0].got == "float64");
    CHECK(problems[1].expected == "[1, 1, 2, 2]");
    CHECK(problems[1].got == "[1, 2, 2]");
    CHECK(problems[2].got == "int32");
  }
  SECTION("unequal numbers of samples") {
    const auto problems = problems_of(graph, {pixels({1, 2, 3, 4}, {1, 1, 2, 2}), labels({1, 0})});
    REQUIRE(problems.size() == 1);
    CHECK(problems[0].got == "2");
  }
  SECTION("no sample") {
    CHECK(problems_of(graph, {pixels({}, {0, 1, 2, 2}), labels({})}).at(0).message == "the data holds no sample");
  }
}

TEST_CASE("an index beyond its table is named with its row") {
  const TempDir folder;
  const auto write = [&](const std::vector<std::int64_t>& tokens) {
    write_safetensors(folder / "data", {{"input_ids", "I64", {2, 2}, bytes_of(tokens)},
                                        {"labels", "I64", {2, 2}, bytes_of<std::int64_t>({-100, 1, 2, 3})}});
  };
  const auto graph = gpt(9);
  write({0, 8, 3, 4});
  CHECK(model::check_indices(graph, *model::open_input_rows(graph, folder / "data")).empty());
  write({0, 8, 9, 4});
  const auto problems = model::check_indices(graph, *model::open_input_rows(graph, folder / "data"));
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].got == "9 in row 1");
  CHECK(problems[0].expected == "0 to 8");
  write({0, -1, 0, 4});
  CHECK(model::check_indices(graph, *model::open_input_rows(graph, folder / "data")).at(0).got == "-1 in row 0");
}
