#pragma once
// What may be asked of a plan, as data: what this version's engine runs, and what the planner can cost. `launch train`
// searches the first, `launch plan` the second. Threads: pure values. Source: DESIGN 3.5.
#include <string>
#include <vector>

namespace coxswain::plan {

enum class ScheduleKind;
enum class Precision;
struct Plan;

struct Capabilities {
  int max_tensor = 1;      // devices of a tensor axis
  int max_zero_stage = 0;  // 0 to 3
  bool bfloat16 = false, float16 = false;
  bool zero_bubble = false;             // schedules whose backward is split: zbh1, zbh2; with chunks zbv
  bool chunks = false;                  // several chunks a stage: interleaved
  int max_context = 1, max_expert = 1;  // devices of a context axis, replicas of an expert axis
  bool expert_combined = false;         // with ZeRO over holders of the same experts, and with unequal meshes
  bool selective_recompute = false;
  bool offload = false;
  friend bool operator==(const Capabilities&, const Capabilities&) = default;
};
/// What a worker of this version runs.
inline constexpr Capabilities kRunnable{.max_tensor = 64,
                                        .max_zero_stage = 3,
                                        .bfloat16 = true,
                                        .float16 = true,
                                        .zero_bubble = true,
                                        .chunks = true,
                                        .max_context = 64,
                                        .max_expert = 64,
                                        .selective_recompute = true,
                                        .offload = true};
/// What `launch train` searches where the job asks for nothing more: what runs and whose predicted steps were held
/// against measured ones. Constraints widen it (planner::searched_capabilities).
inline constexpr Capabilities kUnasked = [] {
  Capabilities unasked = kRunnable;
  unasked.max_tensor = unasked.max_context = unasked.max_expert = 1;
  unasked.max_zero_stage = 0;
  unasked.selective_recompute = unasked.offload = false;
  return unasked;
}();
/// What the cost model knows.
inline constexpr Capabilities kPlannable{.max_tensor = 64,
                                         .max_zero_stage = 3,
                                         .bfloat16 = true,
                                         .float16 = true,
                                         .zero_bubble = true,
                                         .chunks = true,
                                         .max_context = 64,
                                         .max_expert = 64,
                                         .expert_combined = true,
                                         .selective_recompute = true,
                                         .offload = true};

/// Float32 always.
[[nodiscard]] bool has_precision(const Capabilities& capabilities, Precision precision);

/// GPipe and 1F1B always.
[[nodiscard]] bool has_schedule(const Capabilities& capabilities, ScheduleKind kind);

/// What `plan` uses beyond `capabilities`, in the field's words ("tensor parallelism"); empty: it can run.
[[nodiscard]] std::vector<std::string> list_beyond(const Plan& plan, const Capabilities& capabilities);

}  // namespace coxswain::plan
