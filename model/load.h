#pragma once
// Readers and builders of ModelGraph: a .pt2 archive (libzip, bounded; JSON; no pickle, no Python, no libtorch) and a
// Hugging Face config.json (bert, gpt2, llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, vit). What cannot be run is
// named. Threads: pure apart from files.
#include <filesystem>
#include <string_view>

#include "common/json.h"
#include "model/model_graph.h"

namespace coxswain::model {

/// Errors: NotFound; DataLoss (truncated, bad checksum); InvalidArgument with every operator or value it cannot take.
[[nodiscard]] Result<ModelGraph> load_pt2(const std::filesystem::path& path);

struct ConfigOptions {
  std::int64_t sequence_length = 0;  // 0: the config's maximum; a vit's image sets it (patches + 1)
};
/// Same graph (parameters, blocks, FLOPs, activation bytes, loss, gradients) as the export of that model: the language
/// model's class for decoders, BertForMaskedLM, ViTForImageClassification. Mixtures are those of transformers 5 (all
/// experts in one tensor per projection) with `batched_mm` experts: each (token, chosen expert) pair has its own copy
/// of the expert's weights, kept for backward. Errors: InvalidArgument (unknown model_type: lists the known ones;
/// missing keys).
[[nodiscard]] Result<ModelGraph> build_from_config(const Json& config, const ConfigOptions& options);

/// The step that the exporter recorded beside the model (dropout off).
struct RecordedStep {
  std::vector<std::string> input_entries;  // one per graph input, raw little-endian entries of the archive
  std::vector<std::vector<std::int64_t>> input_dims;
  double loss = 0;
  double grad_norm = 0;                                    // global
  std::vector<std::pair<std::string, double>> grad_norms;  // by parameter name
};
[[nodiscard]] Result<RecordedStep> load_recorded_step(const std::filesystem::path& pt2);

/// Bytes of one archive entry. Errors: NotFound, DataLoss.
[[nodiscard]] Result<std::string> read_archive_entry(const std::filesystem::path& archive, std::string_view entry);

/// Read-only mapping of a model file; views stay valid while it lives.
class WeightFile {
 public:
  [[nodiscard]] static Result<WeightFile> open(const std::filesystem::path& path);
  WeightFile(WeightFile&&) noexcept;
  WeightFile& operator=(WeightFile&&) noexcept;
  ~WeightFile();
  /// First byte of the storage entry. Errors: DataLoss when the entry is shorter than `needed`.
  [[nodiscard]] Result<const std::byte*> at(const WeightLocation& location, Bytes needed) const;

 private:
  WeightFile() = default;
  void* mapping_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace coxswain::model
