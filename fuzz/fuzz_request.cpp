// The body of POST /v1/plans up to what the planner is given; nothing is searched. No file may be opened: there is
// none.
#include <cstdint>

#include "common/json.h"
#include "launcher/rest/plan_request.h"

using namespace coxswain;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto json = parse_json({reinterpret_cast<const char*>(data), size});
  if (json) static_cast<void>(launcher::read_plan_request(*json, {"", "/nothing"}));
  return 0;
}
