// Reading an instance of sailor.h: one JSON document and five tables.
#include <algorithm>
#include <charconv>
#include <iterator>
#include <string_view>

#include "common/bytes_io.h"
#include "planner/problems/sailor.h"

namespace coxswain::planner {
namespace {

constexpr std::int64_t kMaxGpus = 1 << 20, kMaxLayers = 512, kMaxBatch = 1 << 20;
constexpr double kBytesPerGib = 1024.0 * 1024.0 * 1024.0;

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

/// A table whose cells are asked for by row and column name; what is wrong is collected.
class Table {
 public:
  Table(std::string name, std::string_view text, std::vector<std::string_view> columns, std::vector<Error>& problems)
      : name_(std::move(name)), problems_(problems) {
    for (const std::string_view raw : split(text, '\n')) {
      const std::string_view line = raw.substr(0, raw.find_last_not_of('\r') + 1);
      if (!line.empty()) lines_.push_back(split(line, ','));
    }
    const std::vector<std::string_view> header = lines_.empty() ? std::vector<std::string_view>{} : lines_[0];
    for (const std::string_view column : columns) {
      const auto at = std::find(header.begin(), header.end(), column);
      if (at == header.end()) problem(0, "no column " + std::string(column), "");
      place_[column] = static_cast<std::size_t>(at - header.begin());
    }
    if (!lines_.empty()) lines_.erase(lines_.begin());
  }

  [[nodiscard]] std::size_t num_rows() const { return lines_.size(); }
  [[nodiscard]] std::string text(std::size_t row, std::string_view column) {
    const std::size_t at = place_.at(column);
    return at < lines_[row].size() ? std::string(lines_[row][at]) : "";
  }
  [[nodiscard]] double number(std::size_t row, std::string_view column) { return read<double>(row, column); }
  [[nodiscard]] int whole(std::size_t row, std::string_view column, int min, int max) {
    const int value = read<int>(row, column);
    if (value >= min && value <= max) return value;
    problem(row + 1, std::string(column) + " is out of range", text(row, column));
    return min;
  }

 private:
  template <class T>
  T read(std::size_t row, std::string_view column) {
    const std::string cell = text(row, column);
    T value{};
    const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
    if (error != std::errc{} || end != cell.data() + cell.size())
      problem(row + 1, std::string(column) + " is no number", cell);
    return value;
  }
  void problem(std::size_t line, std::string what, std::string got) {
    problems_.push_back({ErrorCode::InvalidArgument, std::move(what), name_ + "[" + std::to_string(line) + "]", "",
                         std::move(got), ""});
  }

  std::string name_;
  std::vector<Error>& problems_;
  std::vector<std::vector<std::string_view>> lines_;
  std::map<std::string_view, std::size_t> place_;
};

int place_of(std::vector<std::string>& names, const std::string& name) {
  const auto at = std::find(names.begin(), names.end(), name);
  if (at == names.end()) names.push_back(name);
  return static_cast<int>(std::find(names.begin(), names.end(), name) - names.begin());
}

int find_name(const std::vector<std::string>& names, const std::string& name) {
  const auto at = std::find(names.begin(), names.end(), name);
  return at == names.end() ? -1 : static_cast<int>(at - names.begin());
}

class Reader {
 public:
  Result<SailorInstance> read(const Json& json, const SailorTexts& texts) {
    read_document(json);
    if (!problems_.empty()) return combined();
    read_gpus(texts.gpus);
    read_layers(texts.layers);
    read_times(texts.times);
    read_network(texts.network);
    read_egress(texts.egress);
    if (!problems_.empty()) return combined();
    return std::move(instance_);
  }

 private:
  Error combined() {
    return combine_errors(ErrorCode::InvalidArgument, "this is no Sailor instance", std::move(problems_));
  }
  void missing(const std::string& what, const std::string& where) {
    problems_.push_back({ErrorCode::InvalidArgument, what, where, "", "", ""});
  }

  void read_document(const Json& json) {
    JsonReader reader(json, "instance");
    for (const char* known : {"id", "model", "data"}) reader.any(known);
    instance_.num_layers = static_cast<int>(reader.integer("layers", 1, kMaxLayers));
    instance_.global_batch = reader.integer("global_batch", 1, kMaxBatch);
    reader.integer("bytes_per_number", 4, 4);
    read_cluster(reader.array("cluster"));
    const std::string objective = reader.string("objective");
    instance_.minimise_cost = objective == "iteration_cost";
    if (!instance_.minimise_cost && objective != "throughput")
      missing("objective is neither throughput nor iteration_cost", "instance.objective");
    if (reader.has("max_usd_per_iteration")) instance_.max_usd_per_iteration = reader.number("max_usd_per_iteration");
    if (reader.has("min_iterations_per_s")) instance_.min_iterations_per_second = reader.number("min_iterations_per_s");
    add(reader.take_problems());
  }

  void read_cluster(const JsonArray& cluster) {
    for (std::size_t i = 0; i < cluster.size(); ++i) {
      JsonReader reader(cluster[i], "instance.cluster[" + std::to_string(i) + "]");
      SailorPool pool;
      pool.gpu = place_of(gpu_names_, reader.string("gpu"));
      pool.zone = place_of(instance_.zones, reader.string("zone"));
      pool.count = static_cast<int>(reader.integer("count", 1, kMaxGpus));
      add(reader.take_problems());
      const auto same = std::find_if(instance_.pools.begin(), instance_.pools.end(), [&](const SailorPool& other) {
        return other.gpu == pool.gpu && other.zone == pool.zone;
      });
      if (same != instance_.pools.end()) missing("this GPU and zone are listed twice", reader.path());
      instance_.pools.push_back(pool);
    }
    if (cluster.empty()) missing("no GPUs", "instance.cluster");
  }

  void read_gpus(const std::string& text) {
    Table table("gpus", text, {"gpu", "memory_gib", "usd_per_hour"}, problems_);
    instance_.gpus.resize(gpu_names_.size());
    for (std::size_t row = 0; row < table.num_rows(); ++row) {
      const int gpu = find_name(gpu_names_, table.text(row, "gpu"));
      if (gpu < 0) continue;
      instance_.gpus[static_cast<std::size_t>(gpu)] = {gpu_names_[static_cast<std::size_t>(gpu)],
                                                       table.number(row, "memory_gib") * kBytesPerGib,
                                                       table.number(row, "usd_per_hour")};
    }
    for (std::size_t i = 0; i < gpu_names_.size(); ++i)
      if (instance_.gpus[i].name.empty()) missing("no row for GPU " + gpu_names_[i], "gpus");
  }

  void read_layers(const std::string& text) {
    Table table("layers", text, {"tp", "layer_first", "layer_last", "parameters", "output_floats", "activation_floats"},
                problems_);
    const auto num_layers = static_cast<std::size_t>(instance_.num_layers);
    for (std::size_t row = 0; row < table.num_rows(); ++row) {
      auto& layers = instance_.layers[table.whole(row, "tp", 1, kMaxTp)];
      layers.resize(num_layers);
      const SailorLayer layer{table.number(row, "parameters"), table.number(row, "output_floats"),
                              table.number(row, "activation_floats")};
      const int last = table.whole(row, "layer_last", 0, kMaxLayers);
      for (int l = table.whole(row, "layer_first", 0, kMaxLayers); l <= last && l < instance_.num_layers; ++l)
        layers[static_cast<std::size_t>(l)] = layer;
    }
    auto& whole = instance_.layers[1];
    whole.resize(num_layers);
    for (std::size_t l = 0; l < num_layers; ++l)
      if (!whole[l]) missing("no row of tp 1 for layer " + std::to_string(l), "layers");
  }

  void read_times(const std::string& text) {
    Table table("times", text,
                {"gpu", "microbatch", "tp", "layer_first", "layer_last", "forward_s", "backward_s", "update_s"},
                problems_);
    for (std::size_t row = 0; row < table.num_rows(); ++row) {
      const int gpu = find_name(gpu_names_, table.text(row, "gpu"));
      if (gpu < 0) continue;
      auto& profile =
          instance_.profiles[{gpu, table.whole(row, "microbatch", 1, kMaxBatch), table.whole(row, "tp", 1, kMaxTp)}];
      profile.resize(static_cast<std::size_t>(instance_.num_layers));
      const SailorTimes times{table.number(row, "forward_s") + table.number(row, "backward_s"),
                              table.number(row, "update_s")};
      const int last = table.whole(row, "layer_last", 0, kMaxLayers);
      for (int l = table.whole(row, "layer_first", 0, kMaxLayers); l <= last && l < instance_.num_layers; ++l)
        profile[static_cast<std::size_t>(l)] = times;
    }
  }

  void read_network(const std::string& text) {
    Table table("network", text,
                {"sender_zone", "sender_gpu", "sender_gpus", "receiver_zone", "receiver_gpu", "receiver_gpus", "c2",
                 "c1", "c0"},
                problems_);
    for (std::size_t row = 0; row < table.num_rows(); ++row) {
      const SailorEnd from{find_name(instance_.zones, table.text(row, "sender_zone")),
                           find_name(gpu_names_, table.text(row, "sender_gpu")),
                           table.whole(row, "sender_gpus", 1, kMaxTp)};
      const SailorEnd to{find_name(instance_.zones, table.text(row, "receiver_zone")),
                         find_name(gpu_names_, table.text(row, "receiver_gpu")),
                         table.whole(row, "receiver_gpus", 1, kMaxTp)};
      if (from.zone < 0 || from.gpu < 0 || to.zone < 0 || to.gpu < 0) continue;
      instance_.links[{from, to}] = {table.number(row, "c2"), table.number(row, "c1"), table.number(row, "c0")};
    }
  }

  void read_egress(const std::string& text) {
    Table table("egress", text, {"from_zone", "to_zone", "usd_per_gb"}, problems_);
    for (std::size_t row = 0; row < table.num_rows(); ++row) {
      const int from = find_name(instance_.zones, table.text(row, "from_zone"));
      const int to = find_name(instance_.zones, table.text(row, "to_zone"));
      if (from >= 0 && to >= 0) instance_.usd_per_gb[{from, to}] = table.number(row, "usd_per_gb");
    }
  }

  void add(std::vector<Error> more) {
    problems_.insert(problems_.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  }

  static constexpr int kMaxTp = 1024;
  SailorInstance instance_;
  std::vector<std::string> gpu_names_;
  std::vector<Error> problems_;
};

}  // namespace

Result<SailorInstance> parse_sailor(const Json& json, const SailorTexts& texts) { return Reader().read(json, texts); }

Result<SailorInstance> parse_sailor(const Json& json, const std::filesystem::path& file) {
  SailorTexts texts;
  std::vector<Error> problems;
  const std::pair<const char*, std::string*> wanted[] = {{"layers", &texts.layers},
                                                         {"times", &texts.times},
                                                         {"network", &texts.network},
                                                         {"egress", &texts.egress},
                                                         {"gpus", &texts.gpus}};
  for (const auto& [name, text] : wanted) {
    const Json& path = json["data"][name];
    if (!path.is_string()) {
      problems.push_back({ErrorCode::InvalidArgument, "no path of this table", std::string("instance.data.") + name,
                          "a path relative to the instance", to_text(path), ""});
      continue;
    }
    auto read = read_file(file.parent_path() / path.string());
    if (read) {
      *text = std::move(*read);
    } else {
      problems.push_back(read.error());
    }
  }
  if (!problems.empty())
    return combine_errors(ErrorCode::InvalidArgument, "tables of the instance are missing", std::move(problems));
  return parse_sailor(json, texts);
}

}  // namespace coxswain::planner
