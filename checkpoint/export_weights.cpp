#include "checkpoint/export_weights.h"

#include <algorithm>
#include <cstdio>
#include <map>

#include "checkpoint/reader.h"
#include "checkpoint/safetensors_header.h"
#include "common/bytes_io.h"

namespace coxswain::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kPartElements = std::int64_t{1} << 20;

using Parameters = std::map<std::string, std::vector<std::int64_t>>;  // dims by name
using File = std::vector<Parameters::const_iterator>;

Bytes bytes_of(const std::vector<std::int64_t>& dims) { return size_of(DType::Float32) * num_elements(dims); }

/// "model." where every name begins so and goes on after it.
std::string common_prefix(const Parameters& parameters) {
  const std::string& first = parameters.begin()->first;
  const std::string prefix = first.substr(0, first.find('.') + 1);
  const bool all = std::all_of(parameters.begin(), parameters.end(), [&](const auto& parameter) {
    return parameter.first.starts_with(prefix) && parameter.first.size() > prefix.size();
  });
  return all ? prefix : "";
}

/// In the order of names, each file as full as it may be.
std::vector<File> share_out_files(const Parameters& parameters, Bytes largest) {
  std::vector<File> files;
  Bytes size{0};
  for (auto parameter = parameters.begin(); parameter != parameters.end(); ++parameter) {
    const Bytes own = bytes_of(parameter->second);
    if (files.empty() || size + own > largest) {
      files.emplace_back();
      size = Bytes(0);
    }
    files.back().push_back(parameter);
    size += own;
  }
  return files;
}

std::string header_of(const File& file, const std::string& prefix) {
  JsonObject tensors;
  tensors["__metadata__"] = JsonObject{{"format", "pt"}};
  std::int64_t offset = 0;
  for (const auto& parameter : file) {
    const std::int64_t end = offset + bytes_of(parameter->second).value;
    Json entry;
    entry["dtype"] = "F32";
    entry["shape"] = JsonArray(parameter->second.begin(), parameter->second.end());
    entry["data_offsets"] = JsonArray{offset, end};
    tensors.emplace(parameter->first.substr(prefix.size()), std::move(entry));
    offset = end;
  }
  return safetensors_header(std::move(tensors));
}

Result<void> write_parameter(NewFile& out, const Reader& reader, const std::string& name,
                             const std::vector<std::int64_t>& dims) {
  const std::int64_t all = num_elements(dims);
  std::vector<float> elements;
  for (std::int64_t first = 0; first < all; first += kPartElements) {
    Piece part = whole_piece(name, dims);
    part.first = first;
    part.count = std::min(kPartElements, all - first);
    elements.resize(static_cast<std::size_t>(part.count));
    COX_TRY_VOID(reader.read(State::Values, part, elements));
    COX_TRY_VOID(out.write({reinterpret_cast<const char*>(elements.data()), elements.size() * sizeof(float)}));
  }
  return {};
}

Result<void> write_weights(const fs::path& path, const File& file, const Reader& reader, const std::string& prefix) {
  COX_TRY(NewFile out, NewFile::create(path));
  COX_TRY_VOID(out.write(header_of(file, prefix)));
  for (const auto& parameter : file) COX_TRY_VOID(write_parameter(out, reader, parameter->first, parameter->second));
  return out.finish();
}

std::string name_of(std::size_t index, std::size_t count) {
  if (count == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return name;
}

Result<void> write_index(const fs::path& path, const std::vector<File>& files, const std::string& prefix) {
  JsonObject map;
  std::int64_t total = 0;
  for (std::size_t f = 0; f < files.size(); ++f) {
    for (const auto& parameter : files[f]) {
      map[parameter->first.substr(prefix.size())] = name_of(f, files.size());
      total += bytes_of(parameter->second).value;
    }
  }
  const Json index = JsonObject{{"metadata", JsonObject{{"total_size", total}}}, {"weight_map", std::move(map)}};
  return write_file(path, coxswain::to_text(index, 2) + "\n");
}

}  // namespace

Result<ExportedWeights> export_weights(const fs::path& folder, const Manifest& manifest, const fs::path& out,
                                       const ExportOptions& options) {
  Parameters parameters;
  for (const Shard& shard : manifest.shards)
    for (const Piece& piece : shard.pieces) parameters.try_emplace(piece.parameter, piece.dims);
  if (parameters.empty())
    return Error{ErrorCode::DataLoss, "the checkpoint holds no parameters", folder.string(), "", "", ""};
  COX_TRY(const Reader reader, Reader::open(folder, manifest));
  ExportedWeights exported;
  if (options.strips_common_prefix) exported.stripped = common_prefix(parameters);
  const std::vector<File> files = share_out_files(parameters, options.largest_file);
  for (std::size_t f = 0; f < files.size(); ++f) {
    exported.files.push_back(name_of(f, files.size()));
    COX_TRY_VOID(write_weights(out / exported.files.back(), files[f], reader, exported.stripped));
  }
  if (files.size() > 1) {
    exported.files.emplace_back("model.safetensors.index.json");
    COX_TRY_VOID(write_index(out / exported.files.back(), files, exported.stripped));
  }
  for (const auto& [name, dims] : parameters) {
    ++exported.num_parameters;
    exported.num_elements += num_elements(dims);
  }
  return exported;
}

}  // namespace coxswain::checkpoint
