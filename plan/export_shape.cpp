#include "plan/export_shape.h"

#include <algorithm>
#include <numeric>

namespace coxswain::plan {
namespace {

Error wrong(std::string path, std::string message, std::string expected, std::string got) {
  return {ErrorCode::InvalidArgument, std::move(message), std::move(path), std::move(expected), std::move(got), ""};
}

std::string at_stage(std::size_t s) { return "plan.stages[" + std::to_string(s) + "]"; }

std::size_t num_devices_of(const Stage& stage) {
  std::size_t count = 0;
  for (const Replica& replica : stage.replicas) count += replica.devices.size();
  return count;
}

std::vector<DeviceId> devices_of(const Stage& stage) {
  std::vector<DeviceId> devices;
  for (const Replica& replica : stage.replicas)
    devices.insert(devices.end(), replica.devices.begin(), replica.devices.end());
  return devices;
}

template <class T>
std::string list_text(const std::vector<T>& values) {
  std::string text;
  for (const T& value : values) text += (text.empty() ? "" : ", ") + std::to_string(value);
  return "[" + text + "]";
}

std::vector<std::int64_t> samples_of(const Stage& stage) {
  std::vector<std::int64_t> samples;
  for (const Replica& replica : stage.replicas) samples.push_back(replica.samples);
  return samples;
}

/// "2 replicas of 4 devices (tensor 4)"; the first replica's mesh where they differ.
std::string describe(const Stage& stage) {
  const Replica& first = stage.replicas.front();
  const bool alike = std::all_of(stage.replicas.begin(), stage.replicas.end(), [&](const Replica& replica) {
    return replica.devices.size() == first.devices.size() && replica.tensor == first.tensor;
  });
  if (!alike) {
    std::vector<int> degrees;
    for (const Replica& replica : stage.replicas) degrees.push_back(replica.tensor);
    return std::to_string(stage.replicas.size()) + " replicas of tensor degrees " + list_text(degrees);
  }
  return std::to_string(stage.replicas.size()) + (stage.replicas.size() == 1 ? " replica of " : " replicas of ") +
         std::to_string(first.devices.size()) + (first.devices.size() == 1 ? " device" : " devices") + " (tensor " +
         std::to_string(first.tensor) + ")";
}

class Shaper {
 public:
  Shaper(const Plan& plan, const model::ModelGraph& model, const cluster::ResourceGraph& resources)
      : plan_(plan), model_(model), resources_(resources) {}

  Result<ExportShape> make() {
    check();
    if (!problems_.empty())
      return combine_errors(ErrorCode::InvalidArgument, "the plan cannot be exported", std::move(problems_));
    shape_.precision = plan_.precision;
    shape_.schedule = plan_.schedule;
    group_stages();
    take_axes();
    take_batch();
    take_stage_choices();
    take_places();
    return std::move(shape_);
  }

 private:
  void check() {
    if (plan_.stages.empty()) problems_.push_back(wrong("plan.stages", "no stages", "at least one", "none"));
    if (plan_.batch.global < 1 || plan_.batch.micro < 1)
      problems_.push_back(wrong("plan.batch", "wrong value", "samples from 1", std::to_string(plan_.batch.global)));
    int block = 0;
    for (std::size_t s = 0; s < plan_.stages.size(); ++s) {
      const Stage& stage = plan_.stages[s];
      if (stage.first_block != block || stage.end_block <= block)
        problems_.push_back(
            wrong(at_stage(s), "the stages do not follow each other", "blocks from " + std::to_string(block),
                  "[" + std::to_string(stage.first_block) + "," + std::to_string(stage.end_block) + ")"));
      block = stage.end_block;
      if (stage.recompute.size() != static_cast<std::size_t>(std::max(0, stage.end_block - stage.first_block)))
        problems_.push_back(wrong(at_stage(s) + ".recompute", "wrong length", "one entry a block",
                                  std::to_string(stage.recompute.size())));
      if (stage.replicas.empty())
        problems_.push_back(wrong(at_stage(s) + ".replicas", "no replicas", "at least one", "none"));
      for (const DeviceId& device : devices_of(stage)) check_device(at_stage(s), device);
    }
    if (block != model_.num_blocks())
      problems_.push_back(wrong("plan.stages", "the stages do not cover the model",
                                std::to_string(model_.num_blocks()) + " blocks", std::to_string(block)));
  }

  void check_device(const std::string& path, const DeviceId& device) {
    const auto num_classes = static_cast<int>(resources_.device_classes.size());
    if (device.device_class >= 0 && device.device_class < num_classes && device.index >= 0 &&
        device.index < cluster::num_devices(resources_, device.device_class))
      return;
    problems_.push_back(wrong(path, "no such device in the cluster", "a device of the cluster",
                              std::to_string(device.device_class) + ":" + std::to_string(device.index)));
  }

  /// Stages on the same devices are virtual stages of one group.
  void group_stages() {
    for (const Stage& stage : plan_.stages) {
      const std::vector<DeviceId> devices = devices_of(stage);
      const bool seen = std::any_of(groups_.begin(), groups_.end(),
                                    [&](const Stage* other) { return devices_of(*other) == devices; });
      if (!seen) groups_.push_back(&stage);
    }
    shape_.pipeline = static_cast<int>(groups_.size());
    shape_.virtual_stages = static_cast<int>(plan_.stages.size() / groups_.size());
  }

  void take_axes() {
    const Stage* least = *std::min_element(groups_.begin(), groups_.end(), [](const Stage* a, const Stage* b) {
      return num_devices_of(*a) < num_devices_of(*b);
    });
    const Replica* mesh =
        &*std::min_element(least->replicas.begin(), least->replicas.end(),
                           [](const Replica& a, const Replica& b) { return a.devices.size() > b.devices.size(); });
    shape_.tensor = mesh->tensor;
    shape_.context = mesh->context;
    shape_.expert = mesh->expert;
    shape_.data = static_cast<int>(std::max<std::size_t>(1, num_devices_of(*least) / mesh->devices.size()));
    std::string unlike;
    bool alike = true;
    for (std::size_t s = 0; s < plan_.stages.size(); ++s) {
      const Stage& stage = plan_.stages[s];
      unlike += (s == 0 ? "" : ", ") + ("stage " + std::to_string(s) + ": ") + describe(stage);
      alike &= static_cast<int>(stage.replicas.size()) == shape_.data &&
               std::all_of(stage.replicas.begin(), stage.replicas.end(), [&](const Replica& replica) {
                 return replica.tensor == shape_.tensor && replica.context == shape_.context &&
                        replica.expert == shape_.expert && replica.devices.size() == mesh->devices.size();
               });
    }
    if (alike) return;
    shape_.lost.push_back("stages or replicas of unlike shape (" + unlike + "): the tool has one tensor and one data " +
                          "degree for all; written are tensor " + std::to_string(shape_.tensor) + " and data " +
                          std::to_string(shape_.data) + ", which every stage has the devices for; plan for that with " +
                          "--constrain tensor=" + std::to_string(shape_.tensor) +
                          " --constrain data=" + std::to_string(shape_.data) + " and look at its memory");
  }

  void take_batch() {
    shape_.global = plan_.batch.global;
    const std::int64_t sample = plan_.stages.front().replicas.front().samples;
    bool equal = true;
    std::string unequal;
    for (std::size_t s = 0; s < plan_.stages.size(); ++s) {
      const std::vector<std::int64_t> samples = samples_of(plan_.stages[s]);
      const bool same = std::all_of(samples.begin(), samples.end(), [&](auto each) { return each == samples.front(); });
      if (!same) unequal += (unequal.empty() ? "" : ", ") + ("stage " + std::to_string(s) + ": ") + list_text(samples);
      equal &= same && samples.front() == sample;
    }
    if (equal && sample * shape_.data * plan_.batch.count == shape_.global) {
      shape_.micro = sample;
      shape_.count = plan_.batch.count;
      return;
    }
    const int wanted = shape_.data;
    while (shape_.global % shape_.data != 0) --shape_.data;
    if (shape_.data != wanted)
      shape_.lost.push_back("data degree " + std::to_string(wanted) + " does not divide the global batch of " +
                            std::to_string(shape_.global) + ": written is " + std::to_string(shape_.data) +
                            ", so that devices stay unused; choose a global batch that it divides");
    const std::int64_t share = shape_.global / shape_.data;
    shape_.micro = std::max<std::int64_t>(1, std::min(share, plan_.batch.micro / shape_.data));
    while (share % shape_.micro != 0) --shape_.micro;
    shape_.count = share / shape_.micro;
    if (!unequal.empty())
      shape_.lost.push_back(
          "unequal samples of the replicas (" + unequal + "): every replica gets " + std::to_string(shape_.micro) +
          " of each of " + std::to_string(shape_.count) +
          " micro-batches, so that the slowest sets the pace; plan for that with --constrain samples=" +
          list_text(std::vector<std::int64_t>(static_cast<std::size_t>(shape_.data), shape_.micro)));
  }

  void take_stage_choices() {
    const int last = model_.num_blocks() - 1;
    std::vector<int> zero;
    std::vector<std::string> offload;
    for (std::size_t s = 0; s < plan_.stages.size(); ++s) {
      const Stage& stage = plan_.stages[s];
      StageLayers layers;
      for (int block = stage.first_block; block < stage.end_block; ++block) {
        const Recompute recompute = stage.recompute[static_cast<std::size_t>(block - stage.first_block)];
        if (block == 0 || block == last) {
          shape_.ends_recomputed |= recompute != Recompute::None;
          continue;
        }
        ++layers.layers;
        layers.full += recompute == Recompute::Full ? 1 : 0;
        layers.selective += recompute == Recompute::Selective ? 1 : 0;
      }
      shape_.stages.push_back(layers);
      zero.push_back(stage.zero_stage);
      shape_.zero_stage = std::max(shape_.zero_stage, stage.zero_stage);
      if (stage.offload != Offload::None) shape_.offload = stage.offload;
      offload.emplace_back(to_text(stage.offload));
    }
    if (shape_.data == 1 && shape_.zero_stage > 0 && shape_.offload == Offload::None) {
      shape_.zero_stage = 0;  // nothing to share it with
    } else if (std::any_of(zero.begin(), zero.end(), [&](int each) { return each != zero.front(); })) {
      shape_.lost.push_back(
          "ZeRO per stage (" + list_text(zero) + "): the tool has one for all; written is " +
          std::to_string(shape_.zero_stage) +
          ", which needs the least memory and communicates most; plan for that with --constrain zero=" +
          std::to_string(shape_.zero_stage));
    }
    if (std::any_of(offload.begin(), offload.end(), [&](const auto& each) { return each != offload.front(); }))
      shape_.lost.push_back("offload per stage: the tool has one for all; written is " +
                            std::string(to_text(shape_.offload)) + " on every stage");
  }

  /// The ranks' devices in both orders; a stage of several classes is a loss.
  void take_places() {
    std::vector<DeviceId> by_stage, by_replica;
    std::size_t most = 0;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      const std::vector<DeviceId> devices = devices_of(*groups_[g]);
      by_stage.insert(by_stage.end(), devices.begin(), devices.end());
      most = std::max(most, groups_[g]->replicas.size());
      note_classes(g, devices);
    }
    for (std::size_t r = 0; r < most; ++r) {
      for (const Stage* stage : groups_) {
        if (r >= stage->replicas.size()) continue;
        const auto& devices = stage->replicas[r].devices;
        by_replica.insert(by_replica.end(), devices.begin(), devices.end());
      }
    }
    shape_.places = places_of(by_stage);
    shape_.places_by_replica = places_of(by_replica);
  }

  void note_classes(std::size_t stage, const std::vector<DeviceId>& devices) {
    std::vector<std::string> classes;
    for (const DeviceId& device : devices) {
      const std::string& name = class_name(device);
      if (std::find(classes.begin(), classes.end(), name) == classes.end()) classes.push_back(name);
    }
    if (classes.size() < 2) return;
    std::string names;
    for (const std::string& name : classes) names += (names.empty() ? "" : ", ") + name;
    shape_.lost.push_back(
        "stage " + std::to_string(stage) + " mixes device classes (" + names +
        "): the tool takes devices for equal; it runs where the hosts are given in the order of the " +
        "ranks that the text lists");
  }

  [[nodiscard]] const std::string& class_name(const DeviceId& device) const {
    return resources_.device_classes[static_cast<std::size_t>(device.device_class)].name;
  }

  /// A line for each run of ranks on one node and class; none when a node comes twice.
  [[nodiscard]] std::vector<std::string> places_of(const std::vector<DeviceId>& devices) const {
    std::vector<std::string> places;
    std::vector<std::int64_t> nodes;
    for (std::size_t i = 0; i < devices.size();) {
      const std::int64_t node = cluster::locate(resources_, devices[i]).node;
      if (nodes.empty() || nodes.back() != node) {
        if (std::find(nodes.begin(), nodes.end(), node) != nodes.end()) return {};
        nodes.push_back(node);
      }
      std::size_t end = i + 1;
      while (end < devices.size() && devices[end].device_class == devices[i].device_class &&
             devices[end].index == devices[end - 1].index + 1 && cluster::locate(resources_, devices[end]).node == node)
        ++end;
      const auto length = static_cast<std::int64_t>(end - i);
      places.push_back(range("rank", static_cast<std::int64_t>(i), length) + ": node " + std::to_string(node) + ", " +
                       class_name(devices[i]) + " " + range("", devices[i].index, length));
      i = end;
    }
    return places;
  }

  static std::string range(const std::string& word, std::int64_t first, std::int64_t length) {
    const std::string space = word.empty() ? "" : " ";
    if (length == 1) return word + space + std::to_string(first);
    return word + (word.empty() ? "" : "s ") + std::to_string(first) + "-" + std::to_string(first + length - 1);
  }

  const Plan& plan_;
  const model::ModelGraph& model_;
  const cluster::ResourceGraph& resources_;
  std::vector<const Stage*> groups_;  // the first stage of each, in order
  ExportShape shape_;
  std::vector<Error> problems_;
};

}  // namespace

Result<ExportShape> make_export_shape(const Plan& plan, const model::ModelGraph& model,
                                      const cluster::ResourceGraph& resources) {
  return Shaper(plan, model, resources).make();
}

bool has_even_cuts(const ExportShape& shape) {
  return std::all_of(shape.stages.begin(), shape.stages.end(),
                     [&](const StageLayers& stage) { return stage.layers == shape.stages.front().layers; });
}

StageLayers total_layers(const ExportShape& shape) {
  StageLayers total;
  for (const StageLayers& stage : shape.stages) {
    total.layers += stage.layers;
    total.full += stage.full;
    total.selective += stage.selective;
  }
  return total;
}

std::string layers_text(const ExportShape& shape) {
  std::vector<int> layers;
  for (const StageLayers& stage : shape.stages) layers.push_back(stage.layers);
  return list_text(layers);
}

std::vector<std::string> head_lines(const std::string& title, const std::vector<std::string>& places,
                                    const std::vector<std::string>& lost) {
  constexpr std::size_t kMaxPlaces = 32;
  std::vector<std::string> lines{title};
  for (std::size_t i = 0; i < places.size() && i < kMaxPlaces; ++i) lines.push_back(places[i]);
  if (places.size() > kMaxPlaces)
    lines.push_back("... and " + std::to_string(places.size() - kMaxPlaces) +
                    " more runs of ranks, as the plan's stages list them");
  for (const std::string& each : lost) lines.push_back("not expressed: " + each);
  return lines;
}

std::vector<std::string> order_lost(const ExportShape& shape) {
  if (!shape.places.empty()) return {};
  return {
      "where the ranks are: the tool counts them stage by stage, which puts ranks of one host apart; place each rank "
      "yourself (a rank file of mpirun, or srun --distribution=arbitrary) as the plan's stages list the devices"};
}

}  // namespace coxswain::plan
