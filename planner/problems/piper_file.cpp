#include "planner/problems/piper_file.h"

#include <charconv>
#include <optional>

namespace coxswain::planner {
namespace {

std::optional<std::int64_t> whole_number(const std::string& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Error wrong(std::string path, std::string expected, std::string got) {
  return {ErrorCode::InvalidArgument, "wrong value", std::move(path), std::move(expected), std::move(got), ""};
}

class Converter {
 public:
  Result<PiperDocuments> convert(const Json& json) {
    JsonReader reader(json, "");
    for (const auto& [key, value] : json.object()) reader.any(key);  // remarks may stand anywhere
    result_.instance["devices"] = reader.integer("maxDevices", 1, kMaxCount);
    // The name in the documentation, and the one in the files that come with it.
    const char* batch = reader.has("maxBatchSize") ? "maxBatchSize" : "mbsInBatch";
    result_.instance["microbatches"] = reader.integer(batch, 1, kMaxCount);
    result_.instance["memory_bytes_per_device"] = reader.number("maxMemoryPerDevice");
    result_.instance["bandwidth_bytes_per_s"] = reader.number("bandwidth");
    result_.instance["model_file"] = "";
    JsonArray nodes, edges;
    const JsonArray& given_nodes = reader.array("nodes");
    for (std::size_t i = 0; i < given_nodes.size(); ++i)
      nodes.push_back(node(given_nodes[i], "nodes[" + std::to_string(i) + "]"));
    const JsonArray& given_edges = reader.array("edges");
    for (std::size_t i = 0; i < given_edges.size(); ++i)
      edges.push_back(edge(given_edges[i], "edges[" + std::to_string(i) + "]"));
    result_.model = JsonObject{{"nodes", std::move(nodes)}, {"edges", std::move(edges)}};
    append(reader.take_problems());
    if (problems_.empty()) return std::move(result_);
    return combine_errors(ErrorCode::InvalidArgument, "the Piper file has problems", std::move(problems_));
  }

 private:
  static constexpr std::int64_t kMaxCount = std::int64_t{1} << 40;

  void append(std::vector<Error> more) {
    problems_.insert(problems_.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  }

  static JsonReader open(const Json& json, std::string path) {
    JsonReader reader(json, std::move(path));
    if (json.is_object()) {
      for (const auto& [key, value] : json.object()) reader.any(key);
    }
    return reader;
  }

  Json node(const Json& json, const std::string& path) {
    JsonReader reader = open(json, path);
    Json result;
    result["id"] = reader.integer("id", 0, kMaxCount);
    JsonArray options;
    const Json& by_degree = reader.object("TMPCs");
    append(reader.take_problems());
    for (const auto& [key, list] : by_degree.object()) {
      const auto tp = whole_number(key);
      const std::string place = path + ".TMPCs." + key;
      if (!tp || !list.is_array()) {
        problems_.push_back(wrong(place, "a list under a tensor degree", key));
        continue;
      }
      for (std::size_t i = 0; i < list.array().size(); ++i)
        options.push_back(option(list.array()[i], *tp, place + "[" + std::to_string(i) + "]"));
    }
    result["options"] = std::move(options);
    return result;
  }

  Json option(const Json& json, std::int64_t tp, const std::string& path) {
    JsonReader reader = open(json, path);
    Json result;
    result["tp"] = tp;
    result["variant"] = reader.string("id");
    result["seconds"] = reader.number("timePerSample");
    result["parameter_bytes"] = reader.number("parameterSize");
    result["memory_per_stash"] = reader.number("memoryUsageA");
    result["memory_fixed"] = reader.number("memoryUsageB");
    result["sync_in"] = sync(reader, "syncTimeFw");
    result["sync_out"] = sync(reader, "syncTimeBw");
    append(reader.take_problems());
    return result;
  }

  static JsonArray sync(JsonReader& reader, const char* key) {
    JsonArray entries;
    for (const auto& [name, bytes] : reader.object(key).object()) {
      const auto node = whole_number(name);
      if (node && bytes.is_number()) {
        entries.emplace_back(JsonArray{*node, bytes.number()});
      } else {
        reader.problem(wrong(std::string(key) + "." + name, "bytes under the id of a node", to_text(bytes)));
      }
    }
    return entries;
  }

  Json edge(const Json& json, const std::string& path) {
    JsonReader reader = open(json, path);
    JsonArray result{reader.integer("sourceId", 0, kMaxCount), reader.integer("destId", 0, kMaxCount),
                     reader.number("communicationCost")};
    append(reader.take_problems());
    return result;
  }

  PiperDocuments result_;
  std::vector<Error> problems_;
};

}  // namespace

bool is_piper_file(const Json& json) {
  return json["maxDevices"].is_number() || json["maxMemoryPerDevice"].is_number();
}

Result<PiperDocuments> convert_piper_file(const Json& json) { return Converter().convert(json); }

}  // namespace coxswain::planner
