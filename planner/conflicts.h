#pragma once
// Why nothing is feasible: the smallest set of the user's constraints and limits that cannot be met together, and the
// nearest change that can. A deletion filter over the constraints, each trial a small bounded search. Private to
// planner/; called by find_plan. Threads: as find_plan. Source: Chinneck and Dravnieks (1991) for the filter.
#include <string>
#include <vector>

#include "planner/planner.h"

namespace coxswain::planner {

/// One thing that the user pinned.
struct UserConstraint {
  std::string key;   // "tensor", "max-step-seconds"
  std::string text;  // "tensor=1,2"
  friend bool operator==(const UserConstraint&, const UserConstraint&) = default;
};
/// In the order of INTERFACE section 1; limits last.
[[nodiscard]] std::vector<UserConstraint> list_constraints(const Request& request);
/// The request with only the listed ones.
[[nodiscard]] Request keep_constraints(const Request& request, const std::vector<UserConstraint>& kept);
/// What `plan` does about `key`, as a constraint: "tensor=2". Empty for keys that a plan does not show.
[[nodiscard]] std::string constraint_of(const plan::Plan& plan, const std::string& key);

/// `error` of a search for `request`, with the smallest conflicting set in its message and the nearest feasible changes
/// in its hint. As it is where no constraint is set or where it already names what contradicts what.
/// Cost: at most kMostTrials searches that stop at the first feasible plan, and one search a member of the set.
[[nodiscard]] Error explain_conflict(const Request& request, const Error& error);

inline constexpr int kMostTrials = 64;

}  // namespace coxswain::planner
