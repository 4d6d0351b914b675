#include "planner/problems/amp_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace coxswain::planner {
namespace {

/// Volumes are counted in 32-bit numbers, and the profiled rates are those of 32-bit arithmetic.
constexpr double kBytesPerNumber = 4;

/// 16 lanes of PCIe 3.0 at 8 GT/s with 128b/130b coding: 15.75 GB/s (PCI Express Base Specification 3.0). A node whose
/// devices talk faster than that has NVLink.
constexpr double kPcieNumbersPerSecond = 15.75e9 / kBytesPerNumber;

struct Device {
  double flop_per_second = 0;   // 32-bit
  double bytes_per_second = 0;  // device memory
  double memory_bytes = 0;
  int processors = 0;
};
/// NVIDIA T4 data sheet: 8.1 TFLOP/s, 320 GB/s, 16 GB, 2560 cores in 40 processors. 1/16 of its memory holds the error
/// correction (CUDA C++ Best Practices Guide, "Effects of ECC memory": 6.25 % of GDDR).
constexpr Device kT4{8.1e12, 320e9, 16.0 * (1 << 30) * 15 / 16, 40};
/// NVIDIA V100 SXM2 data sheet: 15.7 TFLOP/s, 900 GB/s, 16 GB, 80 processors.
constexpr Device kV100{15.7e12, 900e9, 16.0 * (1 << 30), 80};

/// Payload of a TCP segment over Ethernet at 1500 bytes: 1448 of 1538 on the wire (RFC 7323 time stamps, IEEE 802.3).
constexpr double kTcpFraction = 1448.0 / 1538.0;

/// Adam in 32 bits keeps weight, gradient and two moments; a step reads the four and writes all but the gradient.
/// Source: Kingma and Ba, "Adam", algorithm 1.
constexpr double kStateBytesPerParameter = 16, kOptimizerBytesPerParameter = 28;

/// GPT-2's attention heads, at all its sizes (Radford et al., 2019).
constexpr double kHeadColumns = 64;

const Device& device_of(const AmpNode& node) {
  return node.intra_numbers_per_second > kPcieNumbersPerSecond ? kV100 : kT4;
}

bool is_transformer(const AmpUnit& unit) { return unit.parameters > 0 && !unit.embedding; }

/// A transformer layer has 12 hidden^2 parameters and puts out sequence x hidden numbers.
double hidden_of(const AmpUnit& unit) { return std::sqrt(unit.parameters / 12); }
double sequence_of(const AmpUnit& unit) { return unit.output_numbers_per_sample / hidden_of(unit); }

/// Kept for one sample's backward pass: Korthikanti et al., "Reducing activation recomputation in large transformer
/// models", section 4 (34 s h + 5 a s^2 bytes in 16 bits), with 4 bytes a number and 1 a mask element. Inputs of the
/// two normalisations, of attention and of the feed-forward part (4 numbers) and two masks are whole on every rank;
/// queries, keys, values, the attention's output and the two of four times the width (12 numbers) are divided by tp, as
/// are scores before and after dropout (2 numbers and a mask).
double activation_bytes(const AmpUnit& unit, int tp) {
  if (!is_transformer(unit)) {
    return unit.output_numbers_per_sample / (unit.output_divided_by_tp ? tp : 1) * kBytesPerNumber;
  }
  const double hidden = hidden_of(unit), sequence = sequence_of(unit), heads = hidden / kHeadColumns;
  const double whole = 4 * kBytesPerNumber + 2, divided = 12 * kBytesPerNumber;
  const double scores = 2 * kBytesPerNumber + 1;
  return sequence * hidden * (whole + divided / tp) + scores * heads * sequence * sequence / tp;
}

/// Units that are alike do the same work; what their profiled times differ by is when they were timed.
std::vector<double> mean_of_like_units(const AmpInstance& instance, const std::vector<double>& seconds) {
  std::vector<double> result;
  for (const AmpUnit& unit : instance.units) {
    double sum = 0;
    int count = 0;
    for (std::size_t i = 0; i < instance.units.size(); ++i) {
      const AmpUnit& other = instance.units[i];
      if (other.parameters != unit.parameters || other.embedding != unit.embedding ||
          other.output_numbers_per_sample != unit.output_numbers_per_sample ||
          other.output_divided_by_tp != unit.output_divided_by_tp || (!is_transformer(unit) && &other != &unit))
        continue;
      sum += seconds[i];
      ++count;
    }
    result.push_back(sum / count);
  }
  return result;
}

/// Seconds of a transformer unit that are collectives at this tp, and its seconds without.
struct Profile {
  double compute = 0, collective = 0;
};
Profile split_profile(const AmpInstance& instance, int tp, std::size_t unit, const std::vector<double>& seconds,
                      const std::vector<double>& whole) {
  if (tp == 1 || whole.empty() || !is_transformer(instance.units[unit])) return {seconds[unit], 0};
  const double compute = std::min(seconds[unit], whole[unit] / tp);
  return {compute, seconds[unit] - compute};
}

std::vector<double> profile_at(const AmpInstance& instance, int tp) {
  const auto found = instance.forward_seconds.find(tp);
  return found == instance.forward_seconds.end() ? std::vector<double>{} : mean_of_like_units(instance, found->second);
}

/// The profiled times are means over all GPUs of the cluster: a node's times over that mean.
std::vector<double> node_slowness(const AmpInstance& instance) {
  double sum = 0;
  for (const AmpNode& node : instance.nodes) sum += node.gpus / device_of(node).flop_per_second;
  std::vector<double> result;
  for (const AmpNode& node : instance.nodes)
    result.push_back(num_gpus(instance) / device_of(node).flop_per_second / sum);
  return result;
}

/// Links between ranks that carry data at the same time, and what they share.
class SharedLinks {
 public:
  SharedLinks(const AmpInstance& instance, double intra_fraction)
      : instance_(instance), fraction_(intra_fraction), out_(instance.nodes.size()), in_(instance.nodes.size()) {}

  void add(int from, int to) {
    if (from == to) return;
    ++out_[static_cast<std::size_t>(from)];
    ++in_[static_cast<std::size_t>(to)];
  }
  /// Also bounded by how fast the ends' devices reach their host.
  [[nodiscard]] double seconds_per_number(int from, int to) const {
    const auto a = static_cast<std::size_t>(from), b = static_cast<std::size_t>(to);
    const double local =
        std::max(1 / instance_.nodes[a].intra_numbers_per_second, 1 / instance_.nodes[b].intra_numbers_per_second) /
        fraction_;
    if (from == to) return local;
    const double wire = std::max(out_[a] / instance_.nodes[a].inter_numbers_per_second,
                                 in_[b] / instance_.nodes[b].inter_numbers_per_second) /
                        kTcpFraction;
    return std::max(local, wire);
  }

 private:
  const AmpInstance& instance_;
  double fraction_;
  std::vector<int> out_, in_;
};

/// Every link of every stage's gradient rings, which run at the same time.
template <class Visit>
void for_each_ring_link(const AmpRanks& ranks, const AmpShape& shape, Visit&& visit) {
  for (int stage = 0; stage < shape.pp; ++stage)
    for (int shard = 0; shard < shape.tp; ++shard)
      for (int replica = 0; replica < shape.dp; ++replica)
        visit(stage, ranks.node(stage, replica, shard), ranks.node(stage, (replica + 1) % shape.dp, shard));
}

/// Per parameter of the rank: the ring sends 2 (dp - 1) / dp of it (Patarasuk and Yuan 2009), then Adam runs.
std::vector<double> sync_costs(const AmpInstance& instance, const AmpShape& shape, double intra_fraction) {
  const AmpRanks ranks(instance, shape);
  SharedLinks links(instance, intra_fraction);
  std::vector<double> ring(static_cast<std::size_t>(shape.pp)), optimizer(ring);
  if (shape.dp > 1) for_each_ring_link(ranks, shape, [&](int, int from, int to) { links.add(from, to); });
  for_each_ring_link(ranks, shape, [&](int stage, int from, int to) {
    const auto j = static_cast<std::size_t>(stage);
    if (shape.dp > 1) ring[j] = std::max(ring[j], links.seconds_per_number(from, to));
    const Device& device = device_of(instance.nodes[static_cast<std::size_t>(from)]);
    optimizer[j] = std::max(optimizer[j], kOptimizerBytesPerParameter / device.bytes_per_second);
  });
  for (std::size_t j = 0; j < ring.size(); ++j) ring[j] = ring[j] * 2 * (shape.dp - 1) / shape.dp + optimizer[j];
  return ring;
}

/// After each stage: replicas and shards send at the same time, activations down while gradients go up (full duplex).
std::vector<double> send_costs(const AmpInstance& instance, const AmpShape& shape, double intra_fraction) {
  const AmpRanks ranks(instance, shape);
  std::vector<double> result(static_cast<std::size_t>(shape.pp), 0.0);
  for (int stage = 0; stage + 1 < shape.pp; ++stage) {
    SharedLinks links(instance, intra_fraction);
    for (const bool count : {true, false}) {
      for (int replica = 0; replica < shape.dp; ++replica) {
        for (int shard = 0; shard < shape.tp; ++shard) {
          const int from = ranks.node(stage, replica, shard), to = ranks.node(stage + 1, replica, shard);
          double& slowest = result[static_cast<std::size_t>(stage)];
          if (count) {
            links.add(from, to);
          } else {
            slowest = std::max(slowest, links.seconds_per_number(from, to));
          }
        }
      }
    }
  }
  return result;
}

/// First and last stage hold one tensor twice and sum its gradient in pairs: 2 (2 - 1) / 2 of it crosses each link.
double tied_embedding_seconds(const AmpInstance& instance, const AmpShape& shape, double intra_fraction) {
  double parameters = 0;
  int count = 0;
  for (const AmpUnit& unit : instance.units) {
    if (!unit.embedding) continue;
    parameters = std::max(parameters, unit.parameters);
    ++count;
  }
  if (shape.pp == 1 || count < 2) return 0;
  const AmpRanks ranks(instance, shape);
  SharedLinks links(instance, intra_fraction);
  double slowest = 0;
  for (const bool add : {true, false}) {
    for (int replica = 0; replica < shape.dp; ++replica) {
      for (int shard = 0; shard < shape.tp; ++shard) {
        const int from = ranks.node(0, replica, shard), to = ranks.node(shape.pp - 1, replica, shard);
        if (add) links.add(from, to);
        if (!add) slowest = std::max(slowest, links.seconds_per_number(from, to));
      }
    }
  }
  return slowest * parameters / shape.tp;
}

}  // namespace

double wave_efficiency(std::int64_t micro_batch, double sequence, double hidden, int tp, int processors) {
  // Tiles of 128 x 128, one per processor at a time (NVIDIA, "Matrix Multiplication Background User's Guide").
  constexpr double kTile = 128;
  struct Product {
    double columns, depth;
  };
  const std::array<Product, 4> products{
      {{3 * hidden / tp, hidden}, {hidden, hidden / tp}, {4 * hidden / tp, hidden}, {hidden, 4 * hidden / tp}}};
  const auto time = [&](double samples) {
    double sum = 0;
    for (const Product& product : products) {
      const double tiles = std::ceil(samples * sequence / kTile) * std::ceil(product.columns / kTile);
      sum += std::ceil(tiles / processors) * product.depth;
    }
    return sum;
  };
  const auto samples = static_cast<double>(micro_batch);
  return std::min(1.0, time(samples) / (samples * time(1)));
}

double attained_intra_fraction(const AmpInstance& instance) {
  const std::vector<double> whole = profile_at(instance, 1);
  double nominal = 0;  // seconds per number, mean over GPUs as the profile is
  int fewest = std::numeric_limits<int>::max();
  for (const AmpNode& node : instance.nodes) {
    nominal += node.gpus / node.intra_numbers_per_second / num_gpus(instance);
    fewest = std::min(fewest, node.gpus);
  }
  double best = 0;
  for (const auto& [tp, profiled] : instance.forward_seconds) {
    if (tp == 1 || whole.empty() || fewest % tp != 0) continue;
    const std::vector<double> seconds = mean_of_like_units(instance, profiled);
    double numbers = 0, collective = 0;
    for (std::size_t i = 0; i < instance.units.size(); ++i) {
      if (!is_transformer(instance.units[i])) continue;
      numbers += 2 * 2.0 * (tp - 1) / tp * instance.units[i].output_numbers_per_sample;
      collective += split_profile(instance, tp, i, seconds, whole).collective;
    }
    if (collective > 0) best = std::max(best, numbers * nominal / collective);
  }
  return best > 0 ? std::min(best, 1.0) : 1.0;
}

AmpSplitCosts model_split_costs(const AmpInstance& instance, const AmpShape& shape) {
  AmpSplitCosts costs = peer_split_costs(instance, shape);
  const double intra_fraction = attained_intra_fraction(instance);
  const std::vector<double> seconds = profile_at(instance, shape.tp), whole = profile_at(instance, 1);
  const auto micro_batch = static_cast<double>(shape.micro_batch);
  double fewest_bytes = std::numeric_limits<double>::infinity();
  int processors = 0;
  for (const AmpNode& node : instance.nodes) {
    fewest_bytes = std::min(fewest_bytes, device_of(node).memory_bytes);
    processors = std::max(processors, device_of(node).processors);
  }
  for (std::size_t i = 0; i < instance.units.size(); ++i) {
    const AmpUnit& unit = instance.units[i];
    const Profile profile = split_profile(instance, shape.tp, i, seconds, whole);
    double waves = 1;
    if (is_transformer(unit))
      waves = wave_efficiency(shape.micro_batch, sequence_of(unit), hidden_of(unit), shape.tp, processors);
    // Backward multiplies twice as much, but has as many all-reduces as forward (Shoeybi et al., Megatron-LM).
    costs.unit_seconds[i] = micro_batch * (3 * profile.compute * waves + 2 * profile.collective);
    costs.unit_activation.push_back(micro_batch * activation_bytes(unit, shape.tp));
  }
  const std::vector<double> slowness = node_slowness(instance);
  const AmpRanks ranks(instance, shape);
  for (int stage = 0; stage < shape.pp; ++stage) {
    double& slowest = costs.slowness[static_cast<std::size_t>(stage)];
    slowest = 0;
    for (int replica = 0; replica < shape.dp; ++replica)
      for (int shard = 0; shard < shape.tp; ++shard)
        slowest = std::max(slowest, slowness[static_cast<std::size_t>(ranks.node(stage, replica, shard))]);
  }
  costs.cut_seconds_per_number = send_costs(instance, shape, intra_fraction);
  costs.sync_seconds_per_parameter = sync_costs(instance, shape, intra_fraction);
  costs.blocking_sends = true;
  costs.hidden_fraction = 2.0 / 3;  // backward
  costs.state_bytes_per_parameter = kStateBytesPerParameter;
  costs.device_bytes = fewest_bytes;
  costs.extra_seconds = tied_embedding_seconds(instance, shape, intra_fraction);
  return costs;
}

}  // namespace coxswain::planner
