// The bodies of POST /v1/plans, up to what the planner is given (nothing is searched, no file may be opened: there is
// none), and of an agent that joins.
#include <cstdint>

#include "common/json.h"
#include "launcher/rest/node_report.h"
#include "launcher/rest/plan_request.h"

using namespace coxswain;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto json = parse_json({reinterpret_cast<const char*>(data), size});
  if (!json) return 0;
  static_cast<void>(launcher::read_plan_request(*json, {"", "/nothing"}));
  static_cast<void>(launcher::node_report_from_json("node", *json));
  return 0;
}
