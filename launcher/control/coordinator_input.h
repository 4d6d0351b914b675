#pragma once
// All that a coordinator's decisions follow from: what it was told and when, as values that the journal keeps. The same
// inputs in the same order make the same coordinator, after a restart too. Threads: pure values.
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/result.h"
#include "launcher/control/console.h"
#include "launcher/control/coordinator.h"
#include "launcher/control/corrections.h"

namespace coxswain::launcher {

/// `body` of each stands beside it. The numbers stand in journals: never reused.
enum class InputKind {
  AgentReport = 1,    // serialised
  AgentGone = 2,      // why
  PlanChosen = 3,     // PlanRecord
  RunFailed = 4,      // an error
  Published = 5,      // Publication
  RecoveryFound = 6,  // RecoveryPoint
  StopRequested = 7,  // the signal's number
  Tick = 8,
  Restarted = 9,
  StepsTaken = 10,  // StepsTaken
  PlanFailed = 11,  // an error
  Calibrated = 12,  // CalibrationRecord
};

struct Input {
  InputKind kind = InputKind::Tick;
  TimePoint at;
  int agent = 0;             // of AgentReport and AgentGone
  std::uint64_t number = 0;  // of that agent's reports; 0: its hello
  std::int64_t step = 0;     // of a report of a step; 0: another input
  std::string body;
};

/// The plan of the run and what is told with it.
struct PlanRecord {
  ChosenPlan chosen;
  std::string plan_text;                                         // plan-1.json
  std::string model_hash, plan_hash, summary, backend, cluster;  // cluster: in words
  int num_devices = 0, num_nodes = 0;
  double search_seconds = 0;
  Prediction prediction;
  Corrections known;  // of devices and links, when it was chosen
};
[[nodiscard]] Json to_json(const PlanRecord& record);
[[nodiscard]] Result<PlanRecord> plan_record_from_json(const Json& json);

/// What a few steps of a generation showed.
struct CalibrationRecord {
  int generation = 0;
  JsonArray findings;              // members of events
  Corrections known;               // from now on
  std::optional<PlanRecord> plan;  // that does more
};
[[nodiscard]] Json to_json(const CalibrationRecord& record);
[[nodiscard]] Result<CalibrationRecord> calibration_record_from_json(const Json& json);

/// In place of the reports of steps up to `step` of a generation that goes on undisturbed.
struct StepsTaken {
  std::int64_t step = 0;
  Json output;                         // of RunOutput then
  std::map<int, std::uint64_t> taken;  // by agent: its last report that had been taken
};
[[nodiscard]] Json to_json(const StepsTaken& taken);
[[nodiscard]] Result<StepsTaken> steps_taken_from_json(const Json& json);

struct Publication {
  std::int64_t step = 0;
  std::optional<Error> error;
};
[[nodiscard]] Json to_json(const Publication& publication);
[[nodiscard]] Result<Publication> publication_from_json(const Json& json);

[[nodiscard]] Json to_json(const RecoveryPoint& point);
[[nodiscard]] Result<RecoveryPoint> recovery_point_from_json(const Json& json);

}  // namespace coxswain::launcher
