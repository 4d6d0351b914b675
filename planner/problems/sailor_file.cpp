#include "planner/problems/sailor_file.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <vector>

#include "common/bytes_io.h"

namespace coxswain::planner {
namespace {

constexpr std::int64_t kMaxSize = std::int64_t{1} << 40;
constexpr double kBytesPerGib = 1024.0 * 1024.0 * 1024.0;

Error wrong(std::string path, std::string expected, std::string got) {
  return {ErrorCode::InvalidArgument, "wrong value", std::move(path), std::move(expected), std::move(got), ""};
}

std::string text_of(double value) { return to_text(Json(value)); }

/// A curve of the network file: [[c2, c1, c0], bytes a second at most].
struct Curve {
  std::string cells;
  double most = 0;
};

class Converter {
 public:
  Result<SailorDocuments> convert(const Json& arguments, const SailorFiles& files) {
    read_arguments(arguments);
    read_training(files.training, files.sizes);
    read_quotas(files.quotas);
    write_gpus(arguments["usd_per_hour"], files.cluster);
    write_times(files.profiles);
    write_network(files.network);
    write_traffic(files.traffic);
    if (problems_.empty()) return std::move(result_);
    return combine_errors(ErrorCode::InvalidArgument, "the Sailor problem has problems", std::move(problems_));
  }

 private:
  void append(std::vector<Error> more) {
    problems_.insert(problems_.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  }

  static JsonReader open(const Json& json, std::string path) {
    JsonReader reader(json, std::move(path));
    if (json.is_object()) {
      for (const auto& [key, value] : json.object()) reader.any(key);  // more may stand there than is read
    }
    return reader;
  }

  void read_arguments(const Json& json) {
    JsonReader reader = open(json, "");
    result_.instance["objective"] = reader.has("objective") ? reader.string("objective") : "throughput";
    for (const char* limit : {"max_usd_per_iteration", "min_iterations_per_s"}) {
      if (reader.has(limit)) result_.instance[limit] = reader.number(limit);
    }
    result_.instance["bytes_per_number"] = 4;
    append(reader.take_problems());
  }

  void read_training(const Json& json, const Json& sizes) {
    JsonReader reader = open(json, "training_config_json");
    result_.instance["global_batch"] = reader.integer("global_batch_size", 1, kMaxSize);
    result_.instance["layers"] = reader.integer("num_all_layers", 1, kMaxSize);
    const std::string model = reader.string("model");
    append(reader.take_problems());
    std::string& text = result_.texts.layers;
    text = "tp,layer_first,layer_last,parameters,output_floats,activation_floats\n";
    if (!sizes[model].is_object()) {
      problems_.push_back(wrong("llm_info", "the layers of " + model, "none"));
      return;
    }
    for (const auto& [tp, layers] : sizes[model].object()) {
      if (!layers.is_object()) continue;
      for (const auto& [layer, json_of_layer] : layers.object()) {
        JsonReader one = open(json_of_layer, "llm_info." + model + "." + tp + "." + layer);
        text += tp + "," + layer + "," + layer + "," + text_of(one.number("params_floats")) + "," +
                text_of(one.number("act_output_floats")) + "," + text_of(one.number("act_mem_floats")) + "\n";
        append(one.take_problems());
      }
    }
  }

  void read_quotas(const Json& json) {
    JsonArray cluster;
    if (json.is_object()) {
      for (const auto& [gpu, zones] : json.object()) {
        JsonReader reader(zones, "quotas_dict." + gpu);
        if (zones.is_object()) {
          for (const auto& [zone, count] : zones.object()) {
            const std::int64_t number = reader.integer(zone, 0, kMaxSize);
            if (number == 0) continue;
            gpus_.insert(gpu);
            zones_.insert(zone);
            cluster.emplace_back(JsonObject{{"gpu", gpu}, {"zone", zone}, {"count", number}});
          }
        }
        append(reader.take_problems());
      }
    }
    if (cluster.empty()) problems_.push_back(wrong("quotas_dict", "GPUs of a type in a zone", "none"));
    result_.instance["cluster"] = std::move(cluster);
  }

  void write_gpus(const Json& prices, const Json& cluster) {
    std::string& text = result_.texts.gpus;
    text = "gpu,memory_gib,usd_per_hour\n";
    for (const std::string& gpu : gpus_) {
      JsonReader reader = open(cluster[gpu], "basic_cluster_config_json." + gpu);
      const Json& price = prices[gpu];
      text += gpu + "," + text_of(reader.number("mem_per_gpu") / kBytesPerGib) + "," +
              text_of(price.is_number() ? price.number() : 0.0) + "\n";
      append(reader.take_problems());
    }
  }

  void write_times(const std::map<std::string, Json>& profiles) {
    std::string& text = result_.texts.times;
    text = "gpu,microbatch,tp,layer_first,layer_last,forward_s,backward_s,update_s\n";
    for (const std::string& gpu : gpus_) {
      const auto profile = profiles.find(gpu);
      if (profile == profiles.end() || !profile->second.is_object()) {
        problems_.push_back(wrong("sailor_profile_file_dir." + gpu, "a profile", "none"));
        continue;
      }
      for (const auto& [micro, by_degree] : profile->second.object()) {
        if (!by_degree.is_object()) continue;
        for (const auto& [tp, layers] : by_degree.object()) {
          if (!layers.is_object()) continue;
          for (const auto& [layer, times] : layers.object()) {
            const auto cells = numbers(times, 3);
            if (cells) {
              text += gpu + "," + micro + "," + tp + "," + layer + "," + layer + "," + *cells + "\n";
            } else {
              problems_.push_back(wrong("sailor_profile_file_dir." + gpu + "." + micro + "." + tp + "." + layer,
                                        "[forward, backward, update] seconds", to_text(times)));
            }
          }
        }
      }
    }
  }

  /// "1,2,3" for an array of `count` numbers.
  static std::optional<std::string> numbers(const Json& json, std::size_t count) {
    if (!json.is_array() || json.array().size() != count) return std::nullopt;
    std::string cells;
    for (const Json& each : json.array()) {
      if (!each.is_number()) return std::nullopt;
      cells += (cells.empty() ? "" : ",") + text_of(each.number());
    }
    return cells;
  }

  std::optional<Curve> curve(const Json& network, const std::string& from_zone, const std::string& from,
                             const std::string& from_count, const std::string& to_zone, const std::string& to,
                             const std::string& to_count) {
    const Json& entry = network[from_zone][from][from_count][to_zone][to][to_count];
    if (entry.is_null()) return std::nullopt;
    std::optional<std::string> cells;
    if (entry.is_array() && entry.array().size() == 2) cells = numbers(entry.array()[0], 3);
    if (cells && entry.array()[1].is_number()) return Curve{*cells, entry.array()[1].number()};
    problems_.push_back(wrong(
        "network_coeff_path." + from_zone + "." + from + "." + from_count + "." + to_zone + "." + to + "." + to_count,
        "[[c2, c1, c0], bytes a second at most]", to_text(entry)));
    return std::nullopt;
  }

  void write_network(const Json& network) {
    std::set<int> counts;
    for (const std::string& zone : zones_) {
      for (const std::string& gpu : gpus_) {
        if (!network[zone][gpu].is_object()) continue;
        for (const auto& [count, receivers] : network[zone][gpu].object()) {
          int value = 0;
          const auto [end, error] = std::from_chars(count.data(), count.data() + count.size(), value);
          if (error == std::errc{} && end == count.data() + count.size()) counts.insert(value);
        }
      }
    }
    std::string& text = result_.texts.network;
    text = "sender_zone,sender_gpu,sender_gpus,receiver_zone,receiver_gpu,receiver_gpus,c2,c1,c0\n";
    for (const std::string& from_zone : zones_) {
      for (const std::string& to_zone : zones_) {
        for (const std::string& from : gpus_) {
          for (const std::string& to : gpus_) {
            for (const int from_count : counts) {
              for (const int to_count : counts) {
                const auto found = find_curve(network, from_zone, from, from_count, to_zone, to, to_count);
                if (!found) continue;
                text += from_zone + "," + from + "," + std::to_string(from_count) + "," + to_zone + "," + to + "," +
                        std::to_string(to_count) + "," + found->cells + "\n";
              }
            }
          }
        }
      }
    }
  }

  std::optional<Curve> find_curve(const Json& network, const std::string& from_zone, const std::string& from,
                                  int from_count, const std::string& to_zone, const std::string& to, int to_count) {
    const std::string own = std::to_string(from_count), other = std::to_string(to_count);
    if (auto exact = curve(network, from_zone, from, own, to_zone, to, other)) return exact;
    if (from == to) {
      const std::string least = std::to_string(std::min(from_count, to_count));
      return curve(network, from_zone, from, least, to_zone, to, least);
    }
    auto sender = curve(network, from_zone, from, own, to_zone, from, own);
    auto receiver = curve(network, to_zone, to, other, from_zone, to, other);
    if (sender && receiver) return sender->most <= receiver->most ? sender : receiver;
    return std::nullopt;
  }

  void write_traffic(const Json& json) {
    std::string& text = result_.texts.egress;
    text = "from_zone,to_zone,usd_per_gb\n";
    for (const std::string& from : zones_) {
      JsonReader reader = open(json[from], "communication_cost." + from);
      for (const std::string& to : zones_) text += from + "," + to + "," + text_of(reader.number(to)) + "\n";
      append(reader.take_problems());
    }
  }

  SailorDocuments result_;
  std::set<std::string> gpus_, zones_;
  std::vector<Error> problems_;
};

/// Null, and a problem, where there is none.
Json read_json(const std::filesystem::path& file, std::vector<Error>& problems) {
  const auto text = read_file(file);
  if (!text) {
    problems.push_back(text.error());
    return {};
  }
  auto json = parse_json(*text);
  if (json) return std::move(*json);
  problems.push_back(with_path_prefix(json.error(), file.string()));
  return {};
}

}  // namespace

bool is_sailor_search(const Json& json) {
  return json["training_config_json"].is_string() || json["sailor_profile_file_dir"].is_string();
}

Result<SailorDocuments> convert_sailor(const Json& arguments, const SailorFiles& files) {
  return Converter().convert(arguments, files);
}

Result<SailorDocuments> convert_sailor(const Json& arguments, const std::filesystem::path& file) {
  SailorFiles files;
  std::vector<Error> problems;
  const std::filesystem::path folder = file.parent_path();
  const auto path_of = [&](const char* key) -> std::optional<std::filesystem::path> {
    const Json& path = arguments[key];
    if (path.is_string()) return folder / path.string();
    problems.push_back(wrong(key, "a path, relative to this file", path.is_null() ? "nothing" : to_text(path)));
    return std::nullopt;
  };
  for (const auto& [key, target] : {std::pair{"training_config_json", &files.training},
                                    {"basic_cluster_config_json", &files.cluster},
                                    {"quotas_dict", &files.quotas},
                                    {"llm_info", &files.sizes},
                                    {"network_coeff_path", &files.network},
                                    {"communication_cost", &files.traffic}}) {
    if (const auto path = path_of(key)) *target = read_json(*path, problems);
  }
  if (const auto profiles = path_of("sailor_profile_file_dir"); profiles && files.quotas.is_object()) {
    for (const auto& [gpu, zones] : files.quotas.object())
      files.profiles[gpu] = read_json(*profiles / gpu / "profile.json", problems);
  }
  if (!problems.empty())
    return combine_errors(ErrorCode::InvalidArgument, "files of the Sailor problem are missing", std::move(problems));
  return convert_sailor(arguments, files);
}

}  // namespace coxswain::planner
