#pragma once
// The weights of a checkpoint as safetensors files that other tools read: every parameter whole, under its own name,
// whatever pieces and shards it was saved in. A few MiB are in memory at a time. Called by `launch export`.
// Threads: pure but for the files. Source: https://github.com/huggingface/safetensors, section Format; the names and
// the index of several files as transformers' save_pretrained writes them.
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"

namespace coxswain::checkpoint {

struct ExportOptions {
  /// A first part of the name that all parameters have ("model." of a module around the model) is left out.
  bool strips_common_prefix = false;
  /// Of one file, but for a parameter that is larger alone.
  Bytes largest_file{std::int64_t{5} << 30};
};

struct ExportedWeights {
  std::vector<std::string> files;  // in the folder, with the index where there are several
  std::int64_t num_parameters = 0, num_elements = 0;
  std::string stripped;  // with its dot; empty: nothing
};

/// Writes into `out`, which exists. Float32, as the master weights are. Requires: `manifest` is the verified one of
/// `folder`. Errors: of Reader; FailedPrecondition (the disk).
[[nodiscard]] Result<ExportedWeights> export_weights(const std::filesystem::path& folder, const Manifest& manifest,
                                                     const std::filesystem::path& out, const ExportOptions& options);

}  // namespace coxswain::checkpoint
