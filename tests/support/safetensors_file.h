#pragma once
// Safetensors files written by hand, byte by byte as the format says.
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace coxswain::tests {

struct WrittenTensor {
  std::string name, dtype;
  std::vector<std::int64_t> dims;
  std::string bytes;
};

template <class T>
std::string bytes_of(const std::vector<T>& elements) {
  return {reinterpret_cast<const char*>(elements.data()), elements.size() * sizeof(T)};
}

inline void write_with_header(const std::filesystem::path& path, const std::string& header, const std::string& data) {
  std::ofstream out(path, std::ios::binary);
  for (int i = 0; i < 8; ++i) out.put(static_cast<char>(header.size() >> (8 * i)));
  out << header << data;
}

inline void write_safetensors(const std::filesystem::path& path, const std::vector<WrittenTensor>& tensors) {
  std::string header = R"({"__metadata__":{"format":"pt"})", data;
  for (const WrittenTensor& tensor : tensors) {
    std::string dims;
    for (const std::int64_t dim : tensor.dims) dims += (dims.empty() ? "" : ",") + std::to_string(dim);
    header += ",\"" + tensor.name + R"(":{"dtype":")" + tensor.dtype + R"(","shape":[)" + dims +
              R"(],"data_offsets":[)" + std::to_string(data.size()) + "," +
              std::to_string(data.size() + tensor.bytes.size()) + "]}";
    data += tensor.bytes;
  }
  write_with_header(path, header + "}", data);
}

}  // namespace coxswain::tests
