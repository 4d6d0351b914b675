#include "planner/problems/galvatron_file.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "common/bytes_io.h"

namespace coxswain::planner {
namespace {

constexpr std::int64_t kMaxSize = std::int64_t{1} << 24, kMbPerGb = 1024;

Error wrong(std::string path, std::string expected, std::string got) {
  return {ErrorCode::InvalidArgument, "wrong value", std::move(path), std::move(expected), std::move(got), ""};
}

/// Whole numbers that stand for each `#` of `pattern` in `text`; nothing when it is of another form.
std::optional<std::vector<std::int64_t>> match(std::string_view text, std::string_view pattern) {
  std::vector<std::int64_t> numbers;
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  for (const char c : pattern) {
    if (c != '#') {
      if (at == end || *at++ != c) return std::nullopt;
      continue;
    }
    std::int64_t number = 0;
    const auto [next, error] = std::from_chars(at, end, number);
    if (error != std::errc{}) return std::nullopt;
    at = next;
    numbers.push_back(number);
  }
  if (at != end) return std::nullopt;
  return numbers;
}

/// The least-squares line through points; through the origin for one point.
Json line_through(const std::map<std::int64_t, double>& points) {
  double mean_x = 0, mean_y = 0, xx = 0, xy = 0;
  for (const auto& [x, y] : points) {
    mean_x += static_cast<double>(x) / static_cast<double>(points.size());
    mean_y += y / static_cast<double>(points.size());
  }
  if (points.size() == 1) return JsonObject{{"slope", mean_y / mean_x}, {"intercept", 0.0}};
  for (const auto& [x, y] : points) {
    const double dx = static_cast<double>(x) - mean_x;
    xx += dx * dx;
    xy += dx * (y - mean_y);
  }
  return JsonObject{{"slope", xy / xx}, {"intercept", mean_y - xy / xx * mean_x}};
}

class Converter {
 public:
  Result<Json> convert(const Json& arguments, const GalvatronProfiles& profiles) {
    read_arguments(arguments);
    Json layer, ends, network;
    read_memory(profiles.memory, layer, ends);
    layer["forward_ms"] = read_times(profiles.time, "layertype_0_bsz#_seq#");
    ends["forward_ms"] = read_times(profiles.time, "layertype_other_bsz#_seq#");
    network["allreduce_ms_per_mb"] = read_all_reduce(profiles.all_reduce);
    network["p2p_ms_per_mb"] = read_p2p(profiles.p2p);
    JsonReader overlap(profiles.overlap, "overlap_coe_path");
    network["overlap_slowdown"] = overlap.number("overlap_coe");
    append(overlap.take_problems());
    // Half an all-reduce is an all-gather.
    network["allgather_ms"] = read_messages(profiles.messages, "allreduce_size_#_#MB_time", 0.5);
    network["all_to_all_ms"] = read_messages(profiles.messages, "all2all_size_#_#MB_time", 1);
    if (!problems_.empty())
      return combine_errors(ErrorCode::InvalidArgument, "the Galvatron search has problems", std::move(problems_));
    instance_["layer"] = std::move(layer);
    instance_["embedding_and_head"] = std::move(ends);
    instance_["network"] = std::move(network);
    return std::move(instance_);
  }

 private:
  void append(std::vector<Error> more) {
    problems_.insert(problems_.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  }

  void read_arguments(const Json& json) {
    JsonReader reader(json, "");
    if (json.is_object()) {
      for (const auto& [key, value] : json.object()) reader.any(key);  // its other arguments may stand there
    }
    gpus_ = reader.integer("num_nodes", 1, kMaxSize) * reader.integer("num_gpus_per_node", 1, kMaxSize);
    sequence_ = reader.integer("seq_length", 1, kMaxSize);
    instance_["gpus"] = gpus_;
    instance_["sequence"] = sequence_;
    instance_["memory_mb"] = reader.integer("memory_constraint", 1, kMaxSize) * kMbPerGb;
    instance_["layers"] = reader.integer("num_layers", 1, kMaxSize);
    instance_["hidden"] = reader.integer("hidden_size", 1, kMaxSize);
    instance_["global_batch"] = reader.integer("global_batch_size", 1, kMaxSize);
    instance_["chunks"] = reader.has("chunks") ? Json(reader.integer("chunks", 1, kMaxSize)) : Json();
    const std::int64_t tensor = reader.integer("max_tp_deg", 1, kMaxSize),
                       ulysses = reader.integer("max_sp_deg", 1, kMaxSize);
    if (tensor != ulysses)
      reader.problem(wrong("max_sp_deg", "the same as max_tp_deg, " + std::to_string(tensor), std::to_string(ulysses)));
    instance_["max_degree"] = tensor;
    append(reader.take_problems());
  }

  /// Time of a sample by batch, in the batch; the fit is of the whole batch's.
  Json read_times(const Json& json, std::string_view pattern) {
    std::map<std::int64_t, double> points;
    std::set<std::int64_t> others;
    if (json.is_object()) {
      for (const auto& [key, value] : json.object()) {
        const auto numbers = match(key, pattern);
        if (!numbers || !value.is_number() || numbers->front() < 1) continue;
        if (numbers->back() == sequence_) {
          points[numbers->front()] = value.number() * static_cast<double>(numbers->front());
        } else {
          others.insert(numbers->back());
        }
      }
    }
    if (!points.empty()) return line_through(points);
    std::string sequences;
    for (const std::int64_t other : others) sequences += (sequences.empty() ? "" : ", ") + std::to_string(other);
    problems_.push_back(wrong("time_profiling_path",
                              std::string(pattern) + " for sequence " + std::to_string(sequence_),
                              sequences.empty() ? "none" : "sequences " + sequences));
    return {};
  }

  /// The profile with sequence parallel where there is one, as Galvatron's default asks for.
  const Json& at_sequence(const Json& json, const std::string& key) {
    const std::string sequence = std::to_string(sequence_);
    const Json& with = json[key + "_sp"][sequence];
    if (with.is_object()) return with;
    const Json& without = json[key][sequence];
    if (!without.is_object())
      problems_.push_back(wrong("memory_profiling_path." + key + "_sp." + sequence, "an object", to_text(without)));
    return without;
  }

  void read_memory(const Json& json, Json& layer, Json& ends) {
    const Json& profile = at_sequence(json, "layertype_0");
    layer["parameter_mb"] = profile["parameter_size"];
    layer["activation_mb_per_sample"] = profile["tp_activation_per_bsz_dict"];
    for (const auto& [name, key] : {std::pair{"whole", "other_memory_pp_off"},
                                    {"first", "other_memory_pp_on_first"},
                                    {"last", "other_memory_pp_on_last"}}) {
      const Json& end = at_sequence(json, key);
      ends[name] =
          JsonObject{{"model_states_mb", end["model_states"]}, {"activation_mb_per_sample", end["activation"]}};
    }
  }

  double bandwidth(JsonReader& reader, const std::string& key) {
    const double value = reader.number(key);
    if (reader.has(key) && !(value > 0)) reader.problem(wrong(key, "a positive number", to_text(reader.any(key))));
    return value > 0 ? 1 / value : 0;
  }

  Json read_all_reduce(const Json& json) {
    JsonReader reader(json, "allreduce_bandwidth_config_path");
    JsonObject table{{"1", 0.0}, {"1_0", 0.0}, {"1_1", 0.0}};
    for (std::int64_t size = gpus_; size >= 2; size /= 2) {
      const std::string name = std::to_string(size), start = "allreduce_size_" + name + "_consec_";
      const double near = bandwidth(reader, start + "1");
      table[name + "_1"] = near;
      table[name + "_0"] = size == gpus_ ? near : bandwidth(reader, start + "0");
      if (size == gpus_) table[name] = near;
    }
    if (json.is_object()) {
      for (const auto& [key, value] : json.object()) reader.any(key);
    }
    append(reader.take_problems());
    return table;
  }

  Json read_p2p(const Json& json) {
    JsonReader reader(json, "p2p_bandwidth_config_path");
    JsonObject table;
    if (json.is_object()) {
      for (const auto& [key, value] : json.object()) {
        reader.any(key);
        if (const auto numbers = match(key, "pp_size_#"))
          table[std::to_string(numbers->front())] = bandwidth(reader, key);
      }
    }
    append(reader.take_problems());
    return table;
  }

  Json read_messages(const Json& json, std::string_view pattern, double factor) {
    std::map<std::int64_t, std::map<std::int64_t, double>> by_degree;
    if (json.is_object()) {
      for (const auto& [key, value] : json.object()) {
        const auto numbers = match(key, pattern);
        if (numbers && value.is_number()) by_degree[numbers->front()][numbers->back()] = value.number() * factor;
      }
    }
    JsonObject tables;
    for (const auto& [degree, points] : by_degree) {
      Json table = line_through(points);
      JsonObject measured;
      for (const auto& [mb, ms] : points) measured[std::to_string(mb)] = ms;
      table["points"] = std::move(measured);
      tables[std::to_string(degree)] = std::move(table);
    }
    for (std::int64_t degree = 2; degree <= std::min(gpus_, instance_["max_degree"].integer()); degree *= 2) {
      if (tables.contains(std::to_string(degree))) continue;
      problems_.push_back(
          wrong("sp_time_path", std::string(pattern) + " for " + std::to_string(degree) + " GPUs", "none"));
    }
    return tables;
  }

  Json instance_;
  std::int64_t gpus_ = 1, sequence_ = 1;
  std::vector<Error> problems_;
};

}  // namespace

bool is_galvatron_search(const Json& json) {
  return json["time_profiling_path"].is_string() || json["memory_profiling_path"].is_string();
}

Result<Json> convert_galvatron(const Json& arguments, const GalvatronProfiles& profiles) {
  return Converter().convert(arguments, profiles);
}

Result<Json> convert_galvatron(const Json& arguments, const std::filesystem::path& file) {
  GalvatronProfiles profiles;
  std::vector<Error> problems;
  for (const auto& [key, target] : {std::pair{"time_profiling_path", &profiles.time},
                                    {"memory_profiling_path", &profiles.memory},
                                    {"allreduce_bandwidth_config_path", &profiles.all_reduce},
                                    {"p2p_bandwidth_config_path", &profiles.p2p},
                                    {"overlap_coe_path", &profiles.overlap},
                                    {"sp_time_path", &profiles.messages}}) {
    const Json& path = arguments[key];
    if (!path.is_string()) {
      problems.push_back(
          wrong(key, "the path of a file, relative to this one", path.is_null() ? "nothing" : to_text(path)));
      continue;
    }
    const auto text = read_file(file.parent_path() / path.string());
    if (!text) {
      problems.push_back(text.error());
      continue;
    }
    auto json = parse_json(*text);
    if (json) {
      *target = std::move(*json);
    } else {
      problems.push_back(with_path_prefix(json.error(), path.string()));
    }
  }
  if (!problems.empty())
    return combine_errors(ErrorCode::InvalidArgument, "profiles of the Galvatron search are missing",
                          std::move(problems));
  return convert_galvatron(arguments, profiles);
}

}  // namespace coxswain::planner
