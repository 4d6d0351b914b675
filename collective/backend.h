#pragma once
// Opening a communicator: each rank opens an endpoint, the control plane passes the addresses round, each rank
// connects. Backends are an ordered list in backend.cpp: nccl and mpi are plug-ins loaded at run time, host is built
// in. Called by worker/service and bench. Threads: open and connect from one thread. Source: DESIGN 3.6.
#include <memory>
#include <string>
#include <vector>

#include "collective/communicator.h"

namespace coxswain::collective {

struct EndpointOptions {
  std::string backend = "host";  // "auto", "host", "mpi", "nccl"
  int rank = 0;
  int size = 1;
  /// Ranks with equal text share memory (one agent = one node, whatever the host's name).
  std::string node;
  std::string local_addr = "127.0.0.1";  // where TCP binds (port 0)
  std::string job_key;                   // authenticates every connection (HMAC); never logged
  std::string run_id;
  int generation = 1;
  std::string scratch_dir;             // for Unix sockets; mode 0700
  CompletionSignal* signal = nullptr;  // raised at every completion; outlives the communicator; may be null
};

/// A bound, not yet connected endpoint.
class Endpoint {
 public:
  virtual ~Endpoint() = default;
  /// Opaque text for the other ranks (empty for mpi; the unique id for nccl).
  [[nodiscard]] virtual std::string address() const = 0;
  /// Blocks until every rank is connected. `addresses` in rank order. Call once.
  /// Errors: DeadlineExceeded, Unauthenticated, Unavailable.
  [[nodiscard]] virtual Result<std::unique_ptr<Communicator>> connect(const std::vector<std::string>& addresses,
                                                                      Deadline deadline) = 0;
};

/// Errors: FailedPrecondition with what is missing and how to get it (plug-in absent, no driver, port).
[[nodiscard]] Result<std::unique_ptr<Endpoint>> open_endpoint(const EndpointOptions& options);

/// Names of the backends this machine can open, in order of preference for `devices_are_cuda`.
[[nodiscard]] std::vector<std::string> available_backends(bool devices_are_cuda);

}  // namespace coxswain::collective
