#pragma once
// The joint search: (model, resources, batch, constraints) -> the plan that finishes a step soonest within memory, with
// runners-up, a lower bound and reasons. Deterministic: same input, same bytes, whatever the number of threads.
// Called by the launcher and bench. Threads: pure; uses up to `threads` of its own. Source: DESIGN 3.5.
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "cluster/change.h"
#include "cost_model/cost_model.h"
#include "plan/capabilities.h"
#include "plan/estimate.h"
#include "plan/plan.h"
#include "plan/program.h"
#include "planner/class_facts.h"
#include "planner/move.h"

namespace coxswain::planner {

/// What the user pins (INTERFACE section 1, --constrain). Empty list = free; several = alternatives.
struct Constraints {
  std::vector<int> data, tensor, pipeline, context, expert, zero;
  std::vector<std::int64_t> micro;                   // samples of one micro-batch
  std::optional<std::vector<std::int64_t>> samples;  // per replica
  std::optional<std::string> recompute;              // "none", "full", "selective", "[block,...]"
  std::vector<plan::ScheduleKind> schedule;
  std::string schedule_file;               // "csv:FILE" in place of a schedule; empty: none
  std::optional<plan::CsvSchedule> order;  // what stands in it, read by the caller
  std::optional<std::string> cuts;         // "even" or "[6,10]"
  std::optional<std::string> offload;
  std::string backend = "host";
};
/// Parses "KEY=VALUE[,VALUE...]" strings. Errors: InvalidArgument for all bad ones at once, listing the keys and
/// values.
[[nodiscard]] Result<Constraints> parse_constraints(const std::vector<std::string>& texts);

/// kUnasked, and up to kRunnable what the constraints name.
[[nodiscard]] plan::Capabilities searched_capabilities(const Constraints& constraints);

/// What is least: the step's seconds, or its price (C60).
enum class Objective { Time, Cost };

/// A plan that runs while the next one is looked for (docs/replanning.md).
struct RunningPlan {
  plan::Plan plan;
  cluster::DeviceMap devices;  // from the cluster that it was made for to the one that is planned for
  Seconds horizon{0};          // for how long the next plan is to run, the move included
};

struct Request {
  const cost_model::CostModel* cost = nullptr;
  std::int64_t global_batch = 0;
  std::int64_t tokens_per_sample = 1;
  plan::Precision precision = plan::Precision::Float32;
  Constraints constraints;
  std::int64_t max_candidates = 200000;
  int threads = 1;
  int top_k = 5;
  /// Use every device (else slower ones may be left unused).
  bool use_all_devices = false;
  plan::Capabilities capabilities = plan::kUnasked;
  Objective objective = Objective::Time;
  std::optional<Seconds> max_step;
  std::optional<cluster::Usd> max_cost_per_step;
  /// Where nothing is feasible, name the smallest conflicting set of constraints: up to some 60 searches more.
  bool explain_failure = true;
  /// At most so many devices of each class; empty: all.
  std::vector<std::int64_t> device_limits;
  /// Fewer plans are simulated: for the many searches of a report.
  bool rough = false;
  /// Any feasible plan will do: the search stops at the first.
  bool stop_at_first = false;
  /// The plan that does most work over the horizon is asked for, the move to it included.
  std::optional<RunningPlan> running = {};
  /// Once requested the search ends soon, with search_stopped().
  std::stop_token stop = {};
};

struct RunnerUp {
  plan::Plan plan;
  plan::Estimate estimate;
  std::string summary;               // "dp2 pp1, micro 8 x 4, 1f1b"
  std::optional<Seconds> move = {};  // to it, where there is a running plan
};
struct Rejected {
  std::string reason;
  std::int64_t count = 0;
  std::string example;
  std::string family = "";  // "tensor parallel": what all of them have in common; empty: seen during the search
  std::optional<Seconds> step = std::nullopt;  // of the best of the family
};
struct Sensitivity {
  std::string change;
  Seconds step{0};
  std::string summary = "";  // of the plan that takes it; empty: the same plan
};
/// From the running plan to the one that was chosen.
struct Move {
  MoveEstimate estimate;
  bool keeps_running_plan = false;
  Seconds horizon{0};
  std::optional<Seconds> effective_step = {};  // C76; nothing where the move lasts longer than the horizon
  std::optional<Seconds> running_step = {};    // of the running plan; nothing where it cannot go on
  /// C77: the horizon from which on moving beats staying. Where the running plan is kept: moving to `alternative`.
  std::optional<Seconds> pays_after = {};
  std::string alternative = {};
};
struct PlanResult {
  plan::Plan plan;
  plan::Estimate estimate;
  std::string summary;
  Seconds lower_bound_step{0};
  double optimality_gap = 0;  // of the objective: estimate / lower bound - 1
  Objective objective = Objective::Time;
  std::optional<cluster::Usd> lower_bound_cost;  // of a step, C62; where all devices have a price
  std::string binding_constraint;
  std::vector<RunnerUp> runners_up;
  std::vector<Rejected> rejected;
  std::vector<Sensitivity> sensitivities;
  std::vector<ClassFacts> classes;
  std::int64_t candidates_costed = 0;
  double search_seconds = 0;      // filled by the caller that owns a Clock
  std::optional<Move> move = {};  // where the request has a running plan
};
/// Errors: ResourceExhausted when nothing fits or keeps the limits, naming the smallest conflicting set of constraints,
/// how much memory is missing on which device class and the nearest change that would help; InvalidArgument for
/// constraints that contradict each other (batch that does not divide) and for prices that are asked for and missing.
[[nodiscard]] Result<PlanResult> find_plan(const Request& request);

/// Cancelled: what a search ends with whose stop was requested.
[[nodiscard]] Error search_stopped();

/// Adds what more searches tell: by family why no plan of it was taken, and what one change of hardware would buy. On
/// small clusters (up to 64 devices, a quick search) each is a search of its own, bounded in candidates; on large ones
/// the chosen plan simulated again. `keep_plan`: the plan was given; else a better one that a narrower search happens
/// to find takes its place.
void add_reasons(const Request& request, PlanResult& result, bool keep_plan = false);

/// INTERFACE section 4.
[[nodiscard]] Json to_json(const PlanResult& result);
/// "dp2 pp2, cuts [3], micro 8 x 4 (5+3), 1f1b, recompute none".
[[nodiscard]] std::string summarize(const plan::Plan& plan);

}  // namespace coxswain::planner
