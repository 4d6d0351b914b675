#include "common/dtype.h"

#include <array>

#include "common/ensure.h"

namespace coxswain {
namespace {

struct DTypeRow {
  DType dtype;
  std::string_view name;
  std::int64_t size;
  bool is_floating_point;
};

// In the order of the enumerators, so that a row is found by its number.
constexpr std::array kRows{
    DTypeRow{DType::Bool, "bool", 1, false},      DTypeRow{DType::UInt8, "uint8", 1, false},
    DTypeRow{DType::Int8, "int8", 1, false},      DTypeRow{DType::Int16, "int16", 2, false},
    DTypeRow{DType::Int32, "int32", 4, false},    DTypeRow{DType::Int64, "int64", 8, false},
    DTypeRow{DType::Float16, "float16", 2, true}, DTypeRow{DType::BFloat16, "bfloat16", 2, true},
    DTypeRow{DType::Float32, "float32", 4, true}, DTypeRow{DType::Float64, "float64", 8, true},
};

const DTypeRow& row_of(DType dtype) {
  const auto index = static_cast<std::size_t>(dtype);
  COX_ENSURE(index < kRows.size() && kRows[index].dtype == dtype, index);
  return kRows[index];
}

}  // namespace

Bytes size_of(DType dtype) { return Bytes(row_of(dtype).size); }

bool is_floating_point(DType dtype) { return row_of(dtype).is_floating_point; }

std::string_view to_text(DType dtype) { return row_of(dtype).name; }

std::optional<DType> parse_dtype(std::string_view text) {
  for (const DTypeRow& row : kRows) {
    if (row.name == text) return row.dtype;
  }
  return std::nullopt;
}

}  // namespace coxswain
