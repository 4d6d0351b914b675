#pragma once
// What the catalogue's files say. Read strictly: every number has a source and `from`, the text that says where it was
// read; a name that stands nowhere is an error. Private to cluster/; catalogue.cpp builds clusters from it.
// Threads: pure values. Source: docs/cluster.md.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/resource_graph.h"
#include "common/result.h"

namespace coxswain::cluster {

/// What carries devices and joins them. Nodes that are named by their devices have one.
struct CatalogueBoard {
  std::string name;
  LinkClass link;          // between devices of the node, as collectives achieve it
  int devices = 1;         // when no number is given
  int max_devices = 1;     // that a node can hold
  int cards = 1;           // network cards for `devices` devices
  int domain_devices = 0;  // so many devices of consecutive nodes are joined by `domain_link`; 0: none beyond the node
  LinkClass domain_link;   // NVLink of a rack, ICI of a pod
  int cores = 0;
  Sourced<Bytes> host_memory;
  LinkClass host_link;  // of one device; `sharing` = devices that reach host memory at full rate
  Sourced<BytesPerSecond> host_memory_bandwidth;
};

struct CatalogueDevice {
  DeviceClass device;
  std::string title;
  std::vector<std::string> aliases;
  std::size_t board = 0;  // index into Catalogue::boards
};

struct CatalogueNetwork {
  LinkClass link;  // of one card, as collectives achieve it
  std::string title;
  BytesPerSecond line_rate;
  int cards = 0;  // of a node; 0: as its board has
};

/// A machine as it is sold or rented, or several in a rack.
struct CatalogueSystem {
  std::string name, title;
  std::size_t device = 0, network = 0;  // indices
  CatalogueBoard board;                 // with the system's own devices, cards, cores and memory
  int nodes = 1;
};

struct Catalogue {
  std::vector<CatalogueBoard> boards;
  std::vector<CatalogueDevice> devices;
  std::vector<CatalogueSystem> systems;
  std::vector<CatalogueNetwork> networks;
};

/// Errors: InvalidArgument, all problems of the three texts.
[[nodiscard]] Result<Catalogue> read_catalogue(std::string_view devices, std::string_view nodes,
                                               std::string_view networks);

/// The one that is built in.
[[nodiscard]] const Catalogue& builtin_catalogue();

}  // namespace coxswain::cluster
