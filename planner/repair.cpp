#include "planner/repair.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "plan/program.h"
#include "planner/search.h"

namespace coxswain::planner {
namespace {

using Mesh = std::vector<std::optional<plan::DeviceId>>;

bool is_whole(const Mesh& mesh) {
  return std::all_of(mesh.begin(), mesh.end(), [](const auto& device) { return device.has_value(); });
}

/// Devices that no survivor of the running plan stands on, by node.
class Spares {
 public:
  Spares(const cluster::ResourceGraph& graph, const PlacedDevices& placed) : graph_(graph) {
    std::set<plan::DeviceId> used;
    for (const auto& stage : placed) {
      for (const Mesh& mesh : stage) {
        for (const auto& device : mesh) {
          if (device) used.insert(*device);
        }
      }
    }
    for (std::size_t c = 0; c < graph.device_classes.size(); ++c) {
      for (std::int64_t i = 0; i < cluster::num_devices(graph, static_cast<int>(c)); ++i) {
        const plan::DeviceId device{static_cast<int>(c), i};
        if (!used.contains(device)) free_[{device.device_class, cluster::locate(graph, device).node}].push_back(device);
      }
    }
  }

  /// `count` devices of one class on one node: of `node` and `device_class` where these are known, else of that class,
  /// else of the class with the highest peak. Empty where there are none.
  std::vector<plan::DeviceId> take(std::size_t count, int device_class, std::int64_t node) {
    auto best = free_.end();
    const auto worth = [&](const auto& entry) {
      const auto& device = graph_.device_classes[static_cast<std::size_t>(entry.first.first)];
      return std::tuple{entry.first.second == node, entry.first.first == device_class, device.peak_float32.value};
    };
    for (auto at = free_.begin(); at != free_.end(); ++at) {
      if (at->second.size() >= count && (best == free_.end() || worth(*at) > worth(*best))) best = at;
    }
    if (best == free_.end()) return {};
    std::vector<plan::DeviceId> taken(best->second.begin(), best->second.begin() + static_cast<std::ptrdiff_t>(count));
    best->second.erase(best->second.begin(), best->second.begin() + static_cast<std::ptrdiff_t>(count));
    return taken;
  }

  /// The lost devices of a mesh next to its survivors.
  bool fill(Mesh& mesh) {
    const auto lost = static_cast<std::size_t>(std::count(mesh.begin(), mesh.end(), std::nullopt));
    const auto survivor = std::find_if(mesh.begin(), mesh.end(), [](const auto& device) { return device.has_value(); });
    if (survivor == mesh.end()) return false;
    const auto at = free_.find({(*survivor)->device_class, cluster::locate(graph_, **survivor).node});
    if (at == free_.end() || at->second.size() < lost) return false;
    for (auto& device : mesh) {
      if (device) continue;
      device = at->second.front();
      at->second.erase(at->second.begin());
    }
    return true;
  }

 private:
  const cluster::ResourceGraph& graph_;
  std::map<std::pair<int, std::int64_t>, std::vector<plan::DeviceId>> free_;  // by (class, node)
};

class Repairer {
 public:
  explicit Repairer(const Request& request)
      : request_(request),
        cost_(*request.cost),
        running_(request.running->plan),
        placed_(place_devices(running_, request.running->devices)),
        splits_(cost_.facts().static_batch() == 0 && cost_.model().coupled.empty()),
        model_hash_(model::model_hash(cost_.model())),
        cluster_hash_(cluster::cluster_hash(cost_.resources())) {}

  std::vector<RepairedPlan> run() {
    if (running_.precision != request_.precision) return {};
    if (!plan::has_schedule(request_.capabilities, running_.schedule)) return {};
    bool whole = true;
    for (const auto& stage : placed_) whole = whole && std::all_of(stage.begin(), stage.end(), is_whole);
    if (whole) {
      add(shape_of(placed_), "the running plan", Samples::Kept);
      add(shape_of(placed_), "samples shared out anew", Samples::Shared);
    } else {
      replace();
      drop_replicas();
      drop_columns();
    }
    extend();
    return std::move(plans_);
  }

 private:
  /// Meshes by stage and replica; `from` says which replica of the running plan one was (-1: none).
  struct Shape {
    std::vector<std::vector<std::vector<plan::DeviceId>>> meshes;
    std::vector<std::vector<int>> from;
  };
  enum class Samples { Kept, Shared };

  /// Of the replicas that are whole.
  static Shape shape_of(const PlacedDevices& placed) {
    Shape shape;
    for (const auto& stage : placed) {
      shape.meshes.emplace_back();
      shape.from.emplace_back();
      for (std::size_t r = 0; r < stage.size(); ++r) {
        if (!is_whole(stage[r])) continue;
        shape.meshes.back().emplace_back();
        for (const auto& device : stage[r]) shape.meshes.back().back().push_back(*device);
        shape.from.back().push_back(static_cast<int>(r));
      }
    }
    return shape;
  }

  void drop_replicas() { add_micros(shape_of(placed_), "without the replicas that lost a device"); }

  /// Replica r of every stage where one of them lost a device: the others go on as they are, the rest is spare.
  void drop_columns() {
    const std::size_t replicas = placed_.front().size();
    if (std::any_of(placed_.begin(), placed_.end(), [&](const auto& stage) { return stage.size() != replicas; }))
      return;
    PlacedDevices left = placed_;
    for (std::size_t r = replicas; r-- > 0;) {
      if (std::all_of(placed_.begin(), placed_.end(), [&](const auto& stage) { return is_whole(stage[r]); })) continue;
      for (auto& stage : left) stage.erase(stage.begin() + static_cast<std::ptrdiff_t>(r));
    }
    add_micros(shape_of(left), "without the pipelines that lost a device");
  }

  void replace() {
    Spares spares(cost_.resources(), placed_);
    const PlacedDevices filled = fill(spares);
    const Shape shape = shape_of(filled);
    bool all = true;
    for (std::size_t s = 0; s < filled.size(); ++s) all = all && shape.meshes[s].size() == filled[s].size();
    if (all) add(shape, "spare devices in place of lost ones", Samples::Kept);
    add_micros(shape, all ? "spare devices in place of lost ones, samples shared out anew"
                          : "spare devices in place of some of the lost ones");
  }

  PlacedDevices fill(Spares& spares) const {
    PlacedDevices filled = placed_;
    for (std::size_t s = 0; s < filled.size(); ++s) {
      for (std::size_t r = 0; r < filled[s].size(); ++r) {
        Mesh& mesh = filled[s][r];
        if (is_whole(mesh) || spares.fill(mesh)) continue;
        const std::vector<plan::DeviceId> taken = spares.take(mesh.size(), class_of(s, r), -1);
        for (std::size_t p = 0; p < taken.size(); ++p) mesh[p] = taken[p];
      }
    }
    return filled;
  }

  /// The class of a replica in the changed cluster's numbers, or -1.
  [[nodiscard]] int class_of(std::size_t s, std::size_t r) const {
    for (const auto& row : {placed_[s][r], placed_[s].front()}) {
      for (const auto& device : row) {
        if (device) return device->device_class;
      }
    }
    return -1;
  }

  /// More replicas of every stage on what is spare after lost devices were replaced.
  void extend() {
    if (!splits_) return;
    Spares spares(cost_.resources(), placed_);
    Shape shape = shape_of(fill(spares));
    std::size_t columns = 0;
    for (;; ++columns) {
      std::vector<std::vector<plan::DeviceId>> column;
      for (std::size_t s = 0; s < placed_.size(); ++s) {
        const auto taken = spares.take(placed_[s].front().size(), class_of(s, 0), -1);
        if (taken.empty()) break;
        column.push_back(taken);
      }
      if (column.size() < placed_.size()) break;
      for (std::size_t s = 0; s < column.size(); ++s) {
        shape.meshes[s].push_back(column[s]);
        shape.from[s].push_back(-1);
      }
    }
    if (columns > 0) add_micros(shape, "more replicas on spare devices");
  }

  /// With the micro-batch as it is, and as large for a replica as it was.
  void add_micros(const Shape& shape, const std::string& how) {
    if (!splits_) return;
    std::size_t most = 0, most_before = 1;
    for (std::size_t s = 0; s < shape.meshes.size(); ++s) {
      if (shape.meshes[s].empty()) return;
      most = std::max(most, shape.meshes[s].size());
      most_before = std::max(most_before, placed_[s].size());
    }
    add(shape, how, Samples::Shared);
    const std::int64_t wanted =
        running_.batch.micro * static_cast<std::int64_t>(most) / static_cast<std::int64_t>(most_before);
    // The largest divisor up to what is wanted, the least one above it.
    std::int64_t below = 0, above = 0;
    for (std::int64_t micro = 1; micro <= request_.global_batch; ++micro) {
      if (request_.global_batch % micro != 0) continue;
      if (micro <= wanted) below = micro;
      if (micro > wanted && above == 0) above = micro;
    }
    for (const std::int64_t micro : {below, above}) {
      if (micro > 0 && micro != running_.batch.micro) add(shape, how, Samples::Shared, micro);
    }
  }

  void add(const Shape& shape, const std::string& how, Samples samples, std::int64_t micro = 0) {
    plan::Plan plan = running_;
    plan.model_hash = model_hash_;
    plan.cluster_hash = cluster_hash_;
    if (micro > 0) plan.batch.micro = micro;
    if (request_.global_batch % plan.batch.micro != 0) return;
    plan.batch.count = request_.global_batch / plan.batch.micro;
    plan.batch.global = request_.global_batch;
    for (std::size_t s = 0; s < plan.stages.size(); ++s) {
      plan::Stage& stage = plan.stages[s];
      stage.replicas.clear();
      for (std::size_t r = 0; r < shape.meshes[s].size(); ++r) {
        const int from = shape.from[s][r];
        plan::Replica replica = running_.stages[s].replicas[static_cast<std::size_t>(std::max(0, from))];
        replica.devices = shape.meshes[s][r];
        stage.replicas.push_back(std::move(replica));
      }
      if (stage.replicas.empty() || !share(plan, stage, samples)) return;
      // Replicas in a row hold all experts together.
      if (stage.replicas.size() % static_cast<std::size_t>(stage.replicas.front().expert) != 0) return;
    }
    const auto known = [&](const RepairedPlan& one) {
      return one.plan.stages == plan.stages && one.plan.batch == plan.batch;
    };
    plan::fill_roles(plan, cost_.facts().uses(), kBucketBytes);
    if (!meets(request_.constraints, plan) || !plan::list_beyond(plan, request_.capabilities).empty()) return;
    if (std::none_of(plans_.begin(), plans_.end(), known)) plans_.push_back({std::move(plan), how});
  }

  bool share(const plan::Plan& plan, plan::Stage& stage, Samples samples) const {
    if (samples == Samples::Kept) return true;
    if (!splits_) return false;
    const std::vector<std::int64_t> shares =
        share_samples(cost_, plan.precision, stage.first_block, stage.end_block, stage.replicas, plan.batch.micro);
    if (shares.empty()) return false;
    for (std::size_t r = 0; r < shares.size(); ++r) stage.replicas[r].samples = shares[r];
    return true;
  }

  const Request& request_;
  const cost_model::CostModel& cost_;
  const plan::Plan& running_;
  const PlacedDevices placed_;
  const bool splits_;  // the batch may be shared out in another way
  const std::string model_hash_, cluster_hash_;
  std::vector<RepairedPlan> plans_;
};

template <class Values, class Value>
bool allows(const Values& values, const Value& value) {
  return values.empty() || std::find(values.begin(), values.end(), value) != values.end();
}

bool meets_recompute(const std::string& text, const plan::Plan& plan) {
  const auto json = parse_json(text);
  for (const plan::Stage& stage : plan.stages) {
    for (int block = stage.first_block; block < stage.end_block; ++block) {
      bool full = text == "full";
      if (json && json->is_array())
        full = std::find(json->array().begin(), json->array().end(), Json(block)) != json->array().end();
      const plan::Recompute has = stage.recompute[static_cast<std::size_t>(block - stage.first_block)];
      const plan::Recompute wanted = full                  ? plan::Recompute::Full
                                     : text == "selective" ? plan::Recompute::Selective
                                                           : plan::Recompute::None;
      if (has != wanted) return false;
    }
  }
  return true;
}

bool meets_cuts(const std::string& text, const plan::Plan& plan) {
  const int stages = static_cast<int>(plan.stages.size()), blocks = plan.stages.back().end_block;
  JsonArray cuts, even;
  for (int s = 1; s < stages; ++s) {
    cuts.emplace_back(plan.stages[static_cast<std::size_t>(s)].first_block);
    even.emplace_back((s * blocks + stages / 2) / stages);
  }
  if (text == "even") return cuts == even;
  const auto json = parse_json(text);
  return json && json->is_array() && json->array() == cuts;
}

}  // namespace

bool meets(const Constraints& constraints, const plan::Plan& plan) {
  if (!allows(constraints.pipeline, static_cast<int>(plan.stages.size())) ||
      !allows(constraints.micro, plan.batch.micro) || !allows(constraints.schedule, plan.schedule))
    return false;
  if (constraints.cuts && !meets_cuts(*constraints.cuts, plan)) return false;
  if (constraints.recompute && !meets_recompute(*constraints.recompute, plan)) return false;
  for (const plan::Stage& stage : plan.stages) {
    if (!allows(constraints.data, static_cast<int>(stage.replicas.size())) ||
        !allows(constraints.zero, stage.zero_stage))
      return false;
    if (constraints.offload && *constraints.offload != plan::to_text(stage.offload)) return false;
    std::vector<std::int64_t> samples;
    for (const plan::Replica& replica : stage.replicas) {
      samples.push_back(replica.samples);
      if (!allows(constraints.tensor, replica.tensor) || !allows(constraints.context, replica.context) ||
          !allows(constraints.expert, replica.expert))
        return false;
    }
    if (constraints.samples && samples != *constraints.samples) return false;
  }
  return true;
}

std::vector<std::int64_t> share_samples(const cost_model::CostModel& cost, plan::Precision precision, int first_block,
                                        int end_block, const std::vector<plan::Replica>& replicas, std::int64_t micro) {
  const auto count = static_cast<std::int64_t>(replicas.size());
  if (count == 0 || micro < count) return {};
  const std::int64_t probe = std::max<std::int64_t>(1, micro / count);
  std::map<std::pair<int, int>, double> seconds;  // of `probe` samples, by (class, tensor)
  std::vector<double> rates;
  double sum = 0;
  for (const plan::Replica& replica : replicas) {
    const int device_class = replica.devices.front().device_class;
    const auto [at, fresh] = seconds.emplace(std::pair{device_class, replica.tensor}, 0.0);
    for (int block = first_block; fresh && block < end_block; ++block) {
      const auto time =
          cost.estimate_block({block, device_class, probe, precision, replica.tensor, replica.context, replica.expert});
      at->second += (time.forward + time.backward).value;
    }
    rates.push_back(1.0 / std::max(at->second, 1e-12));
    sum += rates.back();
  }
  std::vector<std::int64_t> samples;
  std::int64_t left = micro;
  for (const double rate : rates) {
    samples.push_back(std::max<std::int64_t>(1, static_cast<std::int64_t>(static_cast<double>(micro) * rate / sum)));
    left -= samples.back();
  }
  // What rounding left goes to whoever is done with it first; what it took too much comes from whoever takes longest.
  const auto busy = [&](std::size_t r, std::int64_t more) { return static_cast<double>(samples[r] + more) / rates[r]; };
  while (left != 0) {
    std::size_t best = samples.size();
    for (std::size_t r = 0; r < samples.size(); ++r) {
      if (left > 0 && (best == samples.size() || busy(r, 1) < busy(best, 1))) best = r;
      if (left < 0 && samples[r] > 1 && (best == samples.size() || busy(r, 0) > busy(best, 0))) best = r;
    }
    samples[best] += left > 0 ? 1 : -1;
    left += left > 0 ? -1 : 1;
  }
  return samples;
}

std::vector<RepairedPlan> repair_plan(const Request& request) { return Repairer(request).run(); }

}  // namespace coxswain::planner
