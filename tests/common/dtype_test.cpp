#include "common/dtype.h"

#include <catch2/catch.hpp>

namespace coxswain {
namespace {

// Names and item sizes as PyTorch prints them (torch.float32.itemsize and so on).
TEST_CASE("dtypes have PyTorch's names, sizes and kinds") {
  struct Row {
    DType dtype;
    const char* name;
    int size;
    bool is_floating;
  };
  const Row rows[] = {{DType::Bool, "bool", 1, false},      {DType::UInt8, "uint8", 1, false},
                      {DType::Int8, "int8", 1, false},      {DType::Int16, "int16", 2, false},
                      {DType::Int32, "int32", 4, false},    {DType::Int64, "int64", 8, false},
                      {DType::Float16, "float16", 2, true}, {DType::BFloat16, "bfloat16", 2, true},
                      {DType::Float32, "float32", 4, true}, {DType::Float64, "float64", 8, true}};
  for (const Row& row : rows) {
    INFO(row.name);
    CHECK(to_text(row.dtype) == row.name);
    CHECK(size_of(row.dtype) == Bytes(row.size));
    CHECK(is_floating_point(row.dtype) == row.is_floating);
    CHECK(parse_dtype(row.name) == row.dtype);
  }
}

TEST_CASE("an unknown dtype is not parsed") {
  CHECK_FALSE(parse_dtype("complex64").has_value());
  CHECK_FALSE(parse_dtype("").has_value());
  CHECK_FALSE(parse_dtype("Float32").has_value());
}

}  // namespace
}  // namespace coxswain
