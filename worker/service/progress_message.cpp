#include "worker/service/progress_message.h"

#include "proto/control.pb.h"

namespace coxswain::worker {

checkpoint::Progress progress_of(const control::ShardSaved& saved) {
  return {saved.step(),          saved.next_sample(),     saved.loss_scale(), saved.steps_since_scaled(),
          saved.skipped_steps(), saved.skipped_in_a_row()};
}

void set_progress(const checkpoint::Progress& progress, control::ShardSaved& saved) {
  saved.set_step(progress.step);
  saved.set_next_sample(progress.next_sample);
  saved.set_loss_scale(progress.loss_scale);
  saved.set_steps_since_scaled(progress.steps_since_scaled);
  saved.set_skipped_steps(progress.skipped_steps);
  saved.set_skipped_in_a_row(progress.skipped_in_a_row);
}

}  // namespace coxswain::worker
