#include "cluster/profile.h"

#include <limits>
#include <tuple>

namespace coxswain::cluster {
namespace {

constexpr std::int64_t kFormatVersion = 1;
constexpr std::int64_t kMaxBytes = std::numeric_limits<std::int64_t>::max() / 4;

double non_negative(JsonReader& reader, const std::string& key) {
  const double value = reader.number(key);
  if (value < 0)
    reader.problem(Error{ErrorCode::InvalidArgument, "value must not be negative", key, "a number of at least 0",
                         to_text(Json(value)), ""});
  return value;
}

BlockTiming read_block(JsonReader& reader) {
  BlockTiming block;
  block.signature = reader.string("signature");
  block.device_class = reader.string("device_class");
  block.samples = reader.integer("samples", 1, std::int64_t{1} << 40);
  block.forward = Seconds(non_negative(reader, "forward_seconds"));
  block.backward = Seconds(non_negative(reader, "backward_seconds"));
  block.saved = Bytes(reader.integer("saved_bytes", 0, kMaxBytes));
  block.transient = Bytes(reader.integer("transient_bytes", 0, kMaxBytes));
  if (reader.has("expert_load_cv")) block.expert_load_cv = non_negative(reader, "expert_load_cv");
  return block;
}

Profile::DeviceRates read_device(JsonReader& reader) {
  Profile::DeviceRates rates;
  rates.device_class = reader.string("device_class");
  rates.optimizer_per_parameter = Seconds(non_negative(reader, "optimizer_seconds_per_parameter"));
  rates.norm_per_parameter = Seconds(non_negative(reader, "norm_seconds_per_parameter"));
  rates.step_overhead = Seconds(non_negative(reader, "step_overhead_seconds"));
  rates.action_overhead = Seconds(non_negative(reader, "action_overhead_seconds"));
  rates.base_memory = Bytes(reader.integer("base_memory_bytes", 0, kMaxBytes));
  return rates;
}

}  // namespace

Json to_json(const Profile& profile) {
  JsonArray blocks, devices;
  for (const BlockTiming& block : profile.blocks) {
    JsonObject json{{"backward_seconds", block.backward.value}, {"device_class", block.device_class},
                    {"forward_seconds", block.forward.value},   {"samples", block.samples},
                    {"saved_bytes", block.saved.value},         {"signature", block.signature},
                    {"transient_bytes", block.transient.value}};
    if (block.expert_load_cv >= 0) json["expert_load_cv"] = block.expert_load_cv;
    blocks.push_back(std::move(json));
  }
  for (const Profile::DeviceRates& rates : profile.devices) {
    devices.push_back(JsonObject{{"action_overhead_seconds", rates.action_overhead.value},
                                 {"base_memory_bytes", rates.base_memory.value},
                                 {"device_class", rates.device_class},
                                 {"norm_seconds_per_parameter", rates.norm_per_parameter.value},
                                 {"optimizer_seconds_per_parameter", rates.optimizer_per_parameter.value},
                                 {"step_overhead_seconds", rates.step_overhead.value}});
  }
  JsonObject object{{"blocks", std::move(blocks)},
                    {"devices", std::move(devices)},
                    {"format_version", kFormatVersion},
                    {"model_hash", profile.model_hash}};
  if (!profile.precision.empty()) object["precision"] = profile.precision;
  return object;
}

Result<Profile> profile_from_json(const Json& json) {
  Profile profile;
  JsonReader reader(json, "");
  reader.integer("format_version", kFormatVersion, kFormatVersion);
  profile.model_hash = reader.string("model_hash");
  if (reader.has("precision")) profile.precision = reader.string("precision");
  const auto read_each = [&](const std::string& key, auto read) {
    const JsonArray& elements = reader.array(key);
    for (std::size_t i = 0; i < elements.size(); ++i) {
      JsonReader inner(elements[i], key + "[" + std::to_string(i) + "]");
      read(inner);
      for (Error& problem : inner.take_problems()) reader.problem(std::move(problem));
    }
  };
  read_each("blocks", [&](JsonReader& inner) { profile.blocks.push_back(read_block(inner)); });
  read_each("devices", [&](JsonReader& inner) { profile.devices.push_back(read_device(inner)); });
  for (std::size_t i = 1; i < profile.blocks.size(); ++i) {
    const BlockTiming& a = profile.blocks[i - 1];
    const BlockTiming& b = profile.blocks[i];
    if (std::tie(a.signature, a.device_class, a.samples) >= std::tie(b.signature, b.device_class, b.samples)) {
      reader.problem(Error{ErrorCode::InvalidArgument, "blocks are not in order", "blocks[" + std::to_string(i) + "]",
                           "ascending (signature, device_class, samples), each once",
                           b.signature + " " + b.device_class + " " + std::to_string(b.samples), ""});
    }
  }
  COX_TRY_VOID(reader.finish());
  return profile;
}

}  // namespace coxswain::cluster
