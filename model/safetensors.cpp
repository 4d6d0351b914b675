#include "model/safetensors.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "common/json.h"
#include "model/archive.h"

namespace coxswain::model {
namespace {

constexpr std::uint64_t kLengthBytes = 8;
// The format's own bounds: a header of 100 MB; more dims than any tensor has.
constexpr std::uint64_t kMaxHeader = 100'000'000;
constexpr std::size_t kMaxDims = 64;
constexpr const char* kMetadata = "__metadata__";

std::optional<DType> dtype_of(const std::string& name) {
  static const std::map<std::string, DType> dtypes = {
      {"BOOL", DType::Bool},   {"U8", DType::UInt8},   {"I8", DType::Int8},     {"I16", DType::Int16},
      {"I32", DType::Int32},   {"I64", DType::Int64},  {"F16", DType::Float16}, {"BF16", DType::BFloat16},
      {"F32", DType::Float32}, {"F64", DType::Float64}};
  const auto found = dtypes.find(name);
  return found == dtypes.end() ? std::nullopt : std::optional<DType>(found->second);
}

class HeaderReader {
 public:
  HeaderReader(const std::filesystem::path& path, std::span<const std::byte> file) : path_(path), file_(file) {}

  Result<std::map<std::string, StoredTensor>> read() const {
    if (file_.size() < kLengthBytes) return damaged("no safetensors file", "", "8 bytes of header length", size_text());
    std::uint64_t length = 0;
    for (std::size_t i = 0; i < kLengthBytes; ++i) length |= std::to_integer<std::uint64_t>(file_[i]) << (8 * i);
    if (length > kMaxHeader || length > file_.size() - kLengthBytes)
      return damaged("no safetensors file, or a truncated one", "",
                     "a header within the file and within " + std::to_string(kMaxHeader) + " bytes",
                     "a header of " + std::to_string(length) + " bytes in " + size_text());
    const auto header = parse_json({reinterpret_cast<const char*>(file_.data()) + kLengthBytes, length});
    if (!header || !header->is_object()) return damaged("the header is no JSON object", "", "a JSON object", "");
    const auto data = file_.subspan(kLengthBytes + length);
    std::map<std::string, StoredTensor> tensors;
    std::vector<std::pair<std::int64_t, std::int64_t>> ranges;
    for (const auto& [name, entry] : header->object()) {
      if (name == kMetadata) continue;
      COX_TRY(tensors[name], read_tensor(name, entry, data, ranges));
    }
    COX_TRY_VOID(check_ranges(std::move(ranges), static_cast<std::int64_t>(data.size())));
    return tensors;
  }

 private:
  Result<StoredTensor> read_tensor(const std::string& name, const Json& entry, std::span<const std::byte> data,
                                   std::vector<std::pair<std::int64_t, std::int64_t>>& ranges) const {
    StoredTensor tensor;
    if (!entry["dtype"].is_string() || !entry["shape"].is_array() || !entry["data_offsets"].is_array() ||
        entry["data_offsets"].array().size() != 2 || entry["shape"].array().size() > kMaxDims)
      return damaged("the header's entry is not a tensor", name, "dtype, shape and two data_offsets", to_text(entry));
    const auto dtype = dtype_of(entry["dtype"].string());
    if (!dtype)
      return damaged("an element type that this version does not have", name,
                     "BOOL, U8, I8, I16, I32, I64, F16, BF16, F32, F64", entry["dtype"].string());
    tensor.dtype = *dtype;
    std::int64_t bytes = size_of(*dtype).value;
    for (const Json& dim : entry["shape"].array()) {
      if (!dim.is_integer() || dim.integer() < 0) return damaged("a dim is no size", name, "0 or more", to_text(dim));
      if (dim.integer() > 0 && bytes > std::numeric_limits<std::int64_t>::max() / dim.integer())
        return damaged("the tensor is larger than any memory", name, "", to_text(entry["shape"]));
      bytes *= dim.integer();
      tensor.dims.push_back(dim.integer());
    }
    const Json &begin = entry["data_offsets"].array()[0], &end = entry["data_offsets"].array()[1];
    const auto size = static_cast<std::int64_t>(data.size());
    if (!begin.is_integer() || !end.is_integer() || begin.integer() < 0 || end.integer() < begin.integer() ||
        end.integer() > size || end.integer() - begin.integer() != bytes)
      return damaged("offsets that do not fit the shape or the file", name,
                     std::to_string(bytes) + " bytes within " + std::to_string(size), to_text(entry["data_offsets"]));
    tensor.data = data.data() + begin.integer();
    tensor.size = Bytes(bytes);
    ranges.emplace_back(begin.integer(), end.integer());
    return tensor;
  }

  // The format allows neither holes nor overlaps.
  Result<void> check_ranges(std::vector<std::pair<std::int64_t, std::int64_t>> ranges, std::int64_t size) const {
    std::sort(ranges.begin(), ranges.end());
    std::int64_t next = 0;
    for (const auto& [begin, end] : ranges) {
      if (begin != next)
        return damaged("tensors that overlap or leave a gap", "", "data from byte " + std::to_string(next),
                       "from byte " + std::to_string(begin));
      next = end;
    }
    if (next == size) return {};
    return damaged("bytes after the last tensor, or a truncated file", "", std::to_string(next) + " bytes of tensors",
                   std::to_string(size));
  }

  [[nodiscard]] std::string size_text() const { return std::to_string(file_.size()) + " bytes"; }

  [[nodiscard]] Error damaged(std::string what, const std::string& tensor, std::string expected,
                              std::string got) const {
    return Error{ErrorCode::DataLoss, std::move(what), path_.string() + (tensor.empty() ? "" : ": " + tensor),
                 std::move(expected), std::move(got),  "write it again with safetensors' save_file"};
  }

  const std::filesystem::path& path_;
  std::span<const std::byte> file_;
};

}  // namespace

Result<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  COX_TRY(MappedFile mapped, MappedFile::open(path));
  SafetensorsFile file;
  COX_TRY(file.tensors_, HeaderReader(path, mapped.bytes()).read());
  // Addresses stay when the mapping moves.
  auto shared = std::make_shared<MappedFile>(std::move(mapped));
  file.mapping_ = std::shared_ptr<const void>(shared, shared->bytes().data());
  return file;
}

}  // namespace coxswain::model
