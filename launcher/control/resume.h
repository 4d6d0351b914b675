#pragma once
// From which checkpoint a run goes on. Every byte of it is verified here, once; what is damaged is left aside for an
// older one. A run of several nodes, whose disks may hold the shards of one checkpoint, or nothing yet, asks them
// too. Called by run_train and `launch export`. Threads: pure but for the files. Source: INTERFACE section 1,
// docs/checkpoint.md.
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/folder.h"
#include "common/result.h"

namespace coxswain::launcher {

struct ResumePoint {
  std::filesystem::path folder;  // empty: from the beginning
  std::int64_t step = 0;         // that was the last
  std::vector<Error> rejected;   // newer checkpoints that are damaged
  bool asks_nodes = false;       // nodes may hold together what this one does not hold whole
};

/// The newest whole checkpoint at a path that names one, a folder of them or a run's folder.
/// Errors: NotFound; DataLoss (none is whole, with every problem).
[[nodiscard]] Result<checkpoint::Found> find_checkpoint_at(const std::filesystem::path& path);

struct ResumeRequest {
  std::string resume = "auto";      // "never", or a checkpoint, a folder of checkpoints, or a run's folder
  std::filesystem::path directory;  // where this run saves
  bool is_new = false;              // that folder is the run's own, and empty
  std::string model_hash;
  std::int64_t steps = 0;  // of the job
  int num_nodes = 1;
};

/// Errors: NotFound (no checkpoint there); DataLoss (none that is whole); InvalidArgument (of another model, all steps
/// taken); AlreadyExists (the directory holds later steps of a run that this one does not go on from).
[[nodiscard]] Result<ResumePoint> find_resume_point(const ResumeRequest& request);

}  // namespace coxswain::launcher
