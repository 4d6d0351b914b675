#include "plan/plan.h"

#include <array>
#include <utility>

#include "common/ensure.h"

namespace coxswain::plan {
namespace {

template <class Enum>
struct Name {
  Enum value;
  std::string_view text;
};

constexpr std::array<Name<ScheduleKind>, 8> kScheduleNames{{{ScheduleKind::GPipe, "gpipe"},
                                                            {ScheduleKind::OneForwardOneBackward, "1f1b"},
                                                            {ScheduleKind::Interleaved, "interleaved"},
                                                            {ScheduleKind::ZeroBubbleH1, "zbh1"},
                                                            {ScheduleKind::ZeroBubbleH2, "zbh2"},
                                                            {ScheduleKind::ZeroBubbleV, "zbv"},
                                                            {ScheduleKind::Custom, "custom"},
                                                            {ScheduleKind::CustomV, "custom_v"}}};
constexpr std::array<Name<Recompute>, 3> kRecomputeNames{
    {{Recompute::None, "none"}, {Recompute::Full, "full"}, {Recompute::Selective, "selective"}}};
constexpr std::array<Name<Offload>, 3> kOffloadNames{
    {{Offload::None, "none"}, {Offload::Optimizer, "optimizer"}, {Offload::Activations, "activations"}}};
constexpr std::array<Name<Precision>, 3> kPrecisionNames{
    {{Precision::Float32, "float32"}, {Precision::BFloat16, "bfloat16"}, {Precision::Float16, "float16"}}};

template <class Enum, std::size_t N>
std::string_view text_of(const std::array<Name<Enum>, N>& names, Enum value) {
  for (const auto& name : names) {
    if (name.value == value) return name.text;
  }
  COX_ENSURE(false, static_cast<int>(value));
  return {};
}

template <class Enum, std::size_t N>
std::optional<Enum> value_of(const std::array<Name<Enum>, N>& names, std::string_view text) {
  for (const auto& name : names) {
    if (name.text == text) return name.value;
  }
  return std::nullopt;
}

}  // namespace

std::string_view to_text(ScheduleKind kind) { return text_of(kScheduleNames, kind); }
std::string_view to_text(Recompute recompute) { return text_of(kRecomputeNames, recompute); }
std::string_view to_text(Offload offload) { return text_of(kOffloadNames, offload); }
std::string_view to_text(Precision precision) { return text_of(kPrecisionNames, precision); }
std::optional<ScheduleKind> parse_schedule_kind(std::string_view text) { return value_of(kScheduleNames, text); }
std::optional<Recompute> parse_recompute(std::string_view text) { return value_of(kRecomputeNames, text); }
std::optional<Offload> parse_offload(std::string_view text) { return value_of(kOffloadNames, text); }
std::optional<Precision> parse_precision(std::string_view text) { return value_of(kPrecisionNames, text); }

std::vector<BlockRun> runs_of(const Stage& stage) {
  std::vector<BlockRun> runs{{stage.first_block, stage.end_block}};
  runs.insert(runs.end(), stage.chunks.begin(), stage.chunks.end());
  return runs;
}

int num_blocks(const Stage& stage) {
  int count = stage.end_block - stage.first_block;
  for (const BlockRun& run : stage.chunks) count += run.end_block - run.first_block;
  return count;
}

int position_of(const Stage& stage, int block) {
  int before = 0;
  for (int chunk = 0; chunk < num_chunks(stage); ++chunk) {
    const BlockRun run = run_of(stage, chunk);
    if (run.first_block <= block && block < run.end_block) return before + block - run.first_block;
    before += run.end_block - run.first_block;
  }
  return -1;
}

int num_ranks(const Plan& plan) {
  std::size_t count = 0;
  for (const Stage& stage : plan.stages) {
    for (const Replica& replica : stage.replicas) count += replica.devices.size();
  }
  return static_cast<int>(count);
}

int rank_of(const Plan& plan, RankPlace place) {
  std::size_t rank = 0;
  for (int s = 0; s <= place.stage; ++s) {
    const auto& replicas = plan.stages.at(static_cast<std::size_t>(s)).replicas;
    const std::size_t end = s == place.stage ? static_cast<std::size_t>(place.replica) : replicas.size();
    COX_ENSURE(end <= replicas.size(), place.stage, place.replica);
    for (std::size_t r = 0; r < end; ++r) rank += replicas[r].devices.size();
  }
  return static_cast<int>(rank) + place.position;
}

RankPlace place_of(const Plan& plan, int rank) {
  int left = rank;
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const auto& replicas = plan.stages[s].replicas;
    for (std::size_t r = 0; r < replicas.size(); ++r) {
      const int size = static_cast<int>(replicas[r].devices.size());
      if (left < size) return {static_cast<int>(s), static_cast<int>(r), left};
      left -= size;
    }
  }
  COX_ENSURE(false, rank);
  return {};
}

DeviceId device_of(const Plan& plan, int rank) {
  const RankPlace place = place_of(plan, rank);
  return plan.stages[static_cast<std::size_t>(place.stage)]
      .replicas[static_cast<std::size_t>(place.replica)]
      .devices[static_cast<std::size_t>(place.position)];
}

std::int64_t first_sample(const Stage& stage, int replica) {
  std::int64_t first = 0;
  for (int r = 0; r < replica; ++r) first += stage.replicas[static_cast<std::size_t>(r)].samples;
  return first;
}

}  // namespace coxswain::plan
