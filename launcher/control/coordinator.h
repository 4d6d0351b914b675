#pragma once
// The coordinator's decisions: events in, decisions out. Knows membership, generations and which failure came first;
// knows no socket, file, thread or clock (time is passed in), so that tests drive it with a ManualClock. Called by
// coordinator_process.cpp and tests. Threads: one. Source: DESIGN 3.8.
#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "checkpoint/manifest.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/exit_code.h"
#include "common/json.h"
#include "launcher/control/failure.h"
#include "launcher/control/held_states.h"
#include "launcher/control/local_start.h"
#include "launcher/control/open_saves.h"
#include "launcher/control/open_steps.h"
#include "launcher/control/restarts.h"
#include "launcher/control/save_interval.h"
#include "launcher/control/spread_saves.h"
#include "launcher/control/step_row.h"
#include "launcher/control/trace_steps.h"

namespace coxswain::launcher {

/// Where one rank runs.
struct RankBinding {
  int node = 0;          // position in the order of nodes
  int local_device = 0;  // index into that agent's devices
  std::string device_class;
};

/// A generation as the planner wants it.
struct ChosenPlan {
  std::string plan_json;
  std::vector<RankBinding> ranks;
  std::int64_t steps = 0;
  double longest_action_seconds = 0;  // predicted, of one compute action
  double step_seconds = 0;            // predicted
  std::string plan_hash{};
  std::vector<int> without{};  // nodes that were lost when it was looked for
  int known_nodes = 0;         // of the run at that time, lost or not; later ones came since. 0: all
  bool looked_at = false;      // ranks tell the times of a few of its steps (looked_steps)
};

/// Sends `body` (a serialised AgentCommand) to the agent.
struct SendCommand {
  int agent = 0;
  std::string body;
};
/// Sends `body` to each of them.
struct SendToAll {
  std::vector<int> agents;
  std::string body;
};
/// Measuring is done, nodes are lost that the plan needs, or some are back that it does not have: choose a plan from
/// `measurements` without `lost_nodes` (in another thread), then call plan_chosen or plan_failed.
struct ChoosePlan {};
struct RecordEvent {
  Json event;
};
struct RecordStep {
  StepRow row;
};
/// Every rank has written its shard: publish the checkpoint (in another thread), then call checkpoint_published. With
/// `agents`, whose nodes share no disk: each is told to put its part in its place, and answers itself.
struct PublishCheckpoint {
  checkpoint::Progress progress;
  std::vector<checkpoint::Shard> shards;
  std::string plan_hash;
  std::vector<int> agents;
};
/// Where a generation begins.
struct RecoveryPoint {
  std::string folder;           // of a checkpoint; empty: the model's own weights
  std::int64_t step = 0;        // that was the last
  std::vector<Error> rejected;  // newer checkpoints that are damaged
  // Where its shards lie on several nodes:
  std::string manifest{};                             // its text
  std::map<std::string, std::vector<int>> holders{};  // by shard, nodes
  std::optional<StepInMemory> memory{};               // of ranks that kept their process, instead of all of these
};
/// Every process of the generation is gone or has let go of it, and its checkpoints are published: look for the newest
/// whole checkpoint (in another thread), then call recovery_found. `known`: nothing is to be looked for, call it with
/// that.
struct FindCheckpoint {
  std::optional<RecoveryPoint> known{};
};
/// The last decision: how the run ended.
struct RunEnded {
  ExitCode exit_code = ExitCode::Done;
  std::optional<Error> error;
  int signal = 0;  // stopped on request by this signal
};
using Decision = std::variant<SendCommand, SendToAll, ChoosePlan, RecordEvent, RecordStep, PublishCheckpoint,
                              FindCheckpoint, RunEnded>;

/// What is known of a node once its agent joined.
struct NodeView {
  int agent = 0;           // as given to agent_joined
  std::string host, name;  // name: "node 0 (host)"
  std::string hello;       // serialised AgentHello
};

/// What measuring brought, for choose_plan: serialised MeasureReport or CheckReport by rank, nodes in order.
struct Measurements {
  std::vector<NodeView> nodes;
  std::vector<RankBinding> ranks;
  std::vector<std::string> reports;
};

struct CoordinatorSettings {
  RunMode mode = RunMode::Train;
  int num_nodes = 1;            // that it begins with
  int max_nodes = 0;            // that it takes while it trains; less than num_nodes: no more than those
  bool takes_newcomers = true;  // false: files say what devices there are
  std::string run_id;
  double shutdown_timeout_seconds = 30;
  std::string measure_work;  // serialised Work of the first phase (measure or check), without world size
  bool measures = true;      // false: what this run needs was measured before
  std::string train_work;    // serialised Work of training, without plan and world size
  std::string backend = "auto";
  std::map<std::string, std::string> environment;
  std::string master_addr;
  bool saves = false;           // checkpoints
  std::int64_t save_every = 0;  // steps; 0: by save_interval
  std::int64_t keep = 1;        // newest checkpoints that stay
  std::int64_t first_step = 0;  // that was taken before this run; 0: none
  bool asks_nodes = false;      // before it begins: they may hold a newer checkpoint together
  std::string model_hash;
  std::string resume_hint;  // how to go on from what was saved
  int max_restarts = 0;     // within an hour
  int min_nodes = 1;        // with fewer left a run does not go on
};

class Coordinator {
 public:
  explicit Coordinator(CoordinatorSettings settings);
  ~Coordinator();

  /// `agent` is a number that the caller chose; it authenticated and sent `report` first.
  std::vector<Decision> agent_report(int agent, std::string_view report, TimePoint now);
  std::vector<Decision> agent_gone(int agent, std::string_view why, TimePoint now);
  std::vector<Decision> plan_chosen(const ChosenPlan& plan, TimePoint now);
  std::vector<Decision> plan_failed(Error error, TimePoint now);
  /// What the run cannot do without failed: its disk, or the wait for its nodes.
  std::vector<Decision> run_failed(Error error, TimePoint now);
  /// `error`: it is not there.
  std::vector<Decision> checkpoint_published(std::int64_t step, std::optional<Error> error, TimePoint now);
  std::vector<Decision> recovery_found(const RecoveryPoint& point, TimePoint now);
  /// Devices or links of `generation` are other than its plan took them for: `findings`, members of events. `plan`: one
  /// that does more on what there really is. The run moves to it unless it is disturbed, or has moved so kMostMoves
  /// times.
  std::vector<Decision> calibrated(int generation, const JsonArray& findings, const std::optional<ChosenPlan>& plan,
                                   TimePoint now);
  /// First request: ends at the next step boundary, with a checkpoint where they are saved; a second one ends now.
  std::vector<Decision> stop_requested(int signal, TimePoint now);
  /// The coordinator was made again by its journal: what it waits for has had no chance to come.
  std::vector<Decision> restarted(TimePoint now);
  std::vector<Decision> tick(TimePoint now);
  /// In place of what ranks told of steps up to `step` (coordinator_input.h).
  std::vector<Decision> steps_taken(std::int64_t step, TimePoint now);
  /// Training goes on undisturbed: nothing failed that is not recovered, no stop was asked for, no other plan is on its
  /// way. What comes in a time of which this does not hold depends on the steps between.
  [[nodiscard]] bool undisturbed() const {
    // A generation whose begin nodes told together has no input that says so, up to which steps could be dropped.
    return steps_well() && growth_ == Growth::None && !begun_by_listing_;
  }
  [[nodiscard]] std::int64_t last_step() const { return last_step_; }
  /// A tick has something to do.
  [[nodiscard]] bool due(TimePoint now) const;

  [[nodiscard]] const Measurements& measurements() const { return measurements_; }
  /// With those that cannot be used yet: no link to them is known.
  [[nodiscard]] std::vector<int> lost_nodes() const;
  /// Those that had been lost when the plan that runs was chosen.
  [[nodiscard]] const std::vector<int>& planned_without() const { return planned_without_; }
  /// plan_chosen will make it the run's plan at once, not when a generation that goes on has ended.
  [[nodiscard]] bool takes_plan_now() const { return phase_ == Phase::Planning || phase_ == Phase::Replanning; }
  /// It will become the run's plan when the generation that goes on has ended.
  [[nodiscard]] bool awaits(const ChosenPlan& plan) const {
    return next_plan_ && next_plan_->plan_json == plan.plan_json;
  }
  /// It would move to a plan that does more on the same nodes.
  [[nodiscard]] bool may_move() const;
  /// Of the generation that trains.
  [[nodiscard]] const std::vector<TraceSteps>& looks() const { return looks_; }
  /// How many plans became the run's.
  [[nodiscard]] int plans_taken() const { return plans_taken_; }
  [[nodiscard]] int num_ranks() const { return static_cast<int>(bindings_.size()); }
  /// 0 while measuring.
  [[nodiscard]] int generation() const { return generation_; }
  /// Known once measuring began.
  [[nodiscard]] const std::string& backend() const { return backend_; }

 private:
  /// Nodes are back: a plan with them is to be looked for, is looked for, or the generation ends for it. The last also
  /// for a plan that does more on the same nodes, before which a first checkpoint proves that one can be made.
  enum class Growth { None, Wanted, Asked, Proving, Moving };
  struct Newcomer {
    int agent = 0;
    std::string hello;
  };
  /// One that says it is a node that is there: the node's end may not be known yet.
  struct Doubtful {
    Newcomer newcomer;
    TimePoint refuse_at;
  };
  enum class Phase { Joining, Measuring, Planning, Training, Stopping, Recovering, Replanning, Ending, Ended };
  struct Rank;
  struct Node;
  [[nodiscard]] int node_of(int agent) const;  // -1: none
  void number_places();
  void join(int agent, std::string_view hello, TimePoint now);
  [[nodiscard]] int most_nodes() const { return std::max(settings_.num_nodes, settings_.max_nodes); }
  [[nodiscard]] std::optional<Error> refusal_of(std::string_view hello) const;
  [[nodiscard]] int rank_of_node(std::size_t node) const;
  void refuse(int agent, const Error& why);
  int add_node(int agent, std::string_view hello);
  void begin_with_nodes(TimePoint now);
  void take_in(const Newcomer& newcomer);
  void measure_link_of(int number);
  [[nodiscard]] NodeView view_of(int number) const;
  void on_link(int node, std::string_view link);
  [[nodiscard]] std::optional<std::size_t> returning_node(std::string_view hello, bool gone = true) const;
  [[nodiscard]] TimePoint refusal_time(TimePoint now) const;
  void look_at_doubtful(TimePoint now);
  void take_back(std::size_t node, int agent, std::string_view hello);
  [[nodiscard]] bool steps_well() const;
  [[nodiscard]] bool may_grow() const;
  [[nodiscard]] bool needs_first_save() const;
  [[nodiscard]] bool came_back(const std::vector<int>& without) const;
  [[nodiscard]] std::vector<int> missing_from(const ChosenPlan& plan) const;
  [[nodiscard]] bool needs_lost(const ChosenPlan& plan) const;
  void consider(const ChosenPlan& plan);
  void move_to(const ChosenPlan& plan);
  void first_save_ended(bool saved);
  void move_on(TimePoint now);
  void start_measuring(TimePoint now);
  void start_planning();
  void start_generation(const std::string& work_bytes, const std::vector<RankBinding>& ranks,
                        const std::string& plan_json, TimePoint now);
  void on_worker(int rank, std::string_view report, TimePoint now);
  void on_exit(int node, std::string_view exit, TimePoint now);
  void on_generation_ended(int node, std::string_view ended, TimePoint now);
  void let_go(Node& node);
  void let_kept_go(const Node& node);
  void on_stalled(int rank, const std::string& pending, TimePoint now);
  void on_step(int rank, std::string_view step, TimePoint now);
  void on_saved(int rank, std::string_view saved, TimePoint now);
  void on_stored(int node, std::string_view stored, TimePoint now);
  void on_listed(int node, std::string_view listed, TimePoint now);
  void published(std::int64_t step, std::optional<Error> error, TimePoint now);
  void spread_stored(SpreadSaves::Stored done, TimePoint now);
  [[nodiscard]] std::optional<RecoveryPoint> point_in_memory(TimePoint now);
  void find_checkpoint(TimePoint now);
  void end_listing(TimePoint now);
  void go_on_from(const RecoveryPoint& point, TimePoint now);
  void begin_from(const RecoveryPoint& point, TimePoint now);
  [[nodiscard]] std::optional<Error> unfit_to_begin(const RecoveryPoint& point) const;
  [[nodiscard]] std::string work_from(const RecoveryPoint& point) const;
  [[nodiscard]] RecoveryPoint newest_spread() const;
  [[nodiscard]] bool in_reach(const RecoveryPoint& point) const;
  void lose_parts(int node, TimePoint now);
  [[nodiscard]] std::set<int> nodes_left() const;
  [[nodiscard]] std::string copies_go_to(int node) const;
  void checkpoint_failed(std::int64_t step, const Error& error);
  void ask_save(bool stop);
  void plan_next_save(TimePoint now);
  void request_stop(int signal, TimePoint now);
  void suspect(Failure failure, TimePoint now);
  void fail(Failure failure, TimePoint now);
  [[nodiscard]] double suspected_seconds(TimePoint now) const;
  [[nodiscard]] bool enough_nodes() const;
  [[nodiscard]] std::vector<int> ranks_on(int node) const;
  [[nodiscard]] bool plan_needs_lost() const;
  void take_plan(const ChosenPlan& plan);
  void choose_again(TimePoint now);
  void start_when_allowed(TimePoint now);
  [[nodiscard]] bool may_restart(const Failure& failure, TimePoint now) const;
  [[nodiscard]] FailurePoint point_of(const Failure& failure) const;
  [[nodiscard]] bool is_hopeless() const;
  void stop_for_restart(TimePoint now);
  void start_again(TimePoint now);
  void tell_recovered(std::int64_t step, TimePoint now);
  void finish_if_done(TimePoint now);
  void end_run(TimePoint now);
  void stop_everything(double grace_seconds, TimePoint now, Phase then = Phase::Ending);
  void send_to_all(const std::string& body);
  void record(Json event) { decisions_.emplace_back(RecordEvent{std::move(event)}); }
  std::vector<Decision> take();
  [[nodiscard]] RunPosition position() const;

  CoordinatorSettings settings_;
  Phase phase_ = Phase::Joining;
  int generation_ = 0;
  std::string backend_;
  std::vector<Node> nodes_;
  std::map<int, int> places_;          // in nodes_, by agent
  std::optional<TimePoint> begin_at_;  // with the nodes that are there
  std::vector<Newcomer> newcomers_;    // that came before the first generation began, and too late for it
  std::vector<Doubtful> doubtful_;
  TimePoint all_back_by_{};        // after a restart: agents that have not come back by then are lost
  bool begun_by_listing_ = false;  // this generation, after another one
  bool first_save_asked_ = false;  // in this generation, so that the run may grow
  std::set<int> unlinked_;         // newcomers, until a link to them is known
  bool asks_newcomers_ = false;    // a node is there that has not trained yet: what disks it shares is not known
  std::vector<Rank> ranks_;
  bool from_checkpoint_ = false;                  // this generation begins from one
  std::size_t num_ready_ = 0, num_finished_ = 0;  // ranks
  int num_running_ = 0;                           // nodes
  int num_kept_ = 0;                              // processes, from the generation before
  std::vector<RankBinding> bindings_;
  Measurements measurements_;
  std::optional<Failure> suspected_, failure_;
  std::optional<TimePoint> suspected_since_;
  std::string plan_json_;
  std::vector<int> lost_nodes_, planned_without_;  // in the order of loss
  std::string plan_hash_;
  int plans_taken_ = 0;
  bool looked_at_ = false;         // the plan
  std::vector<TraceSteps> looks_;  // of this generation
  int moves_ = 0;                  // to plans that do more on the same nodes
  Growth growth_ = Growth::None;
  std::optional<ChosenPlan> next_plan_;            // of the generation that follows this one
  double action_timeout_ = 0, stall_timeout_ = 0;  // seconds
  Restarts restarts_;
  std::optional<TimePoint> failed_since_, start_at_;  // of a recovery that is under way
  std::int64_t failed_step_ = 0;                      // the last one taken before
  RecoveryPoint recovery_;
  HeldStates held_states_;  // of the generation that ended last
  int memory_starts_ = 0;   // in a row after which no step was taken
  std::optional<TimePoint> suspect_until_, end_by_, stop_by_;
  OpenSteps open_steps_;
  OpenSaves open_saves_;
  std::optional<bool> shares_disk_;  // all nodes see the same checkpoints; nothing: not known yet
  SpreadSaves spread_saves_;
  std::optional<TimePoint> list_by_;  // nodes tell what they hold
  int publishing_ = 0;                // checkpoints, which the next generation waits for
  std::optional<TimePoint> save_at_, training_since_;
  SaveCosts save_costs_;
  std::int64_t last_step_ = 0, last_saved_ = -1, total_steps_ = 0;
  int stop_signal_ = 0;
  std::vector<Decision> decisions_;
};

}  // namespace coxswain::launcher
