#include "cluster/catalogue_entries.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "cluster/catalogue_data.h"
#include "common/ensure.h"

namespace coxswain::cluster {
namespace {

constexpr std::int64_t kMaxCount = 1 << 20;
constexpr std::int64_t kMaxBytes = std::numeric_limits<std::int64_t>::max() / 4;

Error problem(std::string message, std::string path, std::string expected, std::string got) {
  return Error{ErrorCode::InvalidArgument, std::move(message), std::move(path),
               std::move(expected),        std::move(got),     ""};
}

/// Reads `key` as {"value", "source", "from"}; `read(reader)` gives the value.
template <class Unit, class Read>
Sourced<Unit> read_sourced(JsonReader& outer, const std::string& key, Read read) {
  Sourced<Unit> result;
  JsonReader reader(outer.object(key), key);
  if (!outer.has(key)) return result;
  result.value = read(reader);
  const std::string source = reader.string("source");
  if (const auto parsed = parse_source(source))
    result.source = *parsed;
  else if (reader.has("source"))
    reader.problem(problem("unknown source", "source", "measured, datasheet, assumed", source));
  if (reader.string("from").empty() && reader.has("from"))
    reader.problem(problem("a number without its origin", "from", "where it was read", "nothing"));
  for (Error& error : reader.take_problems()) outer.problem(std::move(error));
  return result;
}

template <class Unit>
Sourced<Unit> read_number(JsonReader& reader, const std::string& key) {
  return read_sourced<Unit>(reader, key, [](JsonReader& inner) { return Unit(inner.number("value")); });
}

Sourced<Bytes> read_bytes(JsonReader& reader, const std::string& key) {
  return read_sourced<Bytes>(reader, key,
                             [](JsonReader& inner) { return Bytes(inner.integer("value", 1, kMaxBytes)); });
}

int read_count(JsonReader& reader, const std::string& key, std::int64_t min) {
  return static_cast<int>(reader.integer(key, min, kMaxCount));
}

/// Number of whole cores: a person may have two per virtual one.
int read_cores(JsonReader& reader) {
  return read_sourced<int>(reader, "cores", [](JsonReader& inner) { return read_count(inner, "value", 1); }).value;
}

/// Runs `read(reader of element)` for each element of the array `key`.
template <class Read>
void read_each(JsonReader& outer, const std::string& key, Read read) {
  const JsonArray& elements = outer.array(key);
  for (std::size_t i = 0; i < elements.size(); ++i) {
    JsonReader inner(elements[i], key + "[" + std::to_string(i) + "]");
    read(inner);
    for (Error& error : inner.take_problems()) outer.problem(std::move(error));
  }
}

class CatalogueReader {
 public:
  Result<Catalogue> read(std::string_view devices, std::string_view nodes, std::string_view networks) {
    read_file("networks.json", networks, [&](JsonReader& reader) {
      read_each(reader, "links", [&](JsonReader& inner) {
        LinkClass link = read_achieved_link(inner);
        links_.emplace(link.name, link);
      });
      read_each(reader, "networks", [&](JsonReader& inner) { read_network(inner); });
    });
    // Systems name devices and devices name boards, so the boards come first.
    read_file("nodes.json", nodes, [&](JsonReader& reader) {
      read_each(reader, "boards", [&](JsonReader& inner) { read_board(inner); });
      reader.any("systems");
    });
    read_file("devices.json", devices, [&](JsonReader& reader) {
      read_each(reader, "matmul_shapes", [&](JsonReader& inner) { read_shape(inner); });
      read_each(reader, "devices", [&](JsonReader& inner) { read_device(inner); });
    });
    read_file("nodes.json", nodes, [&](JsonReader& reader) {
      reader.any("boards");
      read_each(reader, "systems", [&](JsonReader& inner) { read_system(inner); });
    });
    if (!problems_.empty())
      return combine_errors(ErrorCode::InvalidArgument, "the catalogue has problems", std::move(problems_));
    return std::move(catalogue_);
  }

 private:
  template <class Read>
  void read_file(const std::string& name, std::string_view text, Read read) {
    auto json = parse_json(text);
    if (!json) {
      problems_.push_back(with_path_prefix(json.error(), name));
      return;
    }
    JsonReader reader(*json, name);
    reader.integer("format_version", 1, 1);
    read(reader);
    for (Error& error : reader.take_problems()) problems_.push_back(std::move(error));
  }

  /// A name that people type: taken once.
  std::string read_name(JsonReader& reader) {
    std::string name = reader.string("name");
    take_name(reader, name);
    return name;
  }

  void take_name(JsonReader& reader, const std::string& name) {
    if (!names_.insert(name).second) reader.problem(problem("name is used twice", "name", "a name of its own", name));
  }

  /// The bandwidth is what collectives achieve of the line's.
  LinkClass read_achieved_link(JsonReader& reader) {
    LinkClass link;
    link.name = read_name(reader);
    link.latency = read_number<Seconds>(reader, "latency_seconds");
    const auto line = read_number<BytesPerSecond>(reader, "bandwidth_bytes_per_second");
    const auto fraction = read_number<double>(reader, "achieved_fraction");
    if (!(fraction.value > 0 && fraction.value <= 1) && reader.has("achieved_fraction"))
      reader.problem(
          problem("not a fraction", "achieved_fraction", "above 0, at most 1", to_text(Json(fraction.value))));
    link.bandwidth = {BytesPerSecond(line.value.value * fraction.value), Source::Assumed};
    return link;
  }

  void read_network(JsonReader& reader) {
    CatalogueNetwork network;
    network.link = read_achieved_link(reader);
    network.title = reader.string("title");
    network.line_rate = read_number<BytesPerSecond>(reader, "bandwidth_bytes_per_second").value;
    network.cards = read_count(reader, "cards", 0);
    catalogue_.networks.push_back(std::move(network));
  }

  LinkClass read_link_name(JsonReader& reader) {
    const std::string name = reader.string("link");
    const auto found = links_.find(name);
    if (found != links_.end()) return found->second;
    if (reader.has("link")) reader.problem(problem("no link of that name", "link", "a name of networks.json", name));
    return {};
  }

  void read_board(JsonReader& reader) {
    CatalogueBoard board;
    board.name = read_name(reader);
    board.link = read_link_name(reader);
    board.devices = read_count(reader, "devices", 1);
    board.max_devices = read_count(reader, "max_devices", 1);
    board.cards = read_count(reader, "cards", 1);
    board.cores = read_cores(reader);
    board.host_memory = read_bytes(reader, "host_memory_bytes");
    if (reader.has("domain")) {
      JsonReader domain(reader.object("domain"), "domain");
      board.domain_devices = read_count(domain, "devices", 2);
      board.domain_link = read_link_name(domain);
      for (Error& error : domain.take_problems()) reader.problem(std::move(error));
    }
    reader.any("domain");
    if (reader.has("host")) {
      JsonReader host(reader.object("host"), "host");
      board.host_link = read_link_name(host);
      board.host_link.sharing = read_count(host, "flows", 0);
      board.host_memory_bandwidth = read_number<BytesPerSecond>(host, "memory_bandwidth_bytes_per_second");
      if (host.string("from").empty() && host.has("from"))
        host.problem(problem("a number without its origin", "from", "where it was read", "nothing"));
      for (Error& error : host.take_problems()) reader.problem(std::move(error));
    }
    reader.any("host");
    catalogue_.boards.push_back(std::move(board));
  }

  void read_shape(JsonReader& reader) {
    const std::string name = read_name(reader);
    const JsonArray& sizes = reader.array("sizes");
    const JsonArray& fractions = reader.array("fractions");
    if (reader.string("from").empty() || sizes.size() != fractions.size() || sizes.empty())
      reader.problem(problem("not a curve", "", "as many fractions as sizes, and where they come from", name));
    std::vector<MatmulRate>& shape = shapes_[name];
    for (std::size_t i = 0; i < std::min(sizes.size(), fractions.size()); ++i) {
      if (!sizes[i].is_integer() || !fractions[i].is_number()) {
        reader.problem(problem("not a number", "sizes, fractions", "numbers", name));
        continue;
      }
      shape.push_back({DType::BFloat16, sizes[i].integer(), {FlopPerSecond(fractions[i].number()), Source::Assumed}});
    }
  }

  /// The shape's fractions of the best rate seen.
  std::vector<MatmulRate> read_matmul(JsonReader& reader) {
    std::vector<MatmulRate> rates;
    const std::string dtype = reader.string("dtype");
    const auto parsed = parse_dtype(dtype);
    if (!parsed && reader.has("dtype"))
      reader.problem(problem("unknown dtype", "dtype", "float32, bfloat16, ...", dtype));
    const std::string name = reader.string("shape");
    const auto best = read_number<FlopPerSecond>(reader, "best_flop_per_second");
    const auto shape = shapes_.find(name);
    if (shape == shapes_.end()) {
      if (reader.has("shape")) reader.problem(problem("no curve of that name", "shape", "one of matmul_shapes", name));
      return rates;
    }
    for (const MatmulRate& point : shape->second) {
      rates.push_back({parsed.value_or(DType::Float32),
                       point.size,
                       {FlopPerSecond(best.value.value * point.rate.value.value), Source::Assumed}});
    }
    return rates;
  }

  void read_device(JsonReader& reader) {
    CatalogueDevice entry;
    DeviceClass& device = entry.device;
    device.name = read_name(reader);
    device.kind = DeviceKind::Cuda;
    entry.title = reader.string("title");
    for (const Json& alias : reader.has("aliases") ? reader.array("aliases") : JsonArray{}) {
      entry.aliases.push_back(alias.is_string() ? alias.string() : "");
      take_name(reader, entry.aliases.back());
    }
    entry.board = find(reader, "board", catalogue_.boards, [](const CatalogueBoard& board) { return board.name; });
    device.memory = read_bytes(reader, "memory_bytes");
    device.memory_bandwidth = read_number<BytesPerSecond>(reader, "memory_bandwidth_bytes_per_second");
    device.peak_float32 = read_number<FlopPerSecond>(reader, "peak_float32_flop_per_second");
    device.peak_bfloat16 = read_number<FlopPerSecond>(reader, "peak_bfloat16_flop_per_second");
    device.launch_overhead = read_number<Seconds>(reader, "launch_overhead_seconds");
    if (reader.has("price_usd_per_hour")) device.price = read_number<UsdPerHour>(reader, "price_usd_per_hour");
    read_each(reader, "matmul", [&](JsonReader& inner) {
      for (const MatmulRate& rate : read_matmul(inner)) device.matmul_rates.push_back(rate);
    });
    for (const char* optional : {"aliases", "price_usd_per_hour", "note"}) reader.any(optional);
    catalogue_.devices.push_back(std::move(entry));
  }

  void read_system(JsonReader& reader) {
    CatalogueSystem system;
    system.name = read_name(reader);
    system.title = reader.string("title");
    system.device =
        find(reader, "device", catalogue_.devices, [](const CatalogueDevice& entry) { return entry.device.name; });
    system.network =
        find(reader, "network", catalogue_.networks, [](const CatalogueNetwork& entry) { return entry.link.name; });
    const std::size_t board =
        find(reader, "board", catalogue_.boards, [](const CatalogueBoard& entry) { return entry.name; });
    if (board < catalogue_.boards.size()) system.board = catalogue_.boards[board];
    system.board.devices = read_count(reader, "devices", 1);
    system.board.cards = read_count(reader, "cards", 1);
    if (system.board.devices > system.board.max_devices)
      reader.problem(problem("more devices than the board holds", "devices", std::to_string(system.board.max_devices),
                             std::to_string(system.board.devices)));
    if (reader.has("nodes")) system.nodes = read_count(reader, "nodes", 1);
    if (reader.has("cores")) system.board.cores = read_cores(reader);
    if (reader.has("host_memory_bytes")) system.board.host_memory = read_bytes(reader, "host_memory_bytes");
    for (const char* optional : {"nodes", "cores", "host_memory_bytes"}) reader.any(optional);
    catalogue_.systems.push_back(std::move(system));
  }

  /// Index of the entry that the string `key` names; 0 with a problem when there is none.
  template <class Entries, class NameOf>
  static std::size_t find(JsonReader& reader, const std::string& key, const Entries& entries, NameOf name_of) {
    const std::string name = reader.string(key);
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (name_of(entries[i]) == name) return i;
    }
    if (reader.has(key)) reader.problem(problem("no entry of that name", key, "one of the catalogue", name));
    return 0;
  }

  Catalogue catalogue_;
  std::map<std::string, LinkClass> links_;
  std::map<std::string, std::vector<MatmulRate>> shapes_;  // rates of 1 FLOP/s at best
  std::set<std::string> names_;
  std::vector<Error> problems_;
};

}  // namespace

Result<Catalogue> read_catalogue(std::string_view devices, std::string_view nodes, std::string_view networks) {
  return CatalogueReader().read(devices, nodes, networks);
}

const Catalogue& builtin_catalogue() {
  static const Result<Catalogue> catalogue =
      read_catalogue(catalogue_devices_text(), catalogue_nodes_text(), catalogue_networks_text());
  COX_ENSURE(catalogue.has_value(), to_text(catalogue.error()));
  return *catalogue;
}

}  // namespace coxswain::cluster
