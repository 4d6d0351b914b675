#pragma once
// Hardware one does not have, by name: `16x8xh100-sxm,ib400` is a ResourceGraph to plan on. The data are the files of
// cluster/catalogue/, each number with its source and where it was read, built into the library. A *device* is what a
// rank computes on, a *system* a whole machine (`dgx-a100`, `p5.48xlarge`) or rack, a *network* joins nodes by its
// cards. Called by the launcher. Threads: pure. Source: INTERFACE section 1, docs/cluster.md.
#include <string>
#include <string_view>

#include "cluster/resource_graph.h"
#include "common/json.h"
#include "common/result.h"

namespace coxswain::cluster {

/// Does `text` start as a cluster of the catalogue does (a number, `x` and more)? Tells it from the name of a file.
[[nodiscard]] bool names_catalogue(std::string_view text);

/// The cluster GROUP{+GROUP}, GROUP = NODESx[DEVICESx]DEVICE[,[CARDSx]NETWORK] or NODESxSYSTEM[,[CARDSx]NETWORK].
/// Names in any case. Left out: DEVICES = what a board carries (8 for SXM modules, 1 for a card), CARDS = what the
/// board has, in proportion to its devices, NETWORK = the system's own, or none where one node or one NVLink or ICI
/// domain holds all. A bandwidth is the datasheet's times the fraction that collectives are seen to achieve, so
/// `assumed`. Groups with networks of their own meet over the slower one. Errors: InvalidArgument, all problems at
/// once, each with its column; unknown names list the known ones.
[[nodiscard]] Result<ResourceGraph> cluster_from_catalogue(std::string_view text);

/// All names with their main figures, for people.
[[nodiscard]] std::string list_catalogue();
/// The same for programs: {"devices": [{"name", "title", "memory_bytes", "memory_bytes_per_second",
/// "peak_bfloat16_flop_per_second", "peak_float32_flop_per_second", "price_usd_per_hour"}], "systems": [{"name", "title",
/// "network", "cards"}], "networks": [{"name", "title", "bandwidth_bytes_per_second"}], "grammar"}. A figure that is not
/// known is left out.
[[nodiscard]] Json catalogue_json();

}  // namespace coxswain::cluster
