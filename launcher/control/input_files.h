#pragma once
// The files that a run reads, on nodes that share no disk: an agent uses its own copy where that has the hash that the
// coordinator says, else it fetches one. Called by the coordinator (which has them) and agents. Source: DESIGN 3.8.
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "launcher/job/job.h"
#include "proto/file_exchange.h"

namespace coxswain::launcher {

/// The model, and the data where it `trains`, with absolute paths as ranks are told them.
[[nodiscard]] std::vector<std::filesystem::path> input_paths(const Job& job, bool trains);

/// Reads and hashes them when somebody asks for the first time: most runs are of one node. Threads: any.
class InputFiles {
 public:
  explicit InputFiles(std::vector<std::filesystem::path> paths) : paths_(std::move(paths)) {}
  /// Errors: of reading; asked again, it tries again.
  [[nodiscard]] Result<std::vector<proto::SharedFile>> list();

 private:
  const std::vector<std::filesystem::path> paths_;
  std::mutex mutex_;
  std::optional<std::vector<proto::SharedFile>> files_;
};

/// By the coordinator's path: where ranks of this node find a file instead. What is not here with the same content is
/// fetched into `folder`, which exists, unless it was before; for as long as two megabytes come a second.
/// Errors: Unavailable (the coordinator is gone, `stop`), Unauthenticated, FailedPrecondition (no room), and what the
/// coordinator says of its files.
[[nodiscard]] Result<std::map<std::string, std::string>> fetch_inputs(const std::string& coordinator,
                                                                      const proto::Secret& secret,
                                                                      const std::filesystem::path& folder,
                                                                      const std::stop_token& stop);

}  // namespace coxswain::launcher
