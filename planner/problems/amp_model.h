#pragma once
// Our own analytic model of a training step on AMP's clusters, as costs of the split search: what AMP leaves out. Each
// constant is a data-sheet value or a published formula, named where it stands; nothing is fitted to run times. From
// the instance come shapes, nominal bandwidths and single-unit forward times, nothing else. Terms: compute per unit
// with wave quantisation, blocking sends of every micro-batch, gradient rings over links that rings share, the sum of
// the tied embeddings, the optimizer's memory traffic, device memory. Threads: pure. Source: the papers and data sheets
// named in amp_model.cpp.
#include "planner/problems/amp_split.h"

namespace coxswain::planner {

[[nodiscard]] AmpSplitCosts model_split_costs(const AmpInstance& instance, const AmpShape& shape);

/// The part of the nominal bandwidth inside a node that a collective attains: the profile with tp > 1 holds two
/// all-reduces of a transformer unit's output beside 1 / tp of its work. 1 where there is no such profile. In (0, 1].
[[nodiscard]] double attained_intra_fraction(const AmpInstance& instance);

/// Time of a transformer unit's matrix multiplications on `micro_batch` samples over `micro_batch` times the time on
/// one: at most 1, since the last wave of tiles is fuller. `hidden`, `sequence`: of the unit; `processors`: of the
/// device.
[[nodiscard]] double wave_efficiency(std::int64_t micro_batch, double sequence, double hidden, int tp, int processors);

}  // namespace coxswain::planner
