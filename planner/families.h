#pragma once
// Families of plans that the chosen one does not belong to, each as a narrower request: "no tensor parallel", "ZeRO 3",
// "schedule gpipe", "all devices". Private to planner/; used by add_reasons. Threads: pure.
#include <optional>
#include <string>
#include <vector>

#include "planner/planner.h"

namespace coxswain::planner {

struct Family {
  std::string name;
  Request request;          // whose plans are the family
  std::string excluded_by;  // a constraint of the user's that has no plan in common with it: "tensor=1"
  std::string key;          // of the constraint that makes it: "tensor"; empty: of devices
};
/// In a fixed order. Only those that a search of this version can be asked for; whether it can is for the search to
/// say.
[[nodiscard]] std::vector<Family> other_families(const Request& request, const plan::Plan& chosen);

/// True when `plan` belongs to the family.
[[nodiscard]] bool belongs(const Family& family, const plan::Plan& plan);

}  // namespace coxswain::planner
