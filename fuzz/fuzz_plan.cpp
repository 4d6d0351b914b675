// Plans, clusters and profiles as JSON: one that is taken prints as one that is taken, to the same text; validate names
// what is wrong and does nothing else.
#include <cstdint>

#include "cluster/profile.h"
#include "cluster/resource_graph.h"
#include "common/json.h"
#include "plan/plan.h"

using namespace coxswain;

namespace {

template <class Value, class Parse>
void round_trip(const Json& json, Parse parse) {
  const auto value = parse(json);
  if (!value) return;
  const auto again = parse(to_json(*value));
  if (!again || to_text(to_json(*again)) != to_text(to_json(*value))) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto json = parse_json({reinterpret_cast<const char*>(data), size});
  if (!json) return 0;
  round_trip<plan::Plan>(*json, [](const Json& one) { return plan::plan_from_json(one); });
  round_trip<cluster::Profile>(*json, [](const Json& one) { return cluster::profile_from_json(one); });
  if (const auto graph = cluster::resource_graph_from_json(*json)) static_cast<void>(cluster::validate(*graph));
  return 0;
}
