#include "planner/problems/galvatron.h"

#include <charconv>
#include <memory>

#include "planner/problems/galvatron_cost.h"
#include "planner/problems/galvatron_file.h"
#include "planner/problems/galvatron_search.h"

namespace coxswain::planner {
namespace {

constexpr std::int64_t kMaxGpus = 1 << 14, kMaxLayers = 1 << 12, kMaxSize = std::int64_t{1} << 24;

Error wrong(const std::string& path, const std::string& expected, const std::string& got) {
  return {ErrorCode::InvalidArgument, "wrong value", path, expected, got, ""};
}

std::optional<int> whole_number(const std::string& text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < 1) return std::nullopt;
  return value;
}

/// Reads one folder of the document after another; all problems end in one list.
class Reader {
 public:
  Reader(const Json& json, const std::string& path) : reader_(json, path) {
    if (!json.is_object()) return;
    for (const auto& [key, value] : json.object()) reader_.any(key);  // what describes the instance may stand there
  }

  JsonReader& operator*() { return reader_; }
  JsonReader* operator->() { return &reader_; }

  /// Times, sizes and rates are never negative.
  double amount(const std::string& key) {
    const double value = reader_.number(key);
    if (!(value >= 0)) reader_.problem(wrong(key, "a number from 0", to_text(reader_.any(key))));
    return value;
  }

  std::map<std::string, double> table(const std::string& key) {
    std::map<std::string, double> result;
    for (const auto& [name, value] : reader_.object(key).object()) {
      if (value.is_number() && value.number() >= 0) {
        result[name] = value.number();
      } else {
        reader_.problem(wrong(key + "." + name, "a number from 0", to_text(value)));
      }
    }
    return result;
  }

  /// `other` is a key that is no degree and is read elsewhere.
  std::map<int, double> table_by_degree(const std::string& key, const std::string& other = "") {
    std::map<int, double> result;
    for (const auto& [name, value] : table(key)) {
      if (const auto degree = whole_number(name)) {
        result[*degree] = value;
      } else if (name != other) {
        reader_.problem(wrong(key, "degrees as keys", name));
      }
    }
    return result;
  }

  GalvatronLine line(const std::string& key) {
    GalvatronLine line;
    nested(key, [&](Reader& inside) {
      line.slope = inside->number("slope");
      line.intercept = inside->number("intercept");
    });
    return line;
  }

  template <class Read>
  void nested(const std::string& key, Read&& read) {
    Reader inside(reader_.object(key), key);
    read(inside);
    for (Error& problem : inside->take_problems()) reader_.problem(std::move(problem));
  }

  std::map<int, GalvatronMessages> messages(const std::string& key) {
    std::map<int, GalvatronMessages> result;
    nested(key, [&](Reader& tables) {
      for (const auto& [name, value] : reader_.object(key).object()) {
        const auto degree = whole_number(name);
        if (!degree) {
          tables->problem(wrong("", "degrees as keys", name));
          continue;
        }
        tables.nested(name, [&](Reader& one) {
          result[*degree] = {one.table("points"), {one->number("slope"), one->number("intercept")}};
        });
      }
    });
    return result;
  }

 private:
  JsonReader reader_;
};

void read_layer(Reader& layer, GalvatronInstance& instance) {
  instance.layer_parameter_mb = layer.amount("parameter_mb");
  instance.layer_forward_ms = layer.line("forward_ms");
  instance.layer_activation_mb = layer.table_by_degree("activation_mb_per_sample", "checkpoint");
  const Json& checkpoint = layer->object("activation_mb_per_sample")["checkpoint"];
  if (checkpoint.is_number()) instance.checkpoint_activation_mb = checkpoint.number();
}

void read_ends(Reader& ends, GalvatronInstance& instance) {
  instance.end_forward_ms = ends.line("forward_ms");
  for (const auto& [key, end] :
       {std::pair{"whole", &instance.whole}, std::pair{"first", &instance.first}, std::pair{"last", &instance.last}}) {
    ends.nested(key, [&, end = end](Reader& table) {
      end->model_states_mb = table.table_by_degree("model_states_mb");
      end->activation_mb_per_sample = table.table_by_degree("activation_mb_per_sample");
    });
  }
}

void read_network(Reader& network, GalvatronInstance& instance) {
  instance.all_reduce_ms_per_mb = network.table("allreduce_ms_per_mb");
  instance.p2p_ms_per_mb = network.table_by_degree("p2p_ms_per_mb");
  instance.overlap_slowdown = network.amount("overlap_slowdown");
  if (network->has("overlap_slowdown") && instance.overlap_slowdown < 1) {
    const std::string got = to_text(network->any("overlap_slowdown"));
    network->problem(wrong("overlap_slowdown", "a number from 1", got));
  }
  instance.all_gather = network.messages("allgather_ms");
  instance.all_to_all = network.messages("all_to_all_ms");
}

Json to_json(const GalvatronStrategy& strategy) {
  return JsonObject{{"tp", strategy.tp}, {"sp", strategy.sp}, {"dp", strategy.dp}, {"zero", strategy.zero}};
}

Json to_json(const GalvatronPlan& plan) {
  JsonArray split, layers;
  for (const int count : plan.split) split.emplace_back(count);
  for (std::size_t i = 0; i < plan.layers.size();) {
    std::size_t end = i;
    while (end < plan.layers.size() && plan.layers[end] == plan.layers[i]) ++end;
    Json run = to_json(plan.layers[i]);
    run["recompute"] = plan.layers[i].recompute;
    run["count"] = static_cast<std::int64_t>(end - i);
    layers.push_back(std::move(run));
    i = end;
  }
  return JsonObject{{"pp", plan.pp},
                    {"chunks", plan.chunks},
                    {"split", std::move(split)},
                    {"layers", std::move(layers)},
                    {"embedding", to_json(plan.embedding)}};
}

}  // namespace

Result<GalvatronInstance> parse_galvatron(const Json& json, const std::filesystem::path& file) {
  Reader reader(json, file.filename().string());
  GalvatronInstance instance;
  instance.gpus = static_cast<int>(reader->integer("gpus", 1, kMaxGpus));
  if ((instance.gpus & (instance.gpus - 1)) != 0)
    reader->problem(wrong("gpus", "a power of two", std::to_string(instance.gpus)));
  instance.layers = static_cast<int>(reader->integer("layers", 1, kMaxLayers));
  instance.max_degree = static_cast<int>(reader->integer("max_degree", 1, kMaxGpus));
  instance.memory_mb = reader->integer("memory_mb", 1, kMaxSize);
  instance.sequence = reader->integer("sequence", 1, kMaxSize);
  instance.hidden = reader->integer("hidden", 1, kMaxSize);
  instance.global_batch = reader->integer("global_batch", 1, kMaxSize);
  if (reader->has("chunks")) instance.chunks = reader->integer("chunks", 1, kMaxSize);
  reader.nested("layer", [&](Reader& layer) { read_layer(layer, instance); });
  reader.nested("embedding_and_head", [&](Reader& ends) { read_ends(ends, instance); });
  reader.nested("network", [&](Reader& network) { read_network(network, instance); });
  COX_TRY_VOID(reader->finish());
  return instance;
}

Result<ContestAnswer> solve_galvatron(const GalvatronInstance& instance, const ContestOptions&) {
  const auto found = search_galvatron(instance);
  if (!found) {
    return Error{ErrorCode::ResourceExhausted,  "no plan fits the memory",          "memory_mb",
                 "more memory or other chunks", std::to_string(instance.memory_mb), ""};
  }
  const auto ms = estimate_galvatron_ms(instance, found->plan);
  ContestAnswer answer{to_json(found->plan), static_cast<double>(instance.global_batch) / *ms * 1000,
                       found->num_labels};
  answer.unit = "samples per second";
  answer.step_seconds = *ms / 1000;
  return answer;
}

Result<ContestSolver> load_galvatron(const Json& json, const std::filesystem::path& file) {
  if (is_galvatron_search(json)) {
    COX_TRY(const Json instance, convert_galvatron(json, file));
    return load_galvatron(instance, file);
  }
  COX_TRY(GalvatronInstance instance, parse_galvatron(json, file));
  auto shared = std::make_shared<const GalvatronInstance>(std::move(instance));
  return ContestSolver([shared](const ContestOptions& options) { return solve_galvatron(*shared, options); });
}

}  // namespace coxswain::planner
