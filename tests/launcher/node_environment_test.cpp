#include "launcher/control/node_environment.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

EnvironmentLookup variables(std::map<std::string, std::string> values) {
  return [values = std::move(values)](const std::string& name) -> std::optional<std::string> {
    const auto found = values.find(name);
    if (found == values.end()) return std::nullopt;
    return found->second;
  };
}

}  // namespace

TEST_CASE("without flags and variables there is one node", "[node_environment]") {
  NodeOptions nodes;
  const auto values = resolve_nodes_from(nodes, variables({}));
  REQUIRE(values);
  CHECK(nodes.num_nodes == 1);
  CHECK(nodes.node_rank == 0);
  CHECK(values->front().source == "default");
}

TEST_CASE("flags come before the environment", "[node_environment]") {
  NodeOptions nodes;
  nodes.num_nodes = 3;
  nodes.token_file = "t";
  const auto values =
      resolve_nodes_from(nodes, variables({{"PET_NNODES", "5"}, {"PET_NODE_RANK", "2"}, {"PET_RDZV_ENDPOINT", "a:1"}}));
  REQUIRE(values);
  CHECK(nodes.num_nodes == 3);
  CHECK(nodes.node_rank == 2);
  CHECK(nodes.rdzv_endpoint == "a:1");
  CHECK((*values)[0].source == "flag");
  CHECK((*values)[1].source == "PET_NODE_RANK");
}

TEST_CASE("a master address takes torchrun's port when it has none", "[node_environment]") {
  NodeOptions nodes;
  nodes.num_nodes = 2;
  nodes.node_rank = 1;
  nodes.token_file = "t";
  REQUIRE(resolve_nodes_from(nodes, variables({{"MASTER_ADDR", "head"}})));
  CHECK(nodes.rdzv_endpoint == "head:29400");
}

TEST_CASE("Slurm's variables count only under srun", "[node_environment]") {
  std::map<std::string, std::string> slurm{
      {"SLURM_JOB_NUM_NODES", "2"}, {"SLURM_NODEID", "1"}, {"SLURM_JOB_NODELIST", "n[08-11,20]"}};
  NodeOptions outside;
  REQUIRE(resolve_nodes_from(outside, variables(slurm)));
  CHECK(outside.num_nodes == 1);
  slurm["SLURM_PROCID"] = "1";
  NodeOptions inside;
  inside.token_file = "t";
  REQUIRE(resolve_nodes_from(inside, variables(slurm)));
  CHECK(inside.num_nodes == 2);
  CHECK(inside.node_rank == 1);
  CHECK(inside.rdzv_endpoint == "n08:29400");
}

TEST_CASE("the first host of a Slurm list", "[node_environment]") {
  CHECK(first_slurm_host("alpha") == "alpha");
  CHECK(first_slurm_host("alpha,beta[1-2]") == "alpha");
  CHECK(first_slurm_host("gpu[007-009]") == "gpu007");
  CHECK(first_slurm_host("gpu[7]") == "gpu7");
  CHECK(first_slurm_host("gpu[7,9],x") == "gpu7");
}

TEST_CASE("what cannot be resolved is refused and says what to give", "[node_environment]") {
  NodeOptions no_rank;
  no_rank.num_nodes = 2;
  CHECK(resolve_nodes_from(no_rank, variables({})).error().path == "--node-rank");
  NodeOptions no_endpoint;
  no_endpoint.num_nodes = 2;
  no_endpoint.node_rank = 0;
  CHECK(resolve_nodes_from(no_endpoint, variables({})).error().path == "--rdzv-endpoint");
  NodeOptions no_token = no_endpoint;
  no_token.rdzv_endpoint = "h:1";
  CHECK(resolve_nodes_from(no_token, variables({})).error().path == "--token-file");
  NodeOptions outside = no_token;
  outside.node_rank = 2;
  CHECK(resolve_nodes_from(outside, variables({})).error().got == "2");
  NodeOptions backwards;
  CHECK(resolve_nodes_from(backwards, variables({{"PET_NNODES", "4:1"}})).error().path == "PET_NNODES");
  NodeOptions bad;
  CHECK(resolve_nodes_from(bad, variables({{"PET_NNODES", "two"}})).error().path == "PET_NNODES");
}

TEST_CASE("a range of nodes is the fewest and the most", "[node_environment]") {
  CHECK(parse_node_range("3") == std::pair(3, 3));
  CHECK(parse_node_range("1:4") == std::pair(1, 4));
  for (const char* text : {"", ":", "1:", ":4", "0", "0:2", "4:1", "1:2:3", "-1", "1 : 2", "99999999"})
    CHECK_FALSE(parse_node_range(text));
  NodeOptions nodes;
  nodes.token_file = "token";
  const auto resolved = resolve_nodes_from(
      nodes, variables({{"PET_NNODES", "1:4"}, {"PET_NODE_RANK", "3"}, {"PET_RDZV_ENDPOINT", "a:1"}}));
  REQUIRE(resolved);
  CHECK(nodes.num_nodes == 1);
  CHECK(nodes.max_nodes == 4);
  CHECK(nodes.min_nodes == 1);
  CHECK(nodes.node_rank == 3);
  CHECK(resolved->front().value == "1:4");
  NodeOptions fixed;
  set_node_range(fixed, *parse_node_range("3"));
  CHECK(fixed.num_nodes == 3);
  CHECK(fixed.min_nodes == 0);
  // One node of a run that takes more has to be found by them.
  NodeOptions first;
  first.num_nodes = 1;
  first.max_nodes = 2;
  first.node_rank = 0;
  CHECK(resolve_nodes_from(first, variables({})).error().path == "--rdzv-endpoint");
}

TEST_CASE("a hostfile gives order, slots and the meeting point", "[node_environment]") {
  const std::string text = "# nodes\nalpha slots=4\n\nbeta slots=2\n";
  NodeOptions nodes;
  int slots = 0;
  REQUIRE(apply_hostfile_of(text, "beta", nodes, slots));
  CHECK(nodes.num_nodes == 2);
  CHECK(nodes.node_rank == 1);
  CHECK(nodes.rdzv_endpoint == "alpha:29400");
  CHECK(slots == 2);
  NodeOptions stranger;
  CHECK_FALSE(apply_hostfile_of(text, "gamma", stranger, slots));
  NodeOptions wrong;
  const auto refused = apply_hostfile_of("alpha cpus=3\n", "alpha", wrong, slots);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().path == "line 1");
}
