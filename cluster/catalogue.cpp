#include "cluster/catalogue.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "cluster/catalogue_entries.h"

namespace coxswain::cluster {
namespace {

constexpr std::int64_t kMaxNodes = 1'000'000;
constexpr std::int64_t kMaxCards = 64;
constexpr const char* kGrammar =
    "NODESx[DEVICESx]NAME[,[CARDSx]NETWORK], groups joined by +; for example 16x8xh100-sxm,ib400 or 4xdgx-a100; "
    "`launch catalogue` lists the names";

/// A piece of the text and where its first character stands, from 1.
struct Piece {
  std::string_view text;
  std::size_t column = 1;
};

Piece rest_of(Piece piece, std::size_t from) { return {piece.text.substr(from), piece.column + from}; }

/// The pieces between the separators; there is always one.
std::vector<Piece> split(Piece whole, char separator) {
  std::vector<Piece> pieces;
  std::size_t begin = 0;
  while (begin <= whole.text.size()) {
    const std::size_t end = std::min(whole.text.find(separator, begin), whole.text.size());
    pieces.push_back({whole.text.substr(begin, end - begin), whole.column + begin});
    begin = end + 1;
  }
  return pieces;
}

/// Nodes of one kind, as asked for.
struct Group {
  std::int64_t nodes = 1;
  std::int64_t devices = 1;  // of a node
  std::string node_name;
  const CatalogueDevice* device = nullptr;
  CatalogueBoard board;
  std::optional<LinkClass> network;

  /// Consecutive nodes that the board's own fabric joins.
  [[nodiscard]] std::int64_t domain_nodes() const { return std::max<std::int64_t>(1, board.domain_devices / devices); }
};

/// Every problem of one text; a group with a problem is not built.
class GroupParser {
 public:
  explicit GroupParser(const Catalogue& catalogue) : catalogue_(catalogue) {}

  std::optional<Group> parse(Piece piece) {
    if (piece.text.empty()) {
      add(piece, "empty group", "NODESxNAME");
      return std::nullopt;
    }
    const std::size_t before = problems_.size();
    Group group;
    const std::vector<Piece> parts = split(piece, ',');
    parse_nodes(group, parts.front());
    if (parts.size() > 2) add(parts[2], "a group has one network", "'+' or the end");
    if (parts.size() > 1) parse_network(group, parts[1]);
    if (problems_.size() > before) return std::nullopt;
    return group;
  }

  void require_network(const Group& group, const Piece& piece) {
    if (group.network) return;
    problems_.push_back(Error{ErrorCode::InvalidArgument, "several nodes need a network", at(piece),
                              "one of " + network_names(), "none", "append it: " + std::string(piece.text) + ",ib400"});
  }

  std::vector<Error> take_problems() { return std::move(problems_); }

 private:
  static std::string at(const Piece& piece) { return "cluster column " + std::to_string(piece.column); }

  void add(const Piece& piece, std::string message, std::string expected, std::string hint = kGrammar) {
    problems_.push_back(Error{ErrorCode::InvalidArgument, std::move(message), at(piece), std::move(expected),
                              piece.text.empty() ? "nothing" : std::string(piece.text), std::move(hint)});
  }

  /// Takes `NUMBERx` from the front of `rest`, if it stands there; a number out of range is a problem and counts as 1.
  std::optional<std::int64_t> take_count(Piece& rest, std::int64_t max) {
    const std::size_t digits = std::min(rest.text.find_first_not_of("0123456789"), rest.text.size());
    if (digits == 0 || digits == rest.text.size() || (rest.text[digits] != 'x' && rest.text[digits] != 'X')) return {};
    const Piece number{rest.text.substr(0, digits), rest.column};
    rest = rest_of(rest, digits + 1);
    std::int64_t value = 0;
    const auto [end, failed] = std::from_chars(number.text.data(), number.text.data() + digits, value);
    if (failed == std::errc{} && value >= 1 && value <= max) return value;
    add(number, "not a number in range", "1 to " + std::to_string(max));
    return 1;
  }

  void parse_nodes(Group& group, Piece piece) {
    Piece rest = piece;
    const std::optional<std::int64_t> nodes = take_count(rest, kMaxNodes);
    if (!nodes) add(rest, "a group starts with its number of nodes", "a number and x, as in 4x8xa100-80gb-sxm");
    group.nodes = nodes.value_or(1);
    Piece second = rest;
    const std::optional<std::int64_t> devices = take_count(rest, kMaxNodes);
    const std::string name = lower(rest.text);
    if (const CatalogueSystem* system = find_system(name)) {
      if (devices) add(second, "a system has its own number of devices", "NODESx" + name);
      take_system(group, *system);
    } else if (const CatalogueDevice* device = find_device(name)) {
      take_device(group, *device, devices, second);
    } else {
      add(rest, "no such device or system", "a device: " + device_names() + "; or a system: " + system_names(),
          kin_of(name));
    }
  }

  void take_system(Group& group, const CatalogueSystem& system) {
    group.nodes *= system.nodes;
    group.node_name = system.name;
    group.device = &catalogue_.devices[system.device];
    group.board = system.board;
    group.devices = system.board.devices;
    group.network = with_cards(catalogue_.networks[system.network], system.board.cards);
  }

  void take_device(Group& group, const CatalogueDevice& device, std::optional<std::int64_t> devices,
                   const Piece& piece) {
    group.device = &device;
    group.board = catalogue_.boards[device.board];
    group.devices = devices.value_or(group.board.devices);
    if (group.devices > group.board.max_devices) {
      add(piece, "a node does not hold so many devices of that kind", "1 to " + std::to_string(group.board.max_devices),
          group.board.domain_devices > 0
              ? "take more nodes: " + std::to_string(group.board.domain_devices) +
                    " devices of consecutive nodes are joined by " + group.board.domain_link.name
              : "take more nodes");
    }
    group.node_name = std::to_string(group.devices) + "x" + device.device.name;
  }

  void parse_network(Group& group, Piece piece) {
    Piece rest = piece;
    const std::optional<std::int64_t> cards = take_count(rest, kMaxCards);
    const std::string name = lower(rest.text);
    for (const CatalogueNetwork& network : catalogue_.networks) {
      if (network.link.name != name) continue;
      group.network = with_cards(network, cards.value_or(network.cards > 0 ? network.cards : board_cards(group)));
      return;
    }
    add(rest, "no such network", network_names());
  }

  /// The board's cards, in proportion to the devices that it carries here.
  static std::int64_t board_cards(const Group& group) {
    return std::max<std::int64_t>(
        1, (group.board.cards * group.devices + group.board.devices - 1) / std::max(group.board.devices, 1));
  }

  static LinkClass with_cards(const CatalogueNetwork& network, std::int64_t cards) {
    LinkClass link = network.link;
    link.sharing = static_cast<int>(std::min(cards, kMaxCards));
    return link;
  }

  static std::string lower(std::string_view text) {
    std::string result(text);
    for (char& c : result) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    return result;
  }

  [[nodiscard]] const CatalogueDevice* find_device(const std::string& name) const {
    for (const CatalogueDevice& entry : catalogue_.devices) {
      if (entry.device.name == name || std::count(entry.aliases.begin(), entry.aliases.end(), name) > 0) return &entry;
    }
    return nullptr;
  }

  [[nodiscard]] const CatalogueSystem* find_system(const std::string& name) const {
    for (const CatalogueSystem& entry : catalogue_.systems) {
      if (entry.name == name) return &entry;
    }
    return nullptr;
  }

  static void append(std::string& names, const std::string& name) { names += (names.empty() ? "" : ", ") + name; }

  [[nodiscard]] std::string device_names() const {
    std::string names;
    for (const CatalogueDevice& entry : catalogue_.devices) append(names, entry.device.name);
    return names;
  }

  [[nodiscard]] std::string system_names() const {
    std::string names;
    for (const CatalogueSystem& entry : catalogue_.systems) append(names, entry.name);
    return names;
  }

  [[nodiscard]] std::string network_names() const {
    std::string names;
    for (const CatalogueNetwork& entry : catalogue_.networks) append(names, entry.link.name);
    return names;
  }

  /// Names that begin as `name` does, up to its first hyphen.
  [[nodiscard]] std::string kin_of(const std::string& name) const {
    const std::string family = name.substr(0, name.find('-'));
    std::string names;
    if (family.empty()) return kGrammar;
    for (const CatalogueDevice& entry : catalogue_.devices) {
      if (entry.device.name.starts_with(family)) append(names, entry.device.name);
    }
    for (const CatalogueSystem& entry : catalogue_.systems) {
      if (entry.name.starts_with(family)) append(names, entry.name);
    }
    return names.empty() ? kGrammar : "use one of " + names;
  }

  const Catalogue& catalogue_;
  std::vector<Error> problems_;
};

/// Index of the entry with `entry`'s name; appends it when there is none.
template <class Entry>
int index_of(std::vector<Entry>& entries, const Entry& entry) {
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].name == entry.name) return static_cast<int>(i);
  }
  entries.push_back(entry);
  return static_cast<int>(entries.size()) - 1;
}

/// Tiers between nodes of the group: its board's own fabric where there is one, then its network.
std::vector<NetworkTier> tiers_of(const Group& group) {
  std::vector<NetworkTier> tiers;
  const std::int64_t domain = group.domain_nodes();
  if (domain > 1 && group.nodes > 1) tiers.push_back({group.board.domain_link, domain >= group.nodes ? 0 : domain});
  if (group.network && (tiers.empty() || tiers.back().nodes_per_domain != 0)) tiers.push_back({*group.network, 0});
  return tiers;
}

/// What two groups meet over: the narrower bandwidth, the greater latency, the fewer cards.
LinkClass slower_of(const LinkClass& a, const LinkClass& b) {
  LinkClass link = a.bandwidth.value <= b.bandwidth.value ? a : b;
  link.latency = a.latency.value >= b.latency.value ? a.latency : b.latency;
  link.sharing = std::min(a.sharing, b.sharing);
  return link;
}

/// Requires: several groups have a network each.
void join_groups(ResourceGraph& graph, const std::vector<Group>& groups) {
  const std::vector<NetworkTier> first = tiers_of(groups.front());
  const bool alike = std::all_of(groups.begin(), groups.end(), [&](const Group& group) {
    const std::vector<NetworkTier> tiers = tiers_of(group);
    return tiers.size() == 1 && group.network && group.network == groups.front().network && tiers == first;
  });
  if (alike || groups.size() == 1) {
    graph.tiers = first;
    return;
  }
  LinkClass between = *groups.front().network;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    if (groups[i].nodes > 1) graph.nodes[i].tiers = tiers_of(groups[i]);
    between = slower_of(between, *groups[i].network);
  }
  graph.tiers = {{between, 0}};
}

ResourceGraph build(const std::vector<Group>& groups) {
  ResourceGraph graph;
  for (const Group& group : groups) {
    NodeClass node;
    node.name = group.node_name;
    node.devices = {{index_of(graph.device_classes, group.device->device), group.devices}};
    node.link = group.board.link;
    node.host_memory = group.board.host_memory;
    node.host_link = group.board.host_link;
    node.host_memory_bandwidth = group.board.host_memory_bandwidth;
    node.cores = group.board.cores;
    graph.nodes.push_back({index_of(graph.node_classes, node), group.nodes});
  }
  join_groups(graph, groups);
  return graph;
}

std::string padded(std::string text, std::size_t width) {
  text.resize(std::max(text.size(), width), ' ');
  return text;
}

/// In units of `unit`, with at most one decimal.
std::string scaled(double value, double unit) {
  const double tenths = std::round(value / unit * 10);
  const auto whole = static_cast<std::int64_t>(tenths / 10), decimal = static_cast<std::int64_t>(tenths) % 10;
  return std::to_string(whole) + (decimal == 0 ? "" : "." + std::to_string(decimal));
}

std::string dollars(double value) {
  if (value == 0) return "-";
  const auto cents = static_cast<std::int64_t>(std::round(value * 100));
  return std::to_string(cents / 100) + "." + std::to_string(cents / 10 % 10) + std::to_string(cents % 10);
}

}  // namespace

bool names_catalogue(std::string_view text) {
  const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  return digits > 0 && digits + 1 < text.size() && (text[digits] == 'x' || text[digits] == 'X');
}

Result<ResourceGraph> cluster_from_catalogue(std::string_view text) {
  GroupParser parser(builtin_catalogue());
  const std::vector<Piece> pieces = split({text, 1}, '+');
  std::vector<Group> groups;
  for (const Piece& piece : pieces) {
    std::optional<Group> group = parser.parse(piece);
    if (!group) continue;
    if (pieces.size() > 1 || group->nodes > group->domain_nodes()) parser.require_network(*group, piece);
    groups.push_back(std::move(*group));
  }
  if (std::vector<Error> problems = parser.take_problems(); !problems.empty()) {
    return combine_errors(ErrorCode::InvalidArgument, "the cluster is not understood", std::move(problems));
  }
  return build(groups);
}

std::string list_catalogue() {
  const Catalogue& catalogue = builtin_catalogue();
  std::string text =
      "devices                GB  GB/s    bf16   fp32  USD/h  (peaks in TFLOP/s without sparsity; - unknown)\n";
  const auto right = [](const std::string& cell, std::size_t width) {
    return std::string(width > cell.size() ? width - cell.size() : 0, ' ') + cell;
  };
  for (const CatalogueDevice& entry : catalogue.devices) {
    const DeviceClass& device = entry.device;
    const double bfloat16 = device.peak_bfloat16.value.value;
    text += "  " + padded(device.name, 17) + right(scaled(static_cast<double>(device.memory.value.value), 1e9), 6) +
            right(scaled(std::round(device.memory_bandwidth.value.value / 1e9), 1), 6) +
            right(bfloat16 > 0 ? scaled(bfloat16, 1e12) : "-", 8) +
            right(scaled(device.peak_float32.value.value, 1e12), 7) + right(dollars(device.price.value.value), 7) +
            "  " + entry.title + "\n";
  }
  text += "\nsystems\n";
  for (const CatalogueSystem& entry : catalogue.systems) {
    text += "  " + padded(entry.name, 18) +
            padded(std::to_string(entry.board.cards) + "x" + catalogue.networks[entry.network].link.name, 17) +
            entry.title + "\n";
  }
  text += "\nnetworks\n";
  for (const CatalogueNetwork& entry : catalogue.networks)
    text += "  " + padded(entry.link.name, 18) + entry.title + "\n";
  return text + "\na cluster: " + kGrammar + "\n";
}

Json catalogue_json() {
  const Catalogue& catalogue = builtin_catalogue();
  JsonArray devices, systems, networks;
  for (const CatalogueDevice& entry : catalogue.devices) {
    const DeviceClass& device = entry.device;
    JsonObject one{{"name", device.name}, {"title", entry.title}};
    for (const auto& [key, value] :
         {std::pair{"memory_bytes", static_cast<double>(device.memory.value.value)},
          std::pair{"memory_bytes_per_second", device.memory_bandwidth.value.value},
          std::pair{"peak_bfloat16_flop_per_second", device.peak_bfloat16.value.value},
          std::pair{"peak_float32_flop_per_second", device.peak_float32.value.value},
          std::pair{"price_usd_per_hour", device.price.value.value}}) {
      if (value > 0) one[key] = value;
    }
    devices.push_back(std::move(one));
  }
  for (const CatalogueSystem& entry : catalogue.systems)
    systems.push_back(JsonObject{{"name", entry.name},
                                 {"title", entry.title},
                                 {"network", catalogue.networks[entry.network].link.name},
                                 {"cards", entry.board.cards}});
  for (const CatalogueNetwork& entry : catalogue.networks)
    networks.push_back(JsonObject{{"name", entry.link.name},
                                  {"title", entry.title},
                                  {"bandwidth_bytes_per_second", entry.link.bandwidth.value.value}});
  return JsonObject{{"devices", std::move(devices)},
                    {"systems", std::move(systems)},
                    {"networks", std::move(networks)},
                    {"grammar", kGrammar}};
}

}  // namespace coxswain::cluster
