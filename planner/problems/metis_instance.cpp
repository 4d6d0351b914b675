// Reading a problem of metis.h: one JSON document, a host file, a cluster file and profiles.
#include <algorithm>
#include <charconv>
#include <optional>

#include "common/bytes_io.h"
#include "planner/problems/metis.h"

namespace coxswain::planner {
namespace {

constexpr std::int64_t kMaxSize = std::int64_t{1} << 40;
constexpr std::int64_t kMaxDevices = 4096, kMaxBatch = 1 << 20, kMaxLayers = 512;
constexpr double kMbPerGb = 1024;
/// Metis takes a bandwidth of 1 for 2^20 bytes a millisecond; its documentation's example has bytes a second instead.
constexpr double kBytesPerMs = 1 << 20;
constexpr double kLeastBytesPerSecond = 1e6;

Error wrong(std::string path, std::string expected, std::string got, std::string message = "wrong value") {
  return {ErrorCode::InvalidArgument, std::move(message), std::move(path), std::move(expected), std::move(got), ""};
}

std::optional<std::int64_t> whole_number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string upper(std::string text) {
  for (char& c : text) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return text;
}

/// Words of a line, without a comment.
std::vector<std::string> words_of(std::string_view line) {
  line = line.substr(0, line.find('#'));
  std::vector<std::string> words(1);
  for (const char c : line) {
    if (c != ' ' && c != '\t' && c != '\r') {
      words.back() += c;
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

double bytes_per_ms(double bandwidth) {
  return bandwidth < kLeastBytesPerSecond ? bandwidth * kBytesPerMs : bandwidth / 1000;
}

/// "DeviceType.A100_tp1_bs2.json" in parts.
struct ProfileName {
  std::string type;
  int tp = 1;
  std::int64_t batch = 1;
};

std::optional<ProfileName> parse_profile_name(std::string_view name) {
  constexpr std::string_view kStart = "DeviceType.", kEnd = ".json", kTp = "_tp", kBatch = "_bs";
  if (!name.starts_with(kStart) || !name.ends_with(kEnd)) return std::nullopt;
  name.remove_prefix(kStart.size());
  name.remove_suffix(kEnd.size());
  const std::size_t batch_at = name.rfind(kBatch), tp_at = name.rfind(kTp);
  if (batch_at == std::string_view::npos || tp_at == std::string_view::npos || tp_at >= batch_at) return std::nullopt;
  const auto tp = whole_number(name.substr(tp_at + kTp.size(), batch_at - tp_at - kTp.size()));
  const auto batch = whole_number(name.substr(batch_at + kBatch.size()));
  if (!tp || !batch || tp_at == 0 || *tp < 1 || *tp > kMaxDevices || *batch < 1 || *batch > kMaxBatch)
    return std::nullopt;
  return ProfileName{std::string(name.substr(0, tp_at)), static_cast<int>(*tp), *batch};
}

class Reader {
 public:
  Result<MetisInstance> read(const Json& json, const MetisTexts& texts) {
    read_arguments(json);
    read_hosts(texts.hosts, texts.cluster);
    read_profiles(texts.profiles);
    if (problems_.empty()) check_complete();
    if (problems_.empty()) return std::move(instance_);
    return combine_errors(ErrorCode::InvalidArgument, "the Metis problem has problems", std::move(problems_));
  }

 private:
  void append(std::vector<Error> more) {
    problems_.insert(problems_.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  }

  void read_arguments(const Json& json) {
    JsonReader reader(json, "");
    if (json.is_object()) {
      for (const auto& [key, value] : json.object()) reader.any(key);  // Metis's other arguments may stand there
    }
    instance_.global_batch = reader.integer("gbs", 1, kMaxBatch);
    instance_.sequence = reader.integer("sequence_length", 1, kMaxSize);
    instance_.hidden = reader.integer("hidden_size", 1, kMaxSize);
    instance_.vocabulary = reader.integer("vocab_size", 1, kMaxSize);
    if (reader.has("max_profiled_tp_degree")) max_tp_ = reader.integer("max_profiled_tp_degree", 1, kMaxDevices);
    if (reader.has("max_profiled_batch_size")) max_batch_ = reader.integer("max_profiled_batch_size", 1, kMaxBatch);
    if (reader.has("num_layers")) wanted_layers_ = reader.integer("num_layers", 1, kMaxLayers);
    append(reader.take_problems());
  }

  /// "ADDRESS 8" or "ADDRESS slots=8", one host a line.
  void read_hosts(const std::string& hosts, const std::string& cluster_text) {
    const auto cluster = parse_json(cluster_text);
    if (!cluster) {
      problems_.push_back(with_path_prefix(cluster.error(), "clusterfile"));
      return;
    }
    int number = 0;
    for (std::size_t at = 0; at < hosts.size();) {
      const std::size_t end = std::min(hosts.find('\n', at), hosts.size());
      const std::vector<std::string> words = words_of(std::string_view(hosts).substr(at, end - at));
      at = end + 1;
      ++number;
      if (words.empty()) continue;
      const std::string path = "hostfile:" + std::to_string(number);
      std::string slots = words.size() > 1 ? words[1] : "";
      if (slots.starts_with("slots=")) slots = slots.substr(6);
      const auto count = whole_number(slots);
      if (!count || *count < 1 || *count > kMaxDevices) {
        problems_.push_back(wrong(path, "ADDRESS slots=DEVICES", words.size() > 1 ? words[1] : "no number of devices"));
        continue;
      }
      add_host(path, words[0], static_cast<int>(*count), (*cluster)[words[0]]);
    }
    if (instance_.types.empty() && problems_.empty())
      problems_.push_back(wrong("hostfile", "a host a line", "no hosts"));
  }

  void add_host(const std::string& path, const std::string& address, int count, const Json& json) {
    if (!json.is_object()) {
      problems_.push_back(wrong(path, "an entry for " + address + " in the cluster file", "none"));
      return;
    }
    JsonReader reader(json, "clusterfile." + address);
    for (const auto& [key, value] : json.object()) reader.any(key);
    const std::string name = upper(reader.string("instance_type"));
    const double memory = positive(reader, "memory"), inside = positive(reader, "intra_bandwidth"),
                 between = positive(reader, "inter_bandwidth");
    append(reader.take_problems());
    auto type = std::find_if(instance_.types.begin(), instance_.types.end(),
                             [&](const MetisType& each) { return each.name == name; });
    if (type == instance_.types.end()) {
      instance_.types.push_back({name, memory * kMbPerGb, {}, bytes_per_ms(inside), bytes_per_ms(between)});
      type = instance_.types.end() - 1;
    }
    type->memory_mb = std::min(type->memory_mb, memory * kMbPerGb);
    type->host_bytes_per_ms = std::min(type->host_bytes_per_ms, bytes_per_ms(inside));
    type->network_bytes_per_ms = std::min(type->network_bytes_per_ms, bytes_per_ms(between));
    type->hosts.push_back(count);
  }

  static double positive(JsonReader& reader, const std::string& key) {
    const double value = reader.number(key);
    if (reader.has(key) && !(value > 0)) reader.problem(wrong(key, "a positive number", to_text(reader.any(key))));
    return value;
  }

  static double not_negative(JsonReader& reader, const std::string& key) {
    if (!reader.has(key)) return 0;
    const double value = reader.number(key);
    if (!(value >= 0)) reader.problem(wrong(key, "a number from 0", to_text(reader.any(key))));
    return value;
  }

  static std::vector<double> amounts(JsonReader& reader, const std::string& key) {
    std::vector<double> values;
    const JsonArray& array = reader.array(key);
    for (std::size_t i = 0; i < array.size(); ++i) {
      const bool good = array[i].is_number() && array[i].number() >= 0;
      if (!good) reader.problem(wrong(key + "[" + std::to_string(i) + "]", "a number from 0", to_text(array[i])));
      values.push_back(good ? array[i].number() : 0);
    }
    return values;
  }

  void read_profiles(const std::vector<std::pair<std::string, std::string>>& profiles) {
    const bool cluster_is_read = problems_.empty();
    if (profiles.empty())
      problems_.push_back(wrong("profile_data_path", "files DeviceType.TYPE_tpN_bsN.json", "no such file"));
    for (const auto& [name, text] : profiles) {
      const auto parts = parse_profile_name(name);
      if (!parts) {
        problems_.push_back(wrong(name, "DeviceType.TYPE_tpN_bsN.json", name, "not the name of a profile"));
        continue;
      }
      const auto type = std::find_if(instance_.types.begin(), instance_.types.end(),
                                     [&](const MetisType& each) { return each.name == upper(parts->type); });
      // Of a type that the cluster lacks nothing is read, unless the cluster itself could not be.
      if ((type == instance_.types.end() && cluster_is_read) || parts->tp > max_tp_ || parts->batch > max_batch_)
        continue;
      const auto json = parse_json(text);
      if (!json) {
        problems_.push_back(with_path_prefix(json.error(), name));
        continue;
      }
      read_profile(name, *parts, static_cast<int>(type - instance_.types.begin()), *json);
    }
  }

  void read_profile(const std::string& name, const ProfileName& parts, int type, const Json& json) {
    Profile profile;
    JsonReader times(json["execution_time"], name + ".execution_time");
    profile.point.layer_ms = amounts(times, "layer_compute_total_ms");
    profile.optimizer_ms = not_negative(times, "optimizer_time_ms");
    profile.generator_ms = not_negative(times, "batch_generator_time_ms");
    double compute = 0;
    for (const double ms : profile.point.layer_ms) compute += ms;
    if (times.has("forward_backward_time_ms"))
      profile.point.sync_ms = std::max(0.0, not_negative(times, "forward_backward_time_ms") - compute);
    for (const char* other :
         {"total_time_ms", "layernorm_grads_all_reduce_time_ms", "embedding_grads_all_reduce_time_ms"})
      times.any(other);
    append(times.take_problems());
    JsonReader memory(json["execution_memory"], name + ".execution_memory");
    profile.point.layer_mb = amounts(memory, "layer_memory_total_mb");
    memory.any("total_memory");
    memory.any("total_memory_mb");
    append(memory.take_problems());
    const Json& parameters = json["model"]["parameters"];
    JsonReader model(parameters, name + ".model.parameters");
    profile.parameter_bytes = amounts(model, "parameters_per_layer_bytes");
    if (parameters.is_object()) {
      for (const auto& [key, value] : parameters.object()) model.any(key);
    }
    append(model.take_problems());
    check_lengths(name, profile);
    profiles_.emplace(std::pair{MetisShard{type, parts.tp}, parts.batch}, std::move(profile));
  }

  struct Profile {
    MetisPoint point;
    std::vector<double> parameter_bytes;
    double optimizer_ms = 0, generator_ms = 0;
  };

  void check_lengths(const std::string& name, const Profile& profile) {
    const std::size_t length = profile.point.layer_ms.size();
    if (profiles_.empty()) instance_.num_layers = static_cast<int>(length);
    const auto wanted = static_cast<std::size_t>(wanted_layers_ > 0 ? wanted_layers_ : instance_.num_layers);
    if (length == wanted && profile.point.layer_mb.size() == wanted && profile.parameter_bytes.size() == wanted &&
        wanted <= kMaxLayers)
      return;
    problems_.push_back(wrong(name,
                              std::to_string(wanted) + " layers in layer_compute_total_ms, layer_memory_total_mb and "
                                                       "parameters_per_layer_bytes",
                              std::to_string(length) + ", " + std::to_string(profile.point.layer_mb.size()) + ", " +
                                  std::to_string(profile.parameter_bytes.size()),
                              "the profiles disagree"));
  }

  /// Of each type the point of the least degree and batch says what Metis takes once a type.
  void check_complete() {
    instance_.optimizer_ms.assign(instance_.types.size(), -1);
    for (auto& [key, profile] : profiles_) {
      const auto& [shard, batch] = key;
      double& optimizer = instance_.optimizer_ms[static_cast<std::size_t>(shard.type)];
      if (optimizer < 0) {
        optimizer = profile.optimizer_ms;
        instance_.generator_ms = std::max(instance_.generator_ms, profile.generator_ms);
      }
      if (instance_.parameter_bytes.empty()) instance_.parameter_bytes = profile.parameter_bytes;
      instance_.points[shard][batch] = std::move(profile.point);
    }
    for (std::size_t type = 0; type < instance_.types.size(); ++type) {
      if (instance_.optimizer_ms[type] < 0)
        problems_.push_back(wrong("profile_data_path",
                                  "a profile of every type of the cluster: DeviceType." + instance_.types[type].name +
                                      "_tp1_bs1.json and others",
                                  "none of " + instance_.types[type].name));
    }
  }

  MetisInstance instance_;
  std::int64_t max_tp_ = kMaxDevices, max_batch_ = kMaxBatch, wanted_layers_ = 0;
  std::map<std::pair<MetisShard, std::int64_t>, Profile> profiles_;
  std::vector<Error> problems_;
};

/// The profiles that `path` names: a folder's, by name, or a list of files.
void read_profile_files(const Json& path, const std::filesystem::path& folder, MetisTexts& texts,
                        std::vector<Error>& problems) {
  std::vector<std::filesystem::path> files;
  if (path.is_array()) {
    for (const Json& each : path.array()) {
      if (each.is_string()) files.push_back(folder / each.string());
    }
  } else if (path.is_string()) {
    std::error_code code;
    for (const auto& entry : std::filesystem::directory_iterator(folder / path.string(), code)) {
      if (parse_profile_name(entry.path().filename().string())) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
  }
  if (files.empty())
    problems.push_back(wrong("profile_data_path",
                             "a folder of files DeviceType.TYPE_tpN_bsN.json, or a list of such files, relative to "
                             "this file",
                             path.is_null() ? "nothing" : to_text(path)));
  for (const auto& file : files) {
    auto text = read_file(file);
    if (text) {
      texts.profiles.emplace_back(file.filename().string(), std::move(*text));
    } else {
      problems.push_back(text.error());
    }
  }
}

}  // namespace

Result<MetisInstance> parse_metis(const Json& json, const MetisTexts& texts) { return Reader().read(json, texts); }

Result<MetisInstance> parse_metis(const Json& json, const std::filesystem::path& file) {
  MetisTexts texts;
  std::vector<Error> problems;
  const std::filesystem::path folder = file.parent_path();
  for (const auto& [key, text] : {std::pair{"hostfile_path", &texts.hosts}, {"clusterfile_path", &texts.cluster}}) {
    const Json& path = json[key];
    if (!path.is_string()) {
      problems.push_back(
          wrong(key, "the path of a file, relative to this one", path.is_null() ? "nothing" : to_text(path)));
      continue;
    }
    auto read = read_file(folder / path.string());
    if (read) {
      *text = std::move(*read);
    } else {
      problems.push_back(read.error());
    }
  }
  read_profile_files(json["profile_data_path"], folder, texts, problems);
  if (!problems.empty())
    return combine_errors(ErrorCode::InvalidArgument, "files of the Metis problem are missing", std::move(problems));
  return parse_metis(json, texts);
}

}  // namespace coxswain::planner
