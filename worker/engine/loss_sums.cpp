#include "worker/engine/loss_sums.h"

#include <algorithm>
#include <cmath>

namespace coxswain::worker {

void LossSums::restart() {
  numerators_.assign(graph_.loss.size(), 0);
  local_counts_ = global_counts_ = numerators_;
  begin_norm(0);
}

double LossSums::add_numerator(int term, double value, std::int64_t samples) {
  return numerators_[term] += value * (graph_.loss[term].denominator ? 1.0 : static_cast<double>(samples));
}

void LossSums::add_count(int term, double value, std::int64_t samples) {
  local_counts_[term] += graph_.loss[term].denominator ? value : static_cast<double>(samples);
}

std::vector<double>& LossSums::begin_counts(bool counts) {
  global_counts_ = local_counts_;
  if (!counts) global_counts_.assign(global_counts_.size(), 0);
  return global_counts_;
}

double LossSums::weight(int term, std::int64_t samples, std::int64_t batch) const {
  const double share = graph_.loss[term].denominator ? 1.0 / global_counts_[term]
                                                     : static_cast<double>(samples) / static_cast<double>(batch);
  return graph_.loss[term].coefficient * share;
}

void LossSums::begin_norm(double squared_norm, const std::vector<double>& expert_tokens) {
  reduced_.assign(first_tokens(), 0);
  reduced_.insert(reduced_.end(), expert_tokens.begin(), expert_tokens.end());
  reduced_[kNorm] = squared_norm;
}

void LossSums::add_requests(bool save, bool stop) {
  reduced_[kSave] = save ? 1 : 0;
  reduced_[kStop] = stop ? 1 : 0;
}

void LossSums::add_terms(const std::vector<int>& terms, double samples) {
  for (const int t : terms) {
    reduced_[numerator(t)] = numerators_[t];
    // Without denominators nothing is counted in training.
    reduced_[denominator(t)] = graph_.loss[t].denominator ? local_counts_[t] : samples;
  }
}

bool LossSums::finite() const {
  return std::all_of(reduced_.begin(), reduced_.end(), [](double number) { return std::isfinite(number); });
}

std::vector<std::int64_t> LossSums::expert_tokens() const {
  std::vector<std::int64_t> tokens;
  for (std::size_t i = first_tokens(); i < reduced_.size(); ++i)
    tokens.push_back(static_cast<std::int64_t>(reduced_[i]));
  return tokens;
}

double LossSums::norm() const { return std::sqrt(reduced_[kNorm]); }

double LossSums::loss() const {
  double loss = 0;
  for (int t = 0; t < static_cast<int>(graph_.loss.size()); ++t)
    loss += graph_.loss[static_cast<std::size_t>(t)].coefficient * reduced_[numerator(t)] / reduced_[denominator(t)];
  return loss;
}

}  // namespace coxswain::worker
