#include "checkpoint/safetensors_header.h"

#include <cstdint>

namespace coxswain::checkpoint {

std::string safetensors_header(JsonObject tensors) {
  constexpr std::size_t kAlignment = 8;
  std::string text = to_text(Json(std::move(tensors)));
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');
  std::string header;
  for (std::size_t i = 0; i < sizeof(std::uint64_t); ++i) header += static_cast<char>(text.size() >> (8 * i) & 0xff);
  return header + text;
}

}  // namespace coxswain::checkpoint
