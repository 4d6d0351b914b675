#pragma once
// What the engine's tests share: fixtures by name, settings, comparison of two runs.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "common/json.h"
#include "model/load.h"
#include "tests/worker/training_run.h"

namespace coxswain::tests {

inline std::filesystem::path fixture(const std::string& name) { return std::filesystem::path(COX_FIXTURES) / name; }

inline Json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  auto json = parse_json(text.str());
  if (!json) throw std::runtime_error(path.string() + ": " + to_text(json.error()));
  return std::move(*json);
}

inline model::ModelGraph load_fixture(const std::string& name) {
  auto graph = model::load_pt2(fixture(name));
  if (!graph) throw std::runtime_error(to_text(graph.error()));
  return std::move(*graph);
}

/// As make_eager.py trains.
inline worker::TrainSettings eager_settings() {
  worker::TrainSettings settings;
  settings.data.text = fixture("eager.txt");
  settings.data.sequence_length = 16;
  settings.data.seed = 7;
  settings.data.validation_fraction = 0.25;
  settings.optimizer.learning_rate = 0.003;
  settings.optimizer.warmup_steps = 5;
  settings.steps = 20;
  settings.seed = 1234;
  settings.threads = 1;
  return settings;
}

inline double norm_of(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value) * value;
  return std::sqrt(sum);
}

inline double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return std::sqrt(sum);
}

/// A llama of six layers, without tied weights, whose attention is fused. `width`: a multiple of 8.
inline model::ModelGraph make_llama(int width) {
  auto graph = model::build_from_config(JsonObject{{"model_type", "llama"},
                                                   {"architectures", JsonArray{"LlamaForCausalLM"}},
                                                   {"hidden_size", width},
                                                   {"intermediate_size", width * 5 / 2},
                                                   {"num_hidden_layers", 6},
                                                   {"num_attention_heads", 4},
                                                   {"num_key_value_heads", 2},
                                                   {"vocab_size", 2 * width},
                                                   {"max_position_embeddings", 64},
                                                   {"rms_norm_eps", 1e-5},
                                                   {"tie_word_embeddings", false},
                                                   {"hidden_act", "silu"}},
                                        {64});
  if (!graph) throw std::runtime_error(to_text(graph.error()));
  return std::move(*graph);
}

/// For it.
inline worker::TrainSettings llama_settings() {
  worker::TrainSettings result = eager_settings();
  result.data.sequence_length = 64;
  return result;
}

}  // namespace coxswain::tests
