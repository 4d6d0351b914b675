#pragma once
// Runs one body per rank, each in a thread or in a forked process, and brings back what every one reports.
#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "collective/backend.h"
#include "tests/collective/board.h"
#include "tests/support/temp_dir.h"

namespace coxswain::collective {

/// Findings of one rank; empty = all as it should be.
class Report {
 public:
  void expect(bool holds, const std::string& fact) {
    if (!holds && failures_.size() < 5) failures_.push_back(fact);
  }
  [[nodiscard]] const std::vector<std::string>& failures() const { return failures_; }

 private:
  std::vector<std::string> failures_;
};

Deadline soon();  // far beyond what any step of a test takes, near enough to end a hang
Deadline in_milliseconds(int milliseconds);

/// What a rank of a test sees.
struct Rank {
  int rank = 0;
  int size = 1;
  std::string node;
  Board& board;
  std::string scratch;
  Report& report;

  [[nodiscard]] EndpointOptions options(int generation = 1) const;
  /// Opens, hands addresses round (in `round`), connects.
  [[nodiscard]] Result<std::unique_ptr<Communicator>> connect(const EndpointOptions& options, int round = 0) const;
  /// The same, or a failure in the report and null.
  [[nodiscard]] std::unique_ptr<Communicator> communicator() const;
};

using RankBody = std::function<void(Rank&)>;

/// `nodes[r]`: the node of rank r.
std::vector<std::string> one_node(int size);

/// One line per failure, "rank R: ...". Processes that die otherwise than by exit 0 are failures, except `victim`,
/// which `when_ready` may kill (it runs in the parent, with the processes' ids).
std::string run_threads(const std::vector<std::string>& nodes, const RankBody& body);
std::string run_processes(const std::vector<std::string>& nodes, const RankBody& body, int victim = -1,
                          const std::function<void(Board&, const std::vector<pid_t>&)>& when_ready = {});

}  // namespace coxswain::collective
