#pragma once
// The stages that a pipeline may consist of, and which dp each needs under a limit on the load. By (7) and (9) the load
// is slope / dp + offset, so one division gives the smallest dp; where the stage then lacks memory, recomputed nodes
// add to the slope. A stage is made once, with its edge bytes, and dropped for good when no plan as good as the known
// one can hold it: by a relaxed programme that ignores stashes, from both sides.
// Called by piper_search. Threads: one per object.
#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "planner/problems/piper.h"
#include "planner/problems/piper_memory.h"
#include "planner/problems/piper_sets.h"

namespace coxswain::planner {

class PiperStages {
 public:
  /// The nodes between two sets, with a tp.
  struct Candidate {
    double slope = 0, offset = 0;  // with the recompute that two stashes need at least (one in the last stage)
    std::int32_t lower = 0;        // the set in front of it
    std::int32_t degree = 0;       // position of its tp
  };

  /// Candidates of plans whose score is below `known_load` (infinite: of all plans). Both arguments are borrowed.
  /// Cost: pairs of sets x tp degrees.
  PiperStages(const PiperInstance& instance, const PiperSets& sets, double known_load);

  [[nodiscard]] const PiperInstance& instance() const { return instance_; }
  [[nodiscard]] const PiperSets& sets() const { return sets_; }
  /// Those that end with the set `upper`, in a fixed order.
  [[nodiscard]] std::span<const Candidate> candidates(std::size_t upper) const {
    return std::span(candidates_).subspan(first_[upper], first_[upper + 1] - first_[upper]);
  }
  [[nodiscard]] std::int64_t tp(const Candidate& candidate) const {
    return memory_.degrees()[static_cast<std::size_t>(candidate.degree)];
  }
  /// No plan's score is lower: all work on all devices.
  [[nodiscard]] double least_load() const;

  /// The smallest divisor of N that meets `limit`, memory aside; 0 when none up to the devices does.
  [[nodiscard]] std::int64_t smallest_dp(const Candidate& candidate, double limit) const;
  /// The next divisor; 0 when there is none up to the devices.
  [[nodiscard]] std::int64_t next_dp(std::int64_t dp) const { return next_divisor_[static_cast<std::size_t>(dp) + 1]; }
  /// Some choice of recomputed nodes fits and meets `limit`. Requires: dp at least smallest_dp.
  [[nodiscard]] bool meets(const Candidate& candidate, std::size_t upper, std::int64_t dp, std::int64_t stashes,
                           double limit);
  /// With its best choice of recomputed nodes. Requires: it meets some limit.
  [[nodiscard]] PiperStage make_stage(const Candidate& candidate, std::size_t upper, std::int64_t dp,
                                      std::int64_t stashes);

  /// By set: devices that its stages need at least to meet `limit`, over K when they cannot. Ignores stashes.
  [[nodiscard]] std::vector<std::int64_t> devices_before(double limit) const;
  /// Drops what no plan within `limit` holds. Limits must not rise afterwards.
  void drop(double limit);

 private:
  struct Crossing {  // a node with edges over a cut, and what these weigh by degree
    int node = 0;
    std::vector<double> weight;
  };

  void set_divisors();
  void set_edge_weights();
  void add_candidates();
  void add_candidates(std::size_t upper);
  [[nodiscard]] std::vector<Crossing> find_crossings(std::size_t upper) const;
  void add_candidate(const PiperSpan& span, const std::vector<Crossing>& crossings);
  /// Devices that do `work` at least in a plan as good as the known one.
  [[nodiscard]] std::int64_t devices_for(double work) const;
  [[nodiscard]] std::int64_t least_stashes(std::size_t upper) const;
  [[nodiscard]] bool extra_within(const PiperSpan& span, std::int64_t stashes, double budget);

  const PiperInstance& instance_;
  const PiperSets& sets_;
  PiperMemory memory_;
  double known_load_;

  std::vector<std::int64_t> next_divisor_;               // of N, at least its position; 0: none up to the devices
  std::vector<double> work_;                             // by set: device seconds that it costs at least
  std::vector<std::int64_t> devices_for_set_;            // for that, in a plan as good as the known one
  std::vector<std::vector<double>> edge_in_, edge_out_;  // by degree, by edge: (6) at its head and at its tail
  std::vector<double> into_rest_, out_of_set_;  // by set and degree: (6) of all edges over the cut, on either side
  std::vector<Candidate> candidates_;           // by upper set
  std::vector<std::size_t> first_;              // of each upper set
  std::unordered_map<std::uint64_t, SecondsRange> ranges_;  // extra seconds by span and stashes
};

}  // namespace coxswain::planner
