#include "bench/support/node_namespaces.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string_view>

#include "bench/support/bench.h"

namespace coxswain::bench {
namespace {

constexpr std::string_view kPrefix = "cox-";

void shell(const std::string& command, bool must_work = true) {
  const auto result = run_process({"sh", "-c", command}, 20);
  if (result.exit_code == 0 || !must_work) return;
  std::fprintf(stderr, "`%s` failed: %s\nthis bench needs root with ip, tc, nsenter and unshare\n", command.c_str(),
               result.errors.c_str());
  std::exit(77);
}

/// Those of a bench that was killed, by the process id in their name.
void remove_left() {
  std::istringstream names(run_process({"ip", "netns", "list"}, 20).output);
  for (std::string line; std::getline(names, line);) {
    const std::string name = line.substr(0, line.find(' '));
    if (!name.starts_with(kPrefix)) continue;
    const int pid = std::atoi(name.c_str() + kPrefix.size());
    if (pid > 0 && kill(pid, 0) != 0 && errno == ESRCH) shell("ip netns del " + name, false);
  }
}

}  // namespace

NodeNamespaces::NodeNamespaces(int num_nodes)
    : prefix_(std::string(kPrefix) + std::to_string(getpid())), num_nodes_(num_nodes) {
  static_cast<void>(program_folder());  // as long as it can be found
  if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    std::perror("this bench needs root for namespaces");
    std::exit(77);
  }
  remove_left();
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

std::vector<std::string> NodeNamespaces::on(int node, const std::filesystem::path& own,
                                            const std::filesystem::path& disk) const {
  // Not `ip netns exec`: it mounts another /sys, in which no cgroup is to be found.
  return {"nsenter",
          "--net=/run/netns/" + name(node),
          "unshare",
          "--mount",
          "sh",
          "-c",
          "mount --bind \"$0\" \"$1\" && shift && exec \"$@\"",
          own.string(),
          disk.string()};
}

void NodeNamespaces::cut(int node) const {
  shell("ip -n " + prefix_ + "-bridge link set port" + std::to_string(node) + " nomaster");
}

void NodeNamespaces::join(int node) const {
  shell("ip -n " + prefix_ + "-bridge link set port" + std::to_string(node) + " master nodes");
}

std::vector<std::string> NodeNamespaces::in_network(int node) const {
  return {"nsenter", "--net=/run/netns/" + name(node)};
}

void NodeNamespaces::deafen(int node) const {
  // A queue that no packet fits into.
  shell("tc -n " + prefix_ + "-bridge qdisc replace dev port" + std::to_string(node) + " root bfifo limit 1");
}

void NodeNamespaces::slow(int node, const std::string& rate) const {
  const std::string limit = " root tbf rate " + rate + " burst 32kb latency 100ms";
  shell("tc -n " + prefix_ + "-bridge qdisc replace dev port" + std::to_string(node) + limit + " && tc -n " +
        name(node) + " qdisc replace dev wire" + limit);
}

void NodeNamespaces::mend(int node) const {
  shell("tc -n " + prefix_ + "-bridge qdisc del dev port" + std::to_string(node) + " root", false);
  shell("tc -n " + name(node) + " qdisc del dev wire root", false);
}

void NodeNamespaces::mount_disk(const std::filesystem::path& folder) const {
  shell("mount -t tmpfs none " + folder.string());
}

void NodeNamespaces::unmount_disk(const std::filesystem::path& folder) const { shell("umount " + folder.string()); }

bool NodeNamespaces::limit_disk(const std::filesystem::path& folder, int kibibytes) const {
  const std::string remount = "mount -o remount,size=";
  // tmpfs begins with half of the memory.
  if (kibibytes < 0) return run_process({"sh", "-c", remount + "50% " + folder.string()}, 20).exit_code == 0;
  // Files come and go: what is there at the fewest in a second leaves no room for more than that.
  const std::string script =
      "least=999999999; for i in $(seq 20); do used=$(df -k --output=used \"$0\" | tail -n 1);"
      " [ $used -lt $least ] && least=$used; sleep 0.05; done;"
      " for i in $(seq 200); do " +
      remount + "$((least + " + std::to_string(kibibytes) +
      "))k \"$0\" 2>/dev/null && exit 0; sleep 0.02; done; exit 1";
  return run_process({"sh", "-c", script, folder.string()}, 20).exit_code == 0;
}

int NodeNamespaces::count_listening(int node) const {
  std::vector<std::string> line = in_network(node);
  line.insert(line.end(), {"sh", "-c", "cat /proc/net/tcp /proc/net/tcp6 | grep -c ' 0A '"});
  return std::atoi(run_process(line, 20).output.c_str());
}

}  // namespace coxswain::bench
