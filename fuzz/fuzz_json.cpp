// parse_json: what it takes, it prints as text that it takes again, to the same value.
#include <cstdint>

#include "common/json.h"

using namespace coxswain;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto json = parse_json({reinterpret_cast<const char*>(data), size});
  if (!json) return 0;
  const auto again = parse_json(to_text(*json));
  if (!again || !(*again == *json)) __builtin_trap();
  return 0;
}
