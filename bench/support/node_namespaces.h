#pragma once
// Nodes that share nothing but a network: each has a network namespace of its own, all joined by a bridge in one more,
// and a mount namespace in which one folder is a disk of its own (in memory). Needs root, ip, nsenter and unshare.
// Called by bench programs. Threads: one.
#include <filesystem>
#include <string>
#include <vector>

namespace coxswain::bench {

/// All of them are this program's own and are removed at its end. Exits 77 where they cannot be made.
class NodeNamespaces {
 public:
  explicit NodeNamespaces(int num_nodes);
  ~NodeNamespaces();
  NodeNamespaces(const NodeNamespaces&) = delete;
  NodeNamespaces& operator=(const NodeNamespaces&) = delete;

  /// Words before a command that then runs on `node`, with a disk of its own at `disk`, which exists. The command keeps
  /// its process id.
  [[nodiscard]] std::vector<std::string> on(int node, const std::filesystem::path& disk) const;
  [[nodiscard]] std::string address(int node) const;
  /// Nothing comes through any more, and nobody is told. `join` ends that.
  void cut(int node) const;
  void join(int node) const;

 private:
  [[nodiscard]] std::string name(int node) const;
  std::string prefix_;
  int num_nodes_;
};

}  // namespace coxswain::bench
