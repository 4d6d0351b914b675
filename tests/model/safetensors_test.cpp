// Safetensors files written by hand: what is read is what was written, and no damaged file is believed.
#include "model/safetensors.h"
#include "tests/support/safetensors_file.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::tests;

namespace {

Error error_of(const std::string& header, const std::string& data) {
  const TempDir folder;
  write_with_header(folder / "file", header, data);
  const auto file = model::SafetensorsFile::open(folder / "file");
  REQUIRE_FALSE(file);
  return file.error();
}

std::string entry(const std::string& offsets, const std::string& shape = "[2]", const std::string& dtype = "U8") {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

}  // namespace

TEST_CASE("tensors are read as they were written") {
  const TempDir folder;
  write_safetensors(folder / "file", {{"b", "I64", {2, 1}, bytes_of<std::int64_t>({7, -1})},
                                      {"a", "F32", {3}, bytes_of<float>({1.5F, 2.5F, 3.5F})},
                                      {"none", "BOOL", {0, 4}, ""},
                                      {"scalar", "F64", {}, bytes_of<double>({0.25})}});
  auto opened = model::SafetensorsFile::open(folder / "file");
  if (!opened) FAIL(to_text(opened.error()));
  const auto copy = *opened;  // shares the mapping
  opened = Error{};
  REQUIRE(copy.tensors().size() == 4);
  const auto& b = copy.tensors().at("b");
  CHECK(b.dtype == DType::Int64);
  CHECK(b.dims == std::vector<std::int64_t>{2, 1});
  CHECK(std::string(reinterpret_cast<const char*>(b.data), 16) == bytes_of<std::int64_t>({7, -1}));
  const auto& a = copy.tensors().at("a");
  CHECK(a.size == Bytes(12));
  CHECK(std::string(reinterpret_cast<const char*>(a.data), 12) == bytes_of<float>({1.5F, 2.5F, 3.5F}));
  CHECK(copy.tensors().at("none").size == Bytes(0));
  CHECK(copy.tensors().at("scalar").dims.empty());
}

TEST_CASE("damaged files are refused, with the tensor named") {
  CHECK(error_of("{}", "x").message == "bytes after the last tensor, or a truncated file");
  CHECK(error_of(R"({"t":)" + entry("[0,3]") + "}", "xyz").path.ends_with(": t"));
  CHECK(error_of(R"({"t":)" + entry("[0,2]") + "}", "x").message == "offsets that do not fit the shape or the file");
  CHECK(error_of(R"({"t":)" + entry("[2,0]") + "}", "xy").message == "offsets that do not fit the shape or the file");
  CHECK(error_of(R"({"t":)" + entry("[-1,1]") + "}", "xy").message == "offsets that do not fit the shape or the file");
  CHECK(error_of(R"({"t":)" + entry("[0,2]", "[2]", "F4") + "}", "xy").got == "F4");
  CHECK(error_of(R"({"t":)" + entry("[0,2]", "[-2]") + "}", "xy").message == "a dim is no size");
  CHECK(error_of(R"({"t":)" + entry("[0,2]", "[4294967296,4294967296]", "I64") + "}", "xy").message ==
        "the tensor is larger than any memory");
  CHECK(error_of(R"({"t":{"dtype":"U8"}})", "").message == "the header's entry is not a tensor");
  CHECK(error_of(R"({"t":)" + entry("[0,2]") + R"(,"u":)" + entry("[1,3]") + "}", "xyz").message ==
        "tensors that overlap or leave a gap");
  CHECK(error_of(R"({"t":)" + entry("[1,3]") + "}", "xyz").message == "tensors that overlap or leave a gap");
  CHECK(error_of("[1]", "").message == "the header is no JSON object");
  CHECK(error_of("{\"t\":", "").message == "the header is no JSON object");
}

TEST_CASE("a header longer than the file or than the format allows is refused before it is read") {
  const TempDir folder;
  std::ofstream(folder / "long", std::ios::binary) << std::string(7, '\xff') << '\x7f' << "{}";
  const auto opened = model::SafetensorsFile::open(folder / "long");
  REQUIRE_FALSE(opened);
  CHECK(opened.error().code == ErrorCode::DataLoss);
  std::ofstream(folder / "short", std::ios::binary) << "abc";
  CHECK(model::SafetensorsFile::open(folder / "short").error().message == "no safetensors file");
  CHECK(model::SafetensorsFile::open(folder / "none").error().code == ErrorCode::NotFound);
}
