#include "collective/host/host_endpoint.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <list>
#include <new>

#include "collective/host/host_communicator.h"
#include "collective/host/socket.h"
#include "common/hash.h"
#include "common/json.h"

namespace coxswain::collective {
namespace {

constexpr char kRegionMagic[8] = {'C', 'O', 'X', 'R', 'E', 'G', '0', '1'};
// Strangers may connect as often as they like; more than these wait outside until one has proved itself or gone.
constexpr std::size_t kMaxAdmissions = 256;
constexpr int kMaxRanks = 4096;

std::string name_of(int world_rank) { return "rank " + std::to_string(world_rank); }

}  // namespace

std::string to_text(const HostAddress& address) {
  return to_text(Json(JsonObject{{"node", address.node}, {"tcp", address.tcp}, {"unix", address.unix_path}}));
}

Result<HostAddress> parse_host_address(const std::string& text) {
  COX_TRY(const Json json, parse_json(text));
  JsonReader reader(json, "address");
  HostAddress address;
  address.node = reader.string("node");
  address.tcp = reader.string("tcp");
  address.unix_path = reader.string("unix");
  COX_TRY_VOID(reader.finish());
  return address;
}

HostEndpoint::HostEndpoint(const EndpointOptions& options, Lineage lineage)
    : options_(options), lineage_(std::move(lineage)) {
  identity_ = {options.job_key, options.run_id, options.generation, lineage_.communicator, options.rank};
  address_.node = options.node;
  if (lineage_.world_ranks.empty()) {
    for (int rank = 0; rank < options.size; ++rank) lineage_.world_ranks.push_back(rank);
  }
  if (!lineage_.registered) lineage_.registered = std::make_shared<RegisteredMemory>();
}

HostEndpoint::~HostEndpoint() {
  std::error_code ignored;
  if (!address_.unix_path.empty()) std::filesystem::remove(address_.unix_path, ignored);
  if (!own_folder_.empty()) std::filesystem::remove(own_folder_, ignored);
}

Result<std::unique_ptr<HostEndpoint>> HostEndpoint::open(const EndpointOptions& options, Lineage lineage) {
  if (options.size < 1 || options.size > kMaxRanks || options.rank < 0 || options.rank >= options.size) {
    return Error{ErrorCode::InvalidArgument,
                 "no such rank",
                 "",
                 "0 <= rank < size <= " + std::to_string(kMaxRanks),
                 name_of(options.rank) + " of " + std::to_string(options.size),
                 ""};
  }
  if (options.size > 1 && options.job_key.empty()) {
    return Error{ErrorCode::FailedPrecondition,         "ranks cannot connect without the job's key", "", "", "",
                 "start workers through `launch train`"};
  }
  std::unique_ptr<HostEndpoint> endpoint(new HostEndpoint(options, std::move(lineage)));
  if (options.size > 1) COX_TRY_VOID(endpoint->listen());
  return endpoint;
}

Result<void> HostEndpoint::listen() {
  COX_TRY(tcp_listener_, listen_tcp(options_.local_addr));
  COX_TRY(address_.tcp, local_endpoint(tcp_listener_));
  // Where the kernel gives no shareable memory the ranks of a node talk TCP, too.
  if (!Mapping::make_memory(1)) return {};
  std::string folder = options_.scratch_dir;
  if (folder.empty()) {
    folder = (std::filesystem::temp_directory_path() / "coxswain-XXXXXX").string();
    if (::mkdtemp(folder.data()) == nullptr)
      return system_error(ErrorCode::FailedPrecondition, "cannot make a folder for sockets");
    own_folder_ = folder;
  }
  const std::string path = folder + "/rank" + std::to_string(options_.rank) + "-" + random_hex(8);
  COX_TRY(unix_listener_, listen_unix(path));
  address_.unix_path = path;
  return {};
}

bool HostEndpoint::shares_memory(int rank) const {
  const HostAddress& other = addresses_[static_cast<std::size_t>(rank)];
  return !address_.unix_path.empty() && !other.unix_path.empty() && other.node == address_.node;
}

Result<void> HostEndpoint::prepare(const std::vector<std::string>& addresses) {
  if (addresses.size() != static_cast<std::size_t>(options_.size)) {
    return Error{ErrorCode::InvalidArgument,    "one address per rank is needed", "",
                 std::to_string(options_.size), std::to_string(addresses.size()), ""};
  }
  addresses_.clear();
  for (const std::string& text : addresses) {
    COX_TRY(HostAddress address, parse_host_address(text));
    addresses_.push_back(std::move(address));
  }
  if (addresses_[static_cast<std::size_t>(options_.rank)] != address_) {
    return Error{ErrorCode::InvalidArgument,
                 "the address given for this rank is not its own",
                 name_of(options_.rank),
                 "",
                 "",
                 ""};
  }
  parts_ = {};
  parts_.rank = options_.rank;
  parts_.world_ranks = lineage_.world_ranks;
  parts_.num_local = 0;
  parts_.watcher = lineage_.watcher;
  for (int rank = 0; rank < options_.size; ++rank) {
    const bool local = rank == options_.rank || shares_memory(rank);
    const int local_index = local ? parts_.num_local++ : -1;
    if (rank == options_.rank) {
      parts_.local_index = local_index;
      parts_.peers.push_back(nullptr);
      continue;
    }
    auto peer = std::make_unique<Peer>();
    peer->rank = rank;
    peer->world_rank = lineage_.world_ranks[static_cast<std::size_t>(rank)];
    peer->local_index = local_index;
    parts_.peers.push_back(std::move(peer));
  }
  return {};
}

Result<void> HostEndpoint::make_region() {
  const std::size_t bytes = Region::bytes_for(parts_.num_local);
  // A rank without neighbours has a region, too: it holds the bell that its watcher rings.
  COX_TRY(memory_, Mapping::make_memory(bytes));
  COX_TRY(Mapping mapping, Mapping::map(memory_, bytes));
  auto* header = new (mapping.data()) RegionHeader{};
  std::memcpy(header->magic, kRegionMagic, sizeof(kRegionMagic));
  header->generation = options_.generation;
  header->rank = options_.rank;
  header->num_local = parts_.num_local;
  std::memcpy(header->scope, scope_of(identity_).data(), sizeof(header->scope));
  std::memcpy(header->nonce, random_hex(16).data(), sizeof(header->nonce));
  parts_.region = Region(std::move(mapping), parts_.num_local);
  parts_.event = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!parts_.event) return system_error(ErrorCode::ResourceExhausted, "cannot make an event descriptor");
  return {};
}

Result<void> HostEndpoint::map_region(Peer& peer, std::vector<UniqueFd> descriptors) {
  if (peer.local_index < 0) return {};
  const Error wrong{ErrorCode::FailedPrecondition,
                    name_of(peer.world_rank) + " passed memory that is not of this communicator",
                    "",
                    "",
                    "",
                    ""};
  if (descriptors.size() != 2) return wrong;
  COX_TRY(Mapping mapping, Mapping::map(descriptors[0], Region::bytes_for(parts_.num_local)));
  peer.region = Region(std::move(mapping), parts_.num_local);
  peer.event = std::move(descriptors[1]);
  const RegionHeader& header = peer.region.header();
  const bool right = std::memcmp(header.magic, kRegionMagic, sizeof(kRegionMagic)) == 0 &&
                     header.generation == options_.generation && header.rank == peer.rank &&
                     header.num_local == parts_.num_local &&
                     std::memcmp(header.scope, scope_of(identity_).data(), sizeof(header.scope)) == 0;
  return right ? Result<void>{} : wrong;
}

Result<void> HostEndpoint::connect_to(int rank, Deadline deadline) {
  Peer& peer = *parts_.peers[static_cast<std::size_t>(rank)];
  const HostAddress& address = addresses_[static_cast<std::size_t>(rank)];
  if (peer.local_index >= 0) {
    const std::array<int, 2> offered{memory_.value(), parts_.event.value()};
    std::vector<UniqueFd> taken;
    COX_TRY(peer.control, connect_unix(address.unix_path, deadline));
    COX_TRY_VOID(introduce(peer.control, identity_, rank, ConnectionKind::Control, offered, &taken, deadline));
    return map_region(peer, std::move(taken));
  }
  COX_TRY(peer.control, connect_tcp(address.tcp, deadline));
  COX_TRY_VOID(introduce(peer.control, identity_, rank, ConnectionKind::Control, {}, nullptr, deadline));
  COX_TRY(peer.data, connect_tcp(address.tcp, deadline));
  return introduce(peer.data, identity_, rank, ConnectionKind::Data, {}, nullptr, deadline);
}

bool HostEndpoint::complete(int rank) const {
  const Peer& peer = *parts_.peers[static_cast<std::size_t>(rank)];
  return peer.control && (peer.local_index >= 0 || peer.data);
}

Error HostEndpoint::still_missing(ErrorCode code) const {
  std::string names;
  for (int rank = options_.rank + 1; rank < options_.size; ++rank) {
    if (!complete(rank))
      names += (names.empty() ? "" : ", ") + std::to_string(lineage_.world_ranks[static_cast<std::size_t>(rank)]);
  }
  Error error{
      code,
      name_of(lineage_.world_ranks[static_cast<std::size_t>(options_.rank)]) + " was not connected to by rank " + names,
      "",
      "",
      "",
      ""};
  if (!refusals_.empty()) {
    error.code = refusals_.front().code;
    error.details = refusals_;
  }
  return error;
}

Result<void> HostEndpoint::take(Admission& admission) {
  const int rank = admission.from();
  if (rank <= options_.rank || rank >= options_.size || complete(rank)) return {};
  Peer& peer = *parts_.peers[static_cast<std::size_t>(rank)];
  if (admission.kind() == ConnectionKind::Data) {
    peer.data = admission.take_socket();
    tune_tcp(peer.data);
    return {};
  }
  peer.control = admission.take_socket();
  if (peer.local_index < 0) tune_tcp(peer.control);
  return map_region(peer, admission.take_descriptors());
}

Result<void> HostEndpoint::admit_higher_ranks(Deadline deadline) {
  const std::array<int, 2> offered{memory_.value(), parts_.event.value()};
  struct Candidate {
    Admission admission;
    bool is_local;
  };
  std::list<Candidate> candidates;
  const auto all_there = [&] {
    for (int rank = options_.rank + 1; rank < options_.size; ++rank) {
      if (!complete(rank)) return false;
    }
    return true;
  };
  while (!all_there()) {
    std::vector<pollfd> waited;
    for (const Candidate& candidate : candidates) waited.push_back({candidate.admission.socket(), POLLIN, 0});
    if (candidates.size() < kMaxAdmissions) {
      waited.push_back({tcp_listener_.value(), POLLIN, 0});
      if (unix_listener_) waited.push_back({unix_listener_.value(), POLLIN, 0});
    }
    ::poll(waited.data(), waited.size(), poll_timeout(deadline));
    for (const UniqueFd* listener : {&tcp_listener_, &unix_listener_}) {
      if (!*listener || candidates.size() >= kMaxAdmissions) continue;
      const bool is_local = listener == &unix_listener_;
      UniqueFd socket = accept_one(*listener);
      if (socket)
        candidates.push_back(
            {Admission(std::move(socket), identity_, is_local ? std::span<const int>(offered) : std::span<const int>()),
             is_local});
    }
    for (auto candidate = candidates.begin(); candidate != candidates.end();) {
      const auto status = candidate->admission.advance();
      if (status == Admission::Status::Waiting) {
        ++candidate;
        continue;
      }
      if (status == Admission::Status::Admitted) COX_TRY_VOID(take(candidate->admission));
      if (candidate->admission.reason()) refusals_.push_back(*candidate->admission.reason());
      candidate = candidates.erase(candidate);
    }
    if (deadline.passed(steady_clock()) && !all_there()) return still_missing(ErrorCode::DeadlineExceeded);
  }
  return {};
}

Result<std::unique_ptr<Communicator>> HostEndpoint::connect(const std::vector<std::string>& addresses,
                                                            Deadline deadline) {
  if (options_.size == 1) {
    parts_ = {};
    parts_.world_ranks = lineage_.world_ranks;
    parts_.peers.push_back(nullptr);
    return make_host_communicator(std::move(parts_), options_, lineage_);
  }
  COX_TRY_VOID(prepare(addresses));
  COX_TRY_VOID(make_region());
  if (!parts_.watcher) {
    COX_TRY(parts_.watcher, Watcher::start());
    lineage_.watcher = parts_.watcher;
  }
  for (int rank = 0; rank < options_.rank; ++rank) {
    auto connected = connect_to(rank, deadline);
    if (connected) continue;
    Error error = std::move(connected).error();
    if (error.path.empty()) error.path = name_of(lineage_.world_ranks[static_cast<std::size_t>(rank)]);
    return error;
  }
  COX_TRY_VOID(admit_higher_ranks(deadline));
  tcp_listener_.close();
  unix_listener_.close();
  memory_.close();
  return make_host_communicator(std::move(parts_), options_, lineage_);
}

}  // namespace coxswain::collective
