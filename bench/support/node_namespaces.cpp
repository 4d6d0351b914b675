#include "bench/support/node_namespaces.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "bench/support/bench.h"

namespace coxswain::bench {
namespace {

void shell(const std::string& command, bool must_work = true) {
  const auto result = run_process({"sh", "-c", command}, 20);
  if (result.exit_code == 0 || !must_work) return;
  std::fprintf(stderr, "`%s` failed: %s\nthis bench needs root with ip, nsenter and unshare\n", command.c_str(),
               result.errors.c_str());
  std::exit(77);
}

}  // namespace

NodeNamespaces::NodeNamespaces(int num_nodes) : prefix_("cox-" + std::to_string(getpid())), num_nodes_(num_nodes) {
  const std::string bridge = prefix_ + "-bridge";
  shell("ip netns add " + bridge + " && ip -n " + bridge + " link add nodes type bridge && ip -n " + bridge +
        " link set nodes up");
  for (int node = 0; node < num_nodes; ++node) {
    const std::string number = std::to_string(node), own = name(node);
    shell("ip netns add " + own);
    shell("ip link add wire netns " + own + " type veth peer name port" + number + " netns " + bridge);
    shell("ip -n " + bridge + " link set port" + number + " master nodes && ip -n " + bridge + " link set port" +
          number + " up");
    shell("ip -n " + own + " addr add " + address(node) + "/24 dev wire && ip -n " + own +
          " link set wire up && ip -n " + own + " link set lo up");
  }
}

NodeNamespaces::~NodeNamespaces() {
  for (int node = 0; node < num_nodes_; ++node) shell("ip netns del " + name(node), false);
  shell("ip netns del " + prefix_ + "-bridge", false);
}

std::string NodeNamespaces::name(int node) const { return prefix_ + "-" + std::to_string(node); }

std::string NodeNamespaces::address(int node) const { return "10.78.0." + std::to_string(node + 1); }

std::vector<std::string> NodeNamespaces::on(int node, const std::filesystem::path& disk) const {
  // Not `ip netns exec`: it mounts another /sys, in which no cgroup is to be found.
  return {"nsenter",
          "--net=/run/netns/" + name(node),
          "unshare",
          "--mount",
          "sh",
          "-c",
          "mount -t tmpfs none \"$0\" && exec \"$@\"",
          disk.string()};
}

void NodeNamespaces::cut(int node) const {
  shell("ip -n " + prefix_ + "-bridge link set port" + std::to_string(node) + " nomaster");
}

void NodeNamespaces::join(int node) const {
  shell("ip -n " + prefix_ + "-bridge link set port" + std::to_string(node) + " master nodes");
}

}  // namespace coxswain::bench
