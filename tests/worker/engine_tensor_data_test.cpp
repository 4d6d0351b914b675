// Rows of a tensor file as samples: the order is the text's permutation, the tail is held back.
#include <algorithm>

#include "model/load.h"
#include "tests/support/safetensors_file.h"
#include "tests/support/temp_dir.h"
#include "worker/engine/tensor_data.h"
#include "worker/engine/text_data.h"

#include <ATen/core/Tensor.h>

#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

constexpr std::int64_t kRows = 10;

// Row r of labels is r; of pixels 10 r and up.
struct Scene {
  Scene() {
    auto built = model::build_from_config(JsonObject{{"model_type", "vit"},
                                                     {"hidden_size", 8},
                                                     {"intermediate_size", 8},
                                                     {"num_hidden_layers", 1},
                                                     {"num_attention_heads", 1},
                                                     {"image_size", 2},
                                                     {"patch_size", 1},
                                                     {"num_channels", 1}},
                                          {.sequence_length = 0});
    REQUIRE(built);
    graph = std::move(*built);
    std::vector<float> pixels;
    std::vector<std::int64_t> labels;
    for (std::int64_t r = 0; r < kRows; ++r) {
      labels.push_back(r);
      for (int i = 0; i < 4; ++i) pixels.push_back(static_cast<float>(10 * r + i));
    }
    write_safetensors(folder / "data", {{"labels", "I64", {kRows}, bytes_of(labels)},
                                        {"pixel_values", "F32", {kRows, 1, 2, 2}, bytes_of(pixels)}});
    settings.tensors = folder / "data";
    settings.seed = 5;
    settings.validation_fraction = 0.3;
  }
  TempDir folder;
  model::ModelGraph graph;
  worker::DataSettings settings;
};

std::vector<std::int64_t> numbers(const at::Tensor& tensor) {
  const auto* data = tensor.const_data_ptr<std::int64_t>();
  return {data, data + tensor.numel()};
}

}  // namespace

TEST_CASE("samples follow the permutation of their epoch, and every input takes the same rows") {
  Scene scene;
  auto data = worker::TensorData::open(scene.graph, scene.settings, 3);
  if (!data) FAIL(to_text(data.error()));
  std::vector<std::int64_t> expected;
  for (std::int64_t epoch = 0; epoch < 2; ++epoch)
    for (const std::uint32_t row : worker::permutation_of(5, epoch, 7)) expected.push_back(row);
  CHECK(numbers(data->training(1, 0, 14)) == expected);
  // Across the end of an epoch.
  CHECK(numbers(data->training(1, 5, 4)) == std::vector<std::int64_t>(expected.begin() + 5, expected.begin() + 9));
  const at::Tensor pixels = data->training(0, 5, 4);
  REQUIRE(pixels.sizes() == at::IntArrayRef({4, 1, 2, 2}));
  for (int i = 0; i < 4; ++i)
    CHECK(pixels.const_data_ptr<float>()[4 * i + 3] == static_cast<float>(10 * expected[5 + i] + 3));
}

TEST_CASE("the last rows are held back for validation") {
  Scene scene;
  const auto data = worker::TensorData::open(scene.graph, scene.settings, 3);
  REQUIRE(data);
  CHECK(numbers(data->validation(1, 0, 3)) == std::vector<std::int64_t>{7, 8, 9});
  const auto too_many = worker::TensorData::open(scene.graph, scene.settings, 4);
  REQUIRE_FALSE(too_many);
  CHECK(too_many.error().got == "3 rows");
  scene.settings.validation_fraction = 1;
  CHECK(worker::TensorData::open(scene.graph, scene.settings, 0).error().message == "no sample is left to train on");
}

}  // namespace coxswain::tests
