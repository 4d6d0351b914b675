#include "launcher/control/node_environment.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <sstream>

#include "common/bytes_io.h"
#include "common/env.h"

namespace coxswain::launcher {
namespace {

constexpr const char* kRendezvousPort = "29400";  // torchrun's

struct Found {
  std::string value, source;
};

std::optional<Found> first_of(const EnvironmentLookup& lookup, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (auto value = lookup(name); value && !value->empty()) return Found{*value, name};
  }
  return std::nullopt;
}

Result<int> whole_number(const Found& found, int min) {
  int number = 0;
  const char* end = found.value.data() + found.value.size();
  const auto [stop, error] = std::from_chars(found.value.data(), end, number);
  if (error != std::errc() || stop != end || number < min) {
    return Error{ErrorCode::InvalidArgument,
                 "an environment variable has a value that cannot be used",
                 found.source,
                 "a whole number, at least " + std::to_string(min),
                 found.value,
                 "unset it or give the flag"};
  }
  return number;
}

Result<void> set_node_count(NodeOptions& nodes, const Found& found) {
  if (const auto range = parse_node_range(found.value)) {
    set_node_range(nodes, *range);
    return {};
  }
  return Error{ErrorCode::InvalidArgument,
               "an environment variable has a value that cannot be used",
               found.source,
               "N, or MIN:MAX, numbers of nodes",
               found.value,
               "unset it or give the flag"};
}

std::optional<Found> endpoint_from(const EnvironmentLookup& lookup, bool under_slurm) {
  if (auto found = first_of(lookup, {"PET_RDZV_ENDPOINT"})) return found;
  for (const char* prefix : {"PET_", ""}) {
    const std::string address = std::string(prefix) + "MASTER_ADDR";
    if (auto host = lookup(address); host && !host->empty()) {
      const auto port = lookup(std::string(prefix) + "MASTER_PORT");
      return Found{*host + ":" + port.value_or(kRendezvousPort), address};
    }
  }
  if (under_slurm) {
    if (auto list = first_of(lookup, {"SLURM_JOB_NODELIST", "SLURM_STEP_NODELIST"}))
      return Found{first_slurm_host(list->value) + ":" + kRendezvousPort, list->source};
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::pair<int, int>> parse_node_range(std::string_view text) {
  constexpr int kMostNodes = 1 << 20;
  const auto number = [](std::string_view part) -> int {
    int value = 0;
    const auto [stop, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    return error == std::errc() && stop == part.data() + part.size() && value >= 1 && value <= kMostNodes ? value : 0;
  };
  const auto colon = text.find(':');
  const int least = number(text.substr(0, colon)), most = colon == text.npos ? least : number(text.substr(colon + 1));
  if (least == 0 || most < least) return std::nullopt;
  return std::pair(least, most);
}

void set_node_range(NodeOptions& nodes, std::pair<int, int> range) {
  nodes.num_nodes = range.first;
  nodes.max_nodes = std::max(nodes.max_nodes, range.second);
  if (range.second > range.first) nodes.min_nodes = range.first;
}

std::string first_slurm_host(const std::string& list) {
  const auto bracket = list.find('[');
  const auto comma = list.find(',');
  if (bracket == std::string::npos || comma < bracket) return list.substr(0, comma);
  const auto end = list.find_first_of("-,]", bracket);
  return list.substr(0, bracket) + list.substr(bracket + 1, end - bracket - 1);
}

Result<std::vector<ResolvedValue>> resolve_nodes_from(NodeOptions& nodes, const EnvironmentLookup& lookup) {
  std::vector<ResolvedValue> values;
  // In an allocation but outside srun every node would take itself for node 0.
  const bool under_slurm = lookup("SLURM_PROCID").has_value();
  std::string source = "flag";
  if (nodes.num_nodes == 0) {
    auto found = first_of(lookup, {"PET_NNODES", "SKYPILOT_NUM_NODES", "DSTACK_NODES_NUM"});
    if (!found && under_slurm) found = first_of(lookup, {"SLURM_JOB_NUM_NODES", "SLURM_NNODES"});
    source = found ? found->source : "default";
    nodes.num_nodes = 1;
    if (found) COX_TRY_VOID(set_node_count(nodes, *found));
  }
  const int most = std::max(nodes.num_nodes, nodes.max_nodes);
  values.push_back(
      {"nnodes", std::to_string(nodes.num_nodes) + (most > nodes.num_nodes ? ":" + std::to_string(most) : ""), source});
  if (most == 1) {
    nodes.node_rank = 0;
    return values;
  }

  source = "flag";
  if (nodes.node_rank < 0) {
    auto found = first_of(lookup, {"PET_NODE_RANK", "SKYPILOT_NODE_RANK", "DSTACK_NODE_RANK", "JOB_COMPLETION_INDEX"});
    if (!found && under_slurm) found = first_of(lookup, {"SLURM_NODEID"});
    if (!found) found = first_of(lookup, {"OMPI_COMM_WORLD_RANK", "PMI_RANK"});
    if (!found) {
      return Error{ErrorCode::InvalidArgument,
                   "which node this is cannot be told",
                   "--node-rank",
                   "0 to " + std::to_string(most - 1),
                   "nothing",
                   "give --node-rank; node 0 coordinates"};
    }
    source = found->source;
    COX_TRY(nodes.node_rank, whole_number(*found, 0));
  }
  values.push_back({"node_rank", std::to_string(nodes.node_rank), source});
  if (nodes.node_rank >= most) {
    return Error{ErrorCode::InvalidArgument,         "the node's rank is outside the range", "--node-rank",
                 "0 to " + std::to_string(most - 1), std::to_string(nodes.node_rank),        ""};
  }

  source = "flag";
  if (nodes.rdzv_endpoint.empty()) {
    const auto found = endpoint_from(lookup, under_slurm);
    if (!found) {
      return Error{ErrorCode::InvalidArgument,
                   "several nodes need an address where they meet",
                   "--rdzv-endpoint",
                   "HOST:PORT of node 0",
                   "nothing",
                   "give --rdzv-endpoint HOST:29400 on every node"};
    }
    nodes.rdzv_endpoint = found->value;
    source = found->source;
  }
  if (nodes.rdzv_endpoint.find(':') == std::string::npos) nodes.rdzv_endpoint += std::string(":") + kRendezvousPort;
  values.push_back({"rdzv_endpoint", nodes.rdzv_endpoint, source});
  if (nodes.token_file.empty()) {
    return Error{ErrorCode::InvalidArgument,
                 "several nodes need a token that all of them hold",
                 "--token-file",
                 "a file with the same secret on every node",
                 "nothing",
                 "openssl rand -hex 32 > token; give --token-file token on every node"};
  }
  return values;
}

Result<void> apply_hostfile_of(std::string_view text, const std::string& own_host, NodeOptions& nodes, int& slots) {
  std::istringstream in{std::string(text)};
  std::vector<std::pair<std::string, int>> hosts;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string host, option;
    if (!(words >> host)) continue;
    int count = 0;
    while (words >> option) {
      if (!option.starts_with("slots=")) {
        return Error{ErrorCode::InvalidArgument,
                     "a line of the hostfile cannot be read",
                     "line " + std::to_string(number),
                     "HOST [slots=N]",
                     line,
                     ""};
      }
      COX_TRY(count, whole_number({option.substr(6), "line " + std::to_string(number) + "  slots"}, 1));
    }
    hosts.emplace_back(host, count);
  }
  if (hosts.empty())
    return Error{ErrorCode::InvalidArgument, "the hostfile names no host", "", "HOST [slots=N] a line", "nothing", ""};
  if (nodes.num_nodes == 0) nodes.num_nodes = static_cast<int>(hosts.size());
  if (nodes.node_rank < 0) {
    const auto own = std::find_if(hosts.begin(), hosts.end(), [&](const auto& host) { return host.first == own_host; });
    if (own == hosts.end())
      return Error{ErrorCode::InvalidArgument,
                   "this host is not in the hostfile",
                   "",
                   "a line for " + own_host,
                   std::to_string(hosts.size()) + " other hosts",
                   "add it, or give --node-rank"};
    nodes.node_rank = static_cast<int>(own - hosts.begin());
  }
  if (nodes.rdzv_endpoint.empty()) nodes.rdzv_endpoint = hosts.front().first + ":" + kRendezvousPort;
  if (slots == 0 && nodes.node_rank < static_cast<int>(hosts.size()))
    slots = hosts[static_cast<std::size_t>(nodes.node_rank)].second;
  return {};
}

Result<void> apply_hostfile(const std::filesystem::path& file, NodeOptions& nodes, int& slots) {
  COX_TRY(const std::string text, read_file(file));
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  auto applied = apply_hostfile_of(text, name, nodes, slots);
  if (!applied) return with_path_prefix(applied.error(), file.string() + "  ");
  return applied;
}

Result<std::vector<ResolvedValue>> resolve_nodes(NodeOptions& nodes) {
  return resolve_nodes_from(nodes, [](const std::string& name) { return env(name); });
}

std::map<std::string, std::string> worker_environment(const WorkerPlace& place) {
  const auto text = [](int number) { return std::to_string(number); };
  return {{"RANK", text(place.rank)},
          {"LOCAL_RANK", text(place.local_rank)},
          {"WORLD_SIZE", text(place.world_size)},
          {"LOCAL_WORLD_SIZE", text(place.local_world_size)},
          {"GROUP_RANK", text(place.node_rank)},
          {"GROUP_WORLD_SIZE", text(place.num_nodes)},
          {"NODE_RANK", text(place.node_rank)},
          {"ROLE_NAME", "default"},
          {"ROLE_RANK", text(place.rank)},
          {"ROLE_WORLD_SIZE", text(place.world_size)},
          {"MASTER_ADDR", place.master_addr},
          {"MASTER_PORT", text(place.master_port)},
          {"TORCHELASTIC_RESTART_COUNT", text(place.generation > 1 ? place.generation - 1 : 0)},
          {"TORCHELASTIC_MAX_RESTARTS", "0"},
          {"TORCHELASTIC_RUN_ID", place.run_id},
          {"OMP_NUM_THREADS", text(place.threads)}};
}

}  // namespace coxswain::launcher
