#pragma once
// How far training has come, as messages have it. Called in this folder alone. Threads: pure.
#include "checkpoint/manifest.h"

namespace coxswain::control {
class ShardSaved;
}

namespace coxswain::worker {

[[nodiscard]] checkpoint::Progress progress_of(const control::ShardSaved& saved);
void set_progress(const checkpoint::Progress& progress, control::ShardSaved& saved);

}  // namespace coxswain::worker
