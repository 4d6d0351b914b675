#pragma once
// How a safetensors file begins. Private to this folder. Threads: pure.
// Source: https://github.com/huggingface/safetensors, section Format.
#include <string>

#include "common/json.h"

namespace coxswain::checkpoint {

/// Eight bytes of length, then `tensors` as JSON, padded with spaces to whole words.
[[nodiscard]] std::string safetensors_header(JsonObject tensors);

}  // namespace coxswain::checkpoint
