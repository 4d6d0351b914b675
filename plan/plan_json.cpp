#include <algorithm>
#include <limits>

#include "common/hash.h"
#include "plan/plan.h"

namespace coxswain::plan {
namespace {

// Far above anything real; keeps sums of counts inside 64 bits and ids inside int.
constexpr std::int64_t kMaxCount = 1'000'000'000;
constexpr std::int64_t kMaxSamples = std::int64_t{1} << 40;

template <class Range, class Convert>
JsonArray to_array(const Range& range, Convert convert) {
  JsonArray array;
  array.reserve(range.size());
  for (const auto& item : range) array.push_back(convert(item));
  return array;
}

JsonArray integers(const std::vector<int>& values) {
  return to_array(values, [](int v) { return Json(v); });
}

Json device_json(const DeviceId& device) {
  return JsonObject{{"device_class", device.device_class}, {"index", device.index}};
}

Json replica_json(const Replica& replica) {
  return JsonObject{{"context", replica.context},
                    {"devices", to_array(replica.devices, device_json)},
                    {"expert", replica.expert},
                    {"samples", replica.samples},
                    {"tensor", replica.tensor}};
}

Json run_json(const BlockRun& run) {
  return JsonObject{{"end_block", run.end_block}, {"first_block", run.first_block}};
}

Json stage_json(const Stage& stage) {
  JsonObject json{{"bucket_starts", integers(stage.bucket_starts)},
                  {"end_block", stage.end_block},
                  {"first_block", stage.first_block},
                  {"offload", to_text(stage.offload)},
                  {"recompute", to_array(stage.recompute, [](Recompute r) { return Json(to_text(r)); })},
                  {"replicas", to_array(stage.replicas, replica_json)},
                  {"zero_stage", stage.zero_stage}};
  // Written where it is used, so that plans without chunks keep their bytes and their hash.
  if (!stage.chunks.empty()) json["chunks"] = to_array(stage.chunks, run_json);
  return json;
}

Json role_json(const Role& role) {
  return JsonObject{{"actions", to_array(role.actions, [](const Action& a) { return Json(to_text(a)); })},
                    {"replicas", integers(role.replicas)},
                    {"stage", role.stage}};
}

std::string at_index(const char* key, std::size_t index) {
  return std::string(key) + "[" + std::to_string(index) + "]";
}

int read_int(JsonReader& reader, const std::string& key, int min) {
  return static_cast<int>(reader.integer(key, min, kMaxCount));
}

/// Takes over what a nested reader found; the nested reader's path is already complete.
void adopt(std::vector<Error>& problems, JsonReader& nested) {
  for (Error& problem : nested.take_problems()) problems.push_back(std::move(problem));
}

std::vector<int> read_integers(JsonReader& reader, const char* key) {
  std::vector<int> values;
  const JsonArray& array = reader.array(key);
  for (std::size_t i = 0; i < array.size(); ++i) {
    if (!array[i].is_integer() || array[i].integer() < 0 || array[i].integer() > kMaxCount) {
      reader.problem(Error{ErrorCode::InvalidArgument, "wrong value", at_index(key, i), "an integer, not negative",
                           to_text(array[i]), ""});
      continue;
    }
    values.push_back(static_cast<int>(array[i].integer()));
  }
  return values;
}

/// A text that must be one of an enumeration's; `first` to `last` are its enumerators.
template <class Enum>
Enum read_enum(JsonReader& reader, const std::string& path, const Json& json,
               std::optional<Enum> (*parse)(std::string_view), Enum last) {
  const std::optional<Enum> value = json.is_string() ? parse(json.string()) : std::nullopt;
  if (value) return *value;
  std::string expected;
  for (int i = 0; i <= static_cast<int>(last); ++i) {
    expected += (i == 0 ? "" : ", ") + std::string(to_text(static_cast<Enum>(i)));
  }
  reader.problem(Error{ErrorCode::InvalidArgument, json.is_null() ? "missing member" : "wrong value", path, expected,
                       json.is_null() ? "nothing" : to_text(json), ""});
  return static_cast<Enum>(0);
}

class PlanReader {
 public:
  Result<Plan> read(const Json& json) {
    JsonReader reader(json, "plan");
    Plan plan;
    plan.format_version = read_int(reader, "format_version", 1);
    plan.model_hash = reader.string("model_hash");
    plan.cluster_hash = reader.string("cluster_hash");
    plan.backend = reader.string("backend");
    plan.precision = read_enum(reader, "precision", reader.any("precision"), parse_precision, Precision::Float16);
    plan.schedule = read_enum(reader, "schedule", reader.any("schedule"), parse_schedule_kind, ScheduleKind::CustomV);
    plan.receive_credits = read_int(reader, "receive_credits", 1);
    plan.batch = read_batch(reader.object("batch"));
    const JsonArray& stages = reader.array("stages");
    for (std::size_t i = 0; i < stages.size(); ++i)
      plan.stages.push_back(read_stage(stages[i], "plan." + at_index("stages", i)));
    const JsonArray& roles = reader.array("roles");
    for (std::size_t i = 0; i < roles.size(); ++i)
      plan.roles.push_back(read_role(roles[i], "plan." + at_index("roles", i)));

    adopt(problems_, reader);
    if (problems_.empty()) return plan;
    const std::string message = "plan has " + std::to_string(problems_.size()) + " problems of form";
    return combine_errors(ErrorCode::InvalidArgument, message, std::move(problems_));
  }

 private:
  Batch read_batch(const Json& json) {
    JsonReader reader(json, "plan.batch");
    Batch batch;
    batch.global = reader.integer("global", 1, kMaxSamples);
    batch.micro = reader.integer("micro", 1, kMaxSamples);
    batch.count = reader.integer("count", 1, kMaxCount);
    adopt(problems_, reader);
    return batch;
  }

  DeviceId read_device(const Json& json, std::string path) {
    JsonReader reader(json, std::move(path));
    DeviceId device;
    device.device_class = read_int(reader, "device_class", 0);
    device.index = reader.integer("index", 0, std::numeric_limits<std::int64_t>::max());
    adopt(problems_, reader);
    return device;
  }

  Replica read_replica(const Json& json, const std::string& path) {
    JsonReader reader(json, path);
    Replica replica;
    replica.tensor = read_int(reader, "tensor", 1);
    replica.context = read_int(reader, "context", 1);
    replica.expert = read_int(reader, "expert", 1);
    replica.samples = reader.integer("samples", 0, kMaxSamples);
    const JsonArray& devices = reader.array("devices");
    for (std::size_t i = 0; i < devices.size(); ++i)
      replica.devices.push_back(read_device(devices[i], path + "." + at_index("devices", i)));
    adopt(problems_, reader);
    return replica;
  }

  Stage read_stage(const Json& json, const std::string& path) {
    JsonReader reader(json, path);
    Stage stage;
    stage.first_block = read_int(reader, "first_block", 0);
    stage.end_block = read_int(reader, "end_block", 0);
    stage.zero_stage = static_cast<int>(reader.integer("zero_stage", 0, 3));
    stage.offload = read_enum(reader, "offload", reader.any("offload"), parse_offload, Offload::Activations);
    stage.bucket_starts = read_integers(reader, "bucket_starts");
    const JsonArray& recompute = reader.array("recompute");
    for (std::size_t i = 0; i < recompute.size(); ++i) {
      stage.recompute.push_back(
          read_enum(reader, at_index("recompute", i), recompute[i], parse_recompute, Recompute::Selective));
    }
    const JsonArray& replicas = reader.array("replicas");
    for (std::size_t i = 0; i < replicas.size(); ++i)
      stage.replicas.push_back(read_replica(replicas[i], path + "." + at_index("replicas", i)));
    const JsonArray& chunks = reader.has("chunks") ? reader.array("chunks") : kNone;
    for (std::size_t i = 0; i < chunks.size(); ++i) {
      JsonReader run(chunks[i], path + "." + at_index("chunks", i));
      const int first_block = read_int(run, "first_block", 0);
      stage.chunks.push_back({first_block, read_int(run, "end_block", 0)});
      adopt(problems_, run);
    }
    adopt(problems_, reader);
    return stage;
  }

  Role read_role(const Json& json, const std::string& path) {
    JsonReader reader(json, path);
    Role role;
    role.stage = read_int(reader, "stage", 0);
    role.replicas = read_integers(reader, "replicas");
    const JsonArray& actions = reader.array("actions");
    role.actions.reserve(actions.size());
    for (std::size_t i = 0; i < actions.size(); ++i) {
      const auto action = actions[i].is_string() ? parse_action(actions[i].string()) : std::nullopt;
      if (action) {
        role.actions.push_back(*action);
      } else {
        reader.problem(Error{ErrorCode::InvalidArgument, "not an action", at_index("actions", i),
                             "for example F0[0,2), RECV_F0, REDUCE_GRAD[0,2), REDUCE_NORM", to_text(actions[i]), ""});
      }
    }
    adopt(problems_, reader);
    return role;
  }

  static inline const JsonArray kNone;
  std::vector<Error> problems_;
};

}  // namespace

Json to_json(const Plan& plan) {
  return JsonObject{
      {"backend", plan.backend},
      {"batch", JsonObject{{"count", plan.batch.count}, {"global", plan.batch.global}, {"micro", plan.batch.micro}}},
      {"cluster_hash", plan.cluster_hash},
      {"format_version", plan.format_version},
      {"model_hash", plan.model_hash},
      {"precision", to_text(plan.precision)},
      {"receive_credits", plan.receive_credits},
      {"roles", to_array(plan.roles, role_json)},
      {"schedule", to_text(plan.schedule)},
      {"stages", to_array(plan.stages, stage_json)}};
}

Result<Plan> plan_from_json(const Json& json) { return PlanReader().read(json); }

std::string plan_hash(const Plan& plan) { return sha256_hex(coxswain::to_text(to_json(plan))); }

}  // namespace coxswain::plan
