#pragma once
// A safetensors file, mapped and read with suspicion: eight bytes of header length, a JSON header, raw row-major
// little-endian tensors. Called by input_rows. Threads: pure after opening.
// Source: https://github.com/huggingface/safetensors, section Format (0.5).
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/dtype.h"
#include "common/result.h"

namespace coxswain::model {

struct StoredTensor {
  DType dtype = DType::Float32;
  std::vector<std::int64_t> dims;
  const std::byte* data = nullptr;  // in the mapping; aligned to nothing
  Bytes size{0};
};

/// The file must not shrink while mapped. Copies share the mapping.
class SafetensorsFile {
 public:
  /// Errors: NotFound, PermissionDenied; DataLoss (no such file format: header longer than the file or than 100 MB, not
  /// the JSON that the format asks for, a dtype that we do not have, sizes and offsets that disagree, gaps, overlaps).
  [[nodiscard]] static Result<SafetensorsFile> open(const std::filesystem::path& path);

  [[nodiscard]] const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }

 private:
  std::shared_ptr<const void> mapping_;
  std::map<std::string, StoredTensor> tensors_;
};

}  // namespace coxswain::model
