#pragma once
// Element types of tensors, shared by model, plan, collective and engine. Threads: pure.
#include <optional>
#include <string_view>

#include "common/units.h"

namespace coxswain {

enum class DType { Bool, UInt8, Int8, Int16, Int32, Int64, Float16, BFloat16, Float32, Float64 };

[[nodiscard]] Bytes size_of(DType dtype);
[[nodiscard]] bool is_floating_point(DType dtype);
/// "float32", "bfloat16", ...
[[nodiscard]] std::string_view to_text(DType dtype);
[[nodiscard]] std::optional<DType> parse_dtype(std::string_view text);

}  // namespace coxswain
