#pragma once
// The files of cluster/catalogue/, built into the library: an installed `launch` needs no file beside it.
// catalogue_data.cpp is written at build time by cluster/catalogue/embed.cmake. Threads: constants.
#include <string_view>

namespace coxswain::cluster {

/// The texts of devices.json, nodes.json and networks.json.
[[nodiscard]] std::string_view catalogue_devices_text();
[[nodiscard]] std::string_view catalogue_nodes_text();
[[nodiscard]] std::string_view catalogue_networks_text();

}  // namespace coxswain::cluster
