#pragma once
// Metis's planning problem (ATC 24): cut a chain of layers into stages on GPUs of several types; each stage has a
// tensor degree and a data degree, and its replicas may be of two types that share every micro-batch unequally. The
// costs are Metis's formulas over its own profiles (one file per type, tensor degree and batch), where they are
// defined; where Metis looks a point up that was not measured it fails, and we interpolate and say how far off that may
// be. Formulas (milliseconds; m micro-batches of M = gbs / m samples, stages i = 0..P-1, layers l):
//  (1) L_i = the slowest replica's sum over its layers of ms(type, tp, samples of the replica; l)
//  (2) T = (m - 1) max L_i + sum L_i + m (sync + generator) + max U_i + max D_i + sum X_i
//  (3) sync = forward_backward_time - sum of layer times, of the last stage's slowest type; generator = batch time
//  (4) U_i = 2 optimizer_time / tp x the stage's layers / all layers, of its slowest type
//  (5) D_i = 2 (d - 1) / d x parameter bytes of the stage / tp / bandwidth, d = its replicas
//  (6) X_i = numbers after the stage (samples of a replica x sequence x hidden, or x vocabulary / tp before the last
//      layer) / bandwidth of the cut
//  (7) a device of stage i holds sum over its layers of MB(type, tp, samples), and (min(m, P - i) - 1) times what grows
//      with the samples; at most its memory. (Metis instead multiplies by 5 and compares with the whole stage's
//      memory.)
// Devices of a type are taken in the order of the hosts; a tensor group stays inside a host. (5) and (6) use the host's
// own bandwidth when one host holds all that takes part, else the slowest network bandwidth of the types.
// Called by contest.h's list of families and by `launch plan --import metis`. Threads: pure.
// Source: Um et al., "Metis: fast automatic distributed training on heterogeneous GPUs", USENIX ATC 2024; the formats
// of its files as its documentation gives them. docs/exchange.md lists every difference.
#include <compare>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "planner/problems/contest.h"

namespace coxswain::planner {

/// GPUs of one type, host by host.
struct MetisType {
  std::string name;
  double memory_mb = 0;             // of one device, 2^20 bytes
  std::vector<int> hosts;           // devices of each, in the order of the host file
  double host_bytes_per_ms = 0;     // inside a host, the slowest of them
  double network_bytes_per_ms = 0;  // between hosts, the slowest of them
};

/// What was measured at one (type, tensor degree, batch).
struct MetisPoint {
  std::vector<double> layer_ms, layer_mb;
  double sync_ms = 0;
};

struct MetisShard {
  int type = 0, tp = 1;
  friend auto operator<=>(const MetisShard&, const MetisShard&) = default;
};

struct MetisInstance {
  int num_layers = 1;
  std::int64_t global_batch = 1, sequence = 1, hidden = 1, vocabulary = 1;
  std::vector<MetisType> types;                                     // in the order of the host file
  std::map<MetisShard, std::map<std::int64_t, MetisPoint>> points;  // by batch
  std::vector<double> parameter_bytes;                              // of each layer, whole
  std::vector<double> optimizer_ms;                                 // by type, of the whole model on one device
  double generator_ms = 0;
};

/// The files of a problem, as text: what the host file, the cluster file and each profile say.
struct MetisTexts {
  std::string hosts, cluster;
  std::vector<std::pair<std::string, std::string>> profiles;  // name ("DeviceType.A100_tp1_bs2.json"), text
};

/// `json` names the batch, the model and the files by the names of Metis's own arguments: gbs, sequence_length,
/// hidden_size, vocab_size, hostfile_path, clusterfile_path, profile_data_path (a folder, or a list of files), and
/// optionally max_profiled_tp_degree and max_profiled_batch_size. Profiles of types that the cluster lacks are left
/// out. Errors: InvalidArgument, every problem listed.
[[nodiscard]] Result<MetisInstance> parse_metis(const Json& json, const MetisTexts& texts);
/// The same with the texts read from the paths, which are relative to the folder of `file`.
[[nodiscard]] Result<MetisInstance> parse_metis(const Json& json, const std::filesystem::path& file);

/// Equal replicas of one type.
struct MetisReplicas {
  int type = 0, count = 1;
  std::int64_t samples = 1;  // of each, in a micro-batch
  int first_device = 0;      // of the type, counted host by host
  friend bool operator==(const MetisReplicas&, const MetisReplicas&) = default;
};

struct MetisStage {
  int first = 0, end = 0;  // layers [first, end)
  int tp = 1;
  std::vector<MetisReplicas> replicas;  // one entry, or two of different types
  friend bool operator==(const MetisStage&, const MetisStage&) = default;
};

struct MetisPlan {
  std::int64_t micro_batches = 1;
  std::vector<MetisStage> stages;
  friend bool operator==(const MetisPlan&, const MetisPlan&) = default;
};

/// The best plan. Answer: {"micro_batches", "micro_batch", "stages": [{"layers": [first, last], "tp", "replicas":
/// [{"device_type", "count", "samples", "devices": [first, last]}]}]}; score: seconds of a step.
/// Errors: ResourceExhausted when no plan fits.
[[nodiscard]] Result<ContestAnswer> solve_metis(const MetisInstance& instance, const ContestOptions& options);

[[nodiscard]] Result<ContestSolver> load_metis(const Json& json, const std::filesystem::path& file);

}  // namespace coxswain::planner
