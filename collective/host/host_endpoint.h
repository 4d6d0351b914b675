#pragma once
// A bound rank of the host backend, and how it becomes a connected Group: each rank connects to every lower one and
// admits every higher one, over Unix sockets inside a node (regions change hands there) and TCP between nodes. Threads:
// one. Source: DESIGN 3.6.
#include <memory>
#include <string>
#include <vector>

#include "collective/backend.h"
#include "collective/host/group.h"
#include "collective/host/handshake.h"
#include "collective/host/registered_memory.h"

namespace coxswain::collective {

/// What a split hands to the communicators it makes; defaults make a root.
struct Lineage {
  std::string communicator = "world";
  std::vector<int> world_ranks;  // empty: 0 .. size - 1
  std::shared_ptr<Watcher> watcher;
  std::shared_ptr<RegisteredMemory> registered;
};

/// Where a rank listens; what `address()` carries.
struct HostAddress {
  std::string node;
  std::string unix_path;  // empty where memory cannot be shared
  std::string tcp;

  friend bool operator==(const HostAddress&, const HostAddress&) = default;
};
[[nodiscard]] std::string to_text(const HostAddress& address);
[[nodiscard]] Result<HostAddress> parse_host_address(const std::string& text);

class HostEndpoint final : public Endpoint {
 public:
  /// Errors: FailedPrecondition (no key, no port, no folder).
  [[nodiscard]] static Result<std::unique_ptr<HostEndpoint>> open(const EndpointOptions& options, Lineage lineage);
  ~HostEndpoint() override;

  [[nodiscard]] std::string address() const override { return to_text(address_); }
  [[nodiscard]] Result<std::unique_ptr<Communicator>> connect(const std::vector<std::string>& addresses,
                                                              Deadline deadline) override;

 private:
  HostEndpoint(const EndpointOptions& options, Lineage lineage);
  Result<void> listen();
  Result<void> prepare(const std::vector<std::string>& addresses);
  Result<void> make_region();
  [[nodiscard]] bool shares_memory(int rank) const;
  Result<void> connect_to(int rank, Deadline deadline);
  Result<void> admit_higher_ranks(Deadline deadline);
  Result<void> take(Admission& admission);
  Result<void> map_region(Peer& peer, std::vector<UniqueFd> descriptors);
  [[nodiscard]] bool complete(int rank) const;
  [[nodiscard]] Error still_missing(ErrorCode code) const;

  EndpointOptions options_;
  Lineage lineage_;
  Identity identity_;
  HostAddress address_;
  std::string own_folder_;  // made here; removed with the endpoint
  UniqueFd unix_listener_;
  UniqueFd tcp_listener_;
  std::vector<HostAddress> addresses_;
  UniqueFd memory_;  // own region's
  GroupParts parts_;
  std::vector<Error> refusals_;
};

}  // namespace coxswain::collective
