#pragma once
// Nodes that share nothing but a network: each has a network namespace of its own, all joined by a bridge in one more,
// and a mount namespace in which one folder is a disk of its own (in memory), that outlives the node's processes. Needs
// root, ip, tc, nsenter and unshare. Called by bench programs. Threads: one.
#include <filesystem>
#include <string>
#include <vector>

namespace coxswain::bench {

/// All of them are this program's own and are removed at its end; mounts are seen by it and what it starts alone. Exits
/// 77 where they cannot be made. Made before any thread.
class NodeNamespaces {
 public:
  explicit NodeNamespaces(int num_nodes);
  ~NodeNamespaces();
  NodeNamespaces(const NodeNamespaces&) = delete;
  NodeNamespaces& operator=(const NodeNamespaces&) = delete;

  /// Words before a command that then runs on `node`, with `own` (a disk of mount_disk) at `disk`; both exist. The
  /// command keeps its process id.
  [[nodiscard]] std::vector<std::string> on(int node, const std::filesystem::path& own,
                                            const std::filesystem::path& disk) const;
  [[nodiscard]] std::string address(int node) const;
  /// Words before a command that then runs in the network of `node` alone.
  [[nodiscard]] std::vector<std::string> in_network(int node) const;
  /// Nothing comes through any more, and nobody is told. `join` ends that.
  void cut(int node) const;
  void join(int node) const;
  /// What it sends arrives, nothing reaches it, and nobody is told. `mend` ends that.
  void deafen(int node) const;
  /// In each direction; as tc writes rates, "50mbit". `mend` ends that.
  void slow(int node, const std::string& rate) const;
  void mend(int node) const;
  /// An empty disk at `folder`, which exists; from outside it is seen there.
  void mount_disk(const std::filesystem::path& folder) const;
  void unmount_disk(const std::filesystem::path& folder) const;
  /// It has room for `kibibytes` more; -1: as at its start. False: what is written meanwhile kept it from that.
  [[nodiscard]] bool limit_disk(const std::filesystem::path& folder, int kibibytes) const;
  /// Ports that somebody listens on; none where no process is left.
  [[nodiscard]] int count_listening(int node) const;

 private:
  [[nodiscard]] std::string name(int node) const;
  std::string prefix_;
  int num_nodes_;
};

}  // namespace coxswain::bench
