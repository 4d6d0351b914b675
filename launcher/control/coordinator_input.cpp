#include "launcher/control/coordinator_input.h"

#include <limits>

#include "proto/error_json.h"

namespace coxswain::launcher {
namespace {

constexpr std::int64_t kAnyStep = std::numeric_limits<std::int64_t>::max();

JsonArray to_array(const std::vector<std::int64_t>& numbers) {
  JsonArray array;
  for (const std::int64_t number : numbers) array.push_back(number);
  return array;
}

}  // namespace

Json to_json(const PlanRecord& record) {
  JsonArray ranks;
  for (const RankBinding& rank : record.chosen.ranks)
    ranks.push_back(
        JsonObject{{"node", rank.node}, {"local_device", rank.local_device}, {"device_class", rank.device_class}});
  JsonArray without;
  for (const int node : record.chosen.without) without.push_back(node);
  return JsonObject{{"plan_json", record.chosen.plan_json},
                    {"ranks", std::move(ranks)},
                    {"steps", record.chosen.steps},
                    {"longest_action_seconds", record.chosen.longest_action_seconds},
                    {"without", std::move(without)},
                    {"known_nodes", record.chosen.known_nodes},
                    {"looked_at", record.chosen.looked_at},
                    {"known", to_json(record.known)},
                    {"plan_text", record.plan_text},
                    {"model_hash", record.model_hash},
                    {"plan_hash", record.plan_hash},
                    {"summary", record.summary},
                    {"backend", record.backend},
                    {"cluster", record.cluster},
                    {"num_devices", record.num_devices},
                    {"num_nodes", record.num_nodes},
                    {"search_seconds", record.search_seconds},
                    {"step_seconds", record.prediction.step_seconds},
                    {"model_flops_utilization", record.prediction.model_flops_utilization},
                    {"peak_memory_bytes", to_array(record.prediction.peak_memory_bytes)},
                    {"tokens_per_step", record.prediction.tokens_per_step}};
}

Result<PlanRecord> plan_record_from_json(const Json& json) {
  JsonReader reader(json, "plan_chosen");
  PlanRecord record;
  record.chosen.plan_json = reader.string("plan_json");
  for (const Json& item : reader.array("ranks")) {
    JsonReader rank(item, "plan_chosen.ranks");
    record.chosen.ranks.push_back({static_cast<int>(rank.integer("node", 0, 1 << 20)),
                                   static_cast<int>(rank.integer("local_device", 0, 1 << 20)),
                                   rank.string("device_class")});
    COX_TRY_VOID(rank.finish());
  }
  record.chosen.steps = reader.integer("steps", 0, kAnyStep);
  record.chosen.longest_action_seconds = reader.number("longest_action_seconds");
  for (const Json& node : reader.array("without"))
    record.chosen.without.push_back(node.is_integer() ? static_cast<int>(node.integer()) : 0);
  record.chosen.known_nodes = static_cast<int>(reader.integer("known_nodes", 0, 1 << 30));
  record.chosen.looked_at = reader.boolean("looked_at");
  COX_TRY(record.known, corrections_from_json(reader.object("known")));
  record.plan_text = reader.string("plan_text");
  record.model_hash = reader.string("model_hash");
  record.plan_hash = record.chosen.plan_hash = reader.string("plan_hash");
  record.summary = reader.string("summary");
  record.backend = reader.string("backend");
  record.cluster = reader.string("cluster");
  record.num_devices = static_cast<int>(reader.integer("num_devices", 0, 1 << 30));
  record.num_nodes = static_cast<int>(reader.integer("num_nodes", 0, 1 << 30));
  record.search_seconds = reader.number("search_seconds");
  record.prediction.step_seconds = record.chosen.step_seconds = reader.number("step_seconds");
  record.prediction.model_flops_utilization = reader.number("model_flops_utilization");
  for (const Json& bytes : reader.array("peak_memory_bytes"))
    record.prediction.peak_memory_bytes.push_back(bytes.is_integer() ? bytes.integer() : 0);
  record.prediction.tokens_per_step = reader.integer("tokens_per_step", 0, kAnyStep);
  COX_TRY_VOID(reader.finish());
  return record;
}

Json to_json(const CalibrationRecord& record) {
  JsonObject object{{"generation", record.generation}, {"findings", record.findings}, {"known", to_json(record.known)}};
  if (record.plan) object["plan"] = to_json(*record.plan);
  return object;
}

Result<CalibrationRecord> calibration_record_from_json(const Json& json) {
  JsonReader reader(json, "calibrated");
  CalibrationRecord record;
  record.generation = static_cast<int>(reader.integer("generation", 0, 1 << 30));
  for (const Json& finding : reader.array("findings")) {
    if (finding.is_object()) record.findings.push_back(finding);
  }
  COX_TRY(record.known, corrections_from_json(reader.object("known")));
  if (reader.has("plan")) {
    COX_TRY(record.plan, plan_record_from_json(reader.object("plan")));
  }
  COX_TRY_VOID(reader.finish());
  return record;
}

Json to_json(const StepsTaken& taken) {
  JsonArray agents;
  for (const auto& [agent, number] : taken.taken)
    agents.push_back(JsonObject{{"agent", agent}, {"number", static_cast<std::int64_t>(number)}});
  return JsonObject{{"step", taken.step}, {"output", taken.output}, {"taken", std::move(agents)}};
}

Result<StepsTaken> steps_taken_from_json(const Json& json) {
  JsonReader reader(json, "steps_taken");
  StepsTaken taken;
  taken.step = reader.integer("step", 0, kAnyStep);
  taken.output = reader.object("output");
  for (const Json& item : reader.array("taken")) {
    JsonReader agent(item, "steps_taken.taken");
    const int number = static_cast<int>(agent.integer("agent", 0, 1 << 30));
    taken.taken[number] = static_cast<std::uint64_t>(agent.integer("number", 0, kAnyStep));
    COX_TRY_VOID(agent.finish());
  }
  COX_TRY_VOID(reader.finish());
  return taken;
}

Json to_json(const Publication& publication) {
  JsonObject object{{"step", publication.step}};
  if (publication.error) object["error"] = proto::to_json(*publication.error);
  return object;
}

Result<Publication> publication_from_json(const Json& json) {
  Publication publication;
  if (!json["step"].is_integer())
    return Error{ErrorCode::DataLoss, "a publication without its step", "journal", "", "", ""};
  publication.step = json["step"].integer();
  if (json["error"].is_object()) publication.error = proto::error_from_json(json["error"]);
  return publication;
}

Json to_json(const RecoveryPoint& point) {
  JsonArray rejected;
  for (const Error& error : point.rejected) rejected.push_back(proto::to_json(error));
  JsonObject object{{"folder", point.folder}, {"step", point.step}, {"rejected", std::move(rejected)}};
  if (point.memory) {
    const checkpoint::Progress& progress = point.memory->progress;
    object["memory"] =
        JsonObject{{"generation", point.memory->generation},  {"next_sample", progress.next_sample},
                   {"loss_scale", progress.loss_scale},       {"steps_since_scaled", progress.steps_since_scaled},
                   {"skipped_steps", progress.skipped_steps}, {"skipped_in_a_row", progress.skipped_in_a_row}};
  }
  return object;
}

Result<RecoveryPoint> recovery_point_from_json(const Json& json) {
  if (!json["folder"].is_string() || !json["step"].is_integer() || !json["rejected"].is_array())
    return Error{ErrorCode::DataLoss, "no recovery point", "journal", "folder, step, rejected", to_text(json), ""};
  RecoveryPoint point{json["folder"].string(), json["step"].integer(), {}};
  for (const Json& error : json["rejected"].array()) point.rejected.push_back(proto::error_from_json(error));
  if (json["memory"].is_object()) {
    JsonReader reader(json["memory"], "recovery_found.memory");
    StepInMemory memory;
    memory.generation = static_cast<int>(reader.integer("generation", 0, 1 << 30));
    memory.progress.step = point.step;
    memory.progress.next_sample = reader.integer("next_sample", 0, kAnyStep);
    memory.progress.loss_scale = reader.number("loss_scale");
    memory.progress.steps_since_scaled = reader.integer("steps_since_scaled", 0, kAnyStep);
    memory.progress.skipped_steps = reader.integer("skipped_steps", 0, kAnyStep);
    memory.progress.skipped_in_a_row = reader.integer("skipped_in_a_row", 0, kAnyStep);
    COX_TRY_VOID(reader.finish());
    point.memory = memory;
  }
  return point;
}

}  // namespace coxswain::launcher
