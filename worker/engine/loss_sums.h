#pragma once
// What a step or an evaluation adds up: numerator and denominator of every loss term, over micro-batches here and over
// ranks in two collectives, and beside them the squared norm of the gradients, how many ranks were asked to save or to
// stop, so that all do so after the same step, and the rows that experts got. Called by engine. Threads: one. Private
// to worker/engine. Source: DESIGN 3.7, docs/plan.md#actions.
#include <cstdint>
#include <vector>

#include "model/model_graph.h"

namespace coxswain::worker {

class LossSums {
 public:
  explicit LossSums(const model::ModelGraph& graph) : graph_(graph) { restart(); }
  /// A pass begins: all sums are 0.
  void restart();

  /// Of a micro-batch of `samples`: a term without denominator is a mean over them. Returns the term's sum so far.
  double add_numerator(int term, double value, std::int64_t samples);
  void add_count(int term, double value, std::int64_t samples);

  /// The buffer of REDUCE_LOSS_COUNT, by term; `counts`: false on ranks that counted what another one counts.
  [[nodiscard]] std::vector<double>& begin_counts(bool counts);
  /// After it: what a numerator of a micro-batch of `samples` of the global `batch` weighs in the loss.
  [[nodiscard]] double weight(int term, std::int64_t samples, std::int64_t batch) const;

  /// The buffer of REDUCE_NORM: `squared_norm`, requests to save and to stop, then numerator and denominator of every
  /// term, with those of `terms` as they are here; `samples` of the pass count where a term has no denominator; last
  /// the rows of experts.
  void begin_norm(double squared_norm, const std::vector<double>& expert_tokens = {});
  void add_requests(bool save, bool stop);
  void add_terms(const std::vector<int>& terms, double samples);
  [[nodiscard]] std::vector<double>& reduced() { return reduced_; }
  /// After it, alike on every rank.
  [[nodiscard]] bool finite() const;
  [[nodiscard]] double norm() const;
  [[nodiscard]] double loss() const;
  [[nodiscard]] bool asks_save() const { return reduced_[kSave] > 0; }
  [[nodiscard]] std::vector<std::int64_t> expert_tokens() const;
  [[nodiscard]] bool asks_stop() const { return reduced_[kStop] > 0; }

 private:
  [[nodiscard]] std::size_t first_tokens() const { return kTerms + 2 * graph_.loss.size(); }
  static constexpr std::size_t kNorm = 0, kSave = 1, kStop = 2, kTerms = 3;
  [[nodiscard]] static std::size_t numerator(int term) { return kTerms + 2 * static_cast<std::size_t>(term); }
  [[nodiscard]] static std::size_t denominator(int term) { return numerator(term) + 1; }

  const model::ModelGraph& graph_;
  std::vector<double> numerators_, local_counts_, global_counts_;  // by loss term
  std::vector<double> reduced_;
};

}  // namespace coxswain::worker
