#pragma once
// What run_train hands to its children on stdin: the request as JSON, the key inside. And small things both sides need.
// Threads: pure values.
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "common/json.h"
#include "common/result.h"
#include "launcher/control/trace_steps.h"
#include "proto/channel.h"

namespace coxswain::launcher {

struct AgentStart {
  std::string coordinator;  // "host:port"
  proto::Secret secret;
  std::string devices;
  int processes_per_node = 0;
  int node_rank = -1;
  std::string local_addr;
  std::filesystem::path log_dir, scratch_dir, worker_program;
  std::string metrics;  // "ADDRESS:PORT" of the agent's own /metrics; empty: none
  bool tee = false;
  bool local = false;  // started by run_train on node 0, which prints how the run ended
  double join_timeout_seconds = 600;
};
[[nodiscard]] Json to_json(const AgentStart& start);
[[nodiscard]] Result<AgentStart> agent_start_from_json(const Json& json);

enum class RunMode { Train, Probe, Check };

struct CoordinatorStart {
  RunMode mode = RunMode::Train;
  std::string listen;  // "host:port", port 0: any
  proto::Secret secret;
  std::string run_id;
  int num_nodes = 1, max_nodes = 0;  // to begin with; that it takes
  double join_timeout_seconds = 600;
  double shutdown_timeout_seconds = 30;
  std::string backend = "auto";
  std::filesystem::path run_dir;   // empty: nothing is written (probe, check)
  std::string job_file, job_text;  // empty: no job (probe without one, check)
  std::vector<std::string> constraints;
  std::filesystem::path plan_file, cluster_file, profile_file, pt2;
  TraceSteps trace_steps;
  std::filesystem::path checkpoint_directory;  // empty: nothing is saved
  std::filesystem::path resume_from;           // a verified checkpoint; empty: from the beginning
  std::int64_t resume_step = 0;
  bool resume_asks_nodes = false;  // they may hold together what node 0 does not hold whole
  std::string model_hash;
  int max_restarts = 0, min_nodes = 1;
  std::vector<std::string> rejected;  // checkpoints that are damaged, in words
  TimePoint began;                    // `launch` itself: the steady clock is the same in all of its children
};
[[nodiscard]] Json to_json(const CoordinatorStart& start);
[[nodiscard]] Result<CoordinatorStart> coordinator_start_from_json(const Json& json);

/// Everything on stdin, as JSON.
[[nodiscard]] Result<Json> read_request_from_stdin();

/// A folder of mode 0700 under the temporary directory; removed with its content by the destructor.
class ScratchFolder {
 public:
  [[nodiscard]] static Result<ScratchFolder> make();
  ScratchFolder(ScratchFolder&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  ScratchFolder& operator=(ScratchFolder&& other) noexcept {
    std::swap(path_, other.path_);
    return *this;
  }
  ~ScratchFolder();
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  ScratchFolder() = default;
  std::filesystem::path path_;
};

/// `given`, or COX_WORKER, or `worker` beside this program, or in libexec of its prefix. Errors: FailedPrecondition.
[[nodiscard]] Result<std::filesystem::path> find_worker_program(const std::filesystem::path& given);
[[nodiscard]] std::filesystem::path own_program();

/// This machine's address from which `host:port` is reached. Errors: FailedPrecondition (unknown host, no route).
[[nodiscard]] Result<std::string> address_towards(const std::string& endpoint);

/// First line of a token file. Errors: NotFound, PermissionDenied (others may read it), InvalidArgument (shorter than
/// 16).
[[nodiscard]] Result<std::string> read_token(const std::filesystem::path& file);

}  // namespace coxswain::launcher
