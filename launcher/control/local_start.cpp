#include "launcher/control/local_start.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <iterator>
#include <limits>

#include "common/bytes_io.h"
#include "common/env.h"

namespace coxswain::launcher {
namespace {

const char* to_text(RunMode mode) {
  switch (mode) {
    case RunMode::Train: return "train";
    case RunMode::Probe: return "probe";
    case RunMode::Check: return "check";
  }
  return "train";
}

void add_secret(JsonObject& object, const proto::Secret& secret) {
  object["secret"] = secret.text;
  object["is_token"] = secret.is_token;
}

proto::Secret read_secret(JsonReader& reader) { return {reader.string("secret"), reader.boolean("is_token")}; }

}  // namespace

Json to_json(const AgentStart& start) {
  JsonObject object{{"coordinator", start.coordinator},
                    {"devices", start.devices},
                    {"processes_per_node", start.processes_per_node},
                    {"node_rank", start.node_rank},
                    {"local_addr", start.local_addr},
                    {"log_dir", start.log_dir.string()},
                    {"scratch_dir", start.scratch_dir.string()},
                    {"worker_program", start.worker_program.string()},
                    {"metrics", start.metrics},
                    {"tee", start.tee},
                    {"local", start.local},
                    {"join_timeout_seconds", start.join_timeout_seconds}};
  add_secret(object, start.secret);
  return object;
}

Result<AgentStart> agent_start_from_json(const Json& json) {
  JsonReader reader(json, "agent");
  AgentStart start;
  start.coordinator = reader.string("coordinator");
  start.secret = read_secret(reader);
  start.devices = reader.string("devices");
  start.processes_per_node = static_cast<int>(reader.integer("processes_per_node", 0, 1 << 20));
  start.node_rank = static_cast<int>(reader.integer("node_rank", -1, 1 << 20));
  start.local_addr = reader.string("local_addr");
  start.log_dir = reader.string("log_dir");
  start.scratch_dir = reader.string("scratch_dir");
  start.worker_program = reader.string("worker_program");
  start.metrics = reader.string("metrics");
  start.tee = reader.boolean("tee");
  start.local = reader.boolean("local");
  start.join_timeout_seconds = reader.number("join_timeout_seconds");
  COX_TRY_VOID(reader.finish());
  return start;
}

Json to_json(const CoordinatorStart& start) {
  JsonArray constraints;
  for (const auto& text : start.constraints) constraints.push_back(text);
  JsonArray rejected;
  for (const auto& text : start.rejected) rejected.push_back(text);
  JsonObject object{{"mode", to_text(start.mode)},
                    {"listen", start.listen},
                    {"run_id", start.run_id},
                    {"num_nodes", start.num_nodes},
                    {"max_nodes", start.max_nodes},
                    {"join_timeout_seconds", start.join_timeout_seconds},
                    {"shutdown_timeout_seconds", start.shutdown_timeout_seconds},
                    {"backend", start.backend},
                    {"run_dir", start.run_dir.string()},
                    {"job_file", start.job_file},
                    {"job_text", start.job_text},
                    {"constraints", std::move(constraints)},
                    {"plan_file", start.plan_file.string()},
                    {"cluster_file", start.cluster_file.string()},
                    {"profile_file", start.profile_file.string()},
                    {"pt2", start.pt2.string()},
                    {"first_traced_step", start.trace_steps.first},
                    {"last_traced_step", start.trace_steps.last},
                    {"checkpoint_directory", start.checkpoint_directory.string()},
                    {"resume_from", start.resume_from.string()},
                    {"resume_step", start.resume_step},
                    {"resume_asks_nodes", start.resume_asks_nodes},
                    {"model_hash", start.model_hash},
                    {"max_restarts", start.max_restarts},
                    {"min_nodes", start.min_nodes},
                    {"rejected", std::move(rejected)}};
  object["began_nanoseconds"] = static_cast<std::int64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(start.began.time_since_epoch()).count());
  add_secret(object, start.secret);
  return object;
}

Result<CoordinatorStart> coordinator_start_from_json(const Json& json) {
  JsonReader reader(json, "coordinator");
  CoordinatorStart start;
  const std::string mode = reader.string("mode");
  start.mode = mode == "probe" ? RunMode::Probe : mode == "check" ? RunMode::Check : RunMode::Train;
  start.listen = reader.string("listen");
  start.secret = read_secret(reader);
  start.run_id = reader.string("run_id");
  start.num_nodes = static_cast<int>(reader.integer("num_nodes", 1, 1 << 20));
  start.max_nodes = static_cast<int>(reader.integer("max_nodes", 0, 1 << 20));
  start.join_timeout_seconds = reader.number("join_timeout_seconds");
  start.shutdown_timeout_seconds = reader.number("shutdown_timeout_seconds");
  start.backend = reader.string("backend");
  start.run_dir = reader.string("run_dir");
  start.job_file = reader.string("job_file");
  start.job_text = reader.string("job_text");
  for (const Json& text : reader.array("constraints")) start.constraints.push_back(text.string());
  start.plan_file = reader.string("plan_file");
  start.cluster_file = reader.string("cluster_file");
  start.profile_file = reader.string("profile_file");
  start.pt2 = reader.string("pt2");
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  start.trace_steps.first = reader.integer("first_traced_step", 0, kMost);
  start.trace_steps.last = reader.integer("last_traced_step", -1, kMost);
  start.checkpoint_directory = reader.string("checkpoint_directory");
  start.resume_from = reader.string("resume_from");
  start.began = TimePoint(std::chrono::nanoseconds(reader.integer("began_nanoseconds", 0, kMost)));
  start.max_restarts = static_cast<int>(reader.integer("max_restarts", 0, 1 << 20));
  start.min_nodes = static_cast<int>(reader.integer("min_nodes", 1, 1 << 20));
  start.resume_step = reader.integer("resume_step", 0, kMost);
  start.resume_asks_nodes = reader.boolean("resume_asks_nodes");
  start.model_hash = reader.string("model_hash");
  for (const Json& text : reader.array("rejected")) start.rejected.push_back(text.string());
  COX_TRY_VOID(reader.finish());
  return start;
}

Result<Json> read_request_from_stdin() {
  const std::string text{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  return parse_json(text);
}

Result<ScratchFolder> ScratchFolder::make() {
  std::string name = (std::filesystem::temp_directory_path() / "coxswain-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) {
    return Error{ErrorCode::FailedPrecondition,
                 "cannot make a temporary folder",
                 name,
                 "",
                 std::strerror(errno),
                 "set TMPDIR to a folder that can be written"};
  }
  ScratchFolder folder;
  folder.path_ = name;
  return folder;
}

ScratchFolder::~ScratchFolder() {
  if (path_.empty()) return;
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::filesystem::path own_program() {
  std::error_code ignored;
  return std::filesystem::read_symlink("/proc/self/exe", ignored);
}

Result<std::filesystem::path> find_worker_program(const std::filesystem::path& given) {
  const std::filesystem::path folder = own_program().parent_path();
  if (const auto named = env("COX_WORKER"); named && given.empty()) return find_worker_program(*named);
  std::vector<std::filesystem::path> candidates{folder / "worker",
                                                folder.parent_path() / "libexec" / "coxswain" / "worker"};
  if (!given.empty()) candidates = {given};
  for (const auto& candidate : candidates) {
    if (::access(candidate.c_str(), X_OK) == 0) return std::filesystem::absolute(candidate);
  }
  return Error{ErrorCode::FailedPrecondition,          "no worker program", candidates.front().string(),
               "the program `worker` beside `launch`", "nothing",           "make build, or make install"};
}

Result<std::string> address_towards(const std::string& endpoint) {
  const auto colon = endpoint.rfind(':');
  std::string host = endpoint.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const std::string port = colon == std::string::npos ? "29400" : endpoint.substr(colon + 1);
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;  // connecting a datagram socket sends nothing, it only chooses the route
  addrinfo* found = nullptr;
  if (const int code = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found); code != 0) {
    return Error{ErrorCode::FailedPrecondition,
                 "the coordinator's host is unknown",
                 endpoint,
                 "HOST:PORT",
                 ::gai_strerror(code),
                 "use an address"};
  }
  const int socket = ::socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_storage own{};
  socklen_t size = sizeof own;
  const bool routed = socket >= 0 && ::connect(socket, found->ai_addr, found->ai_addrlen) == 0 &&
                      ::getsockname(socket, reinterpret_cast<sockaddr*>(&own), &size) == 0;
  const int number = errno;
  if (socket >= 0) ::close(socket);
  ::freeaddrinfo(found);
  char text[NI_MAXHOST];
  if (!routed ||
      ::getnameinfo(reinterpret_cast<sockaddr*>(&own), size, text, sizeof text, nullptr, 0, NI_NUMERICHOST) != 0) {
    return Error{ErrorCode::FailedPrecondition,
                 "no route to the coordinator",
                 endpoint,
                 "",
                 std::strerror(number),
                 "give --local-addr"};
  }
  return std::string(text);
}

Result<std::string> read_token(const std::filesystem::path& file) {
  struct stat status{};
  if (::stat(file.c_str(), &status) == 0 && (status.st_mode & 077) != 0) {
    return Error{
        ErrorCode::PermissionDenied, "the token file can be read by others", file.string(), "mode 0600", "more",
        "chmod 600 " + file.string()};
  }
  COX_TRY(std::string text, read_file(file));
  text = text.substr(0, text.find_first_of("\r\n"));
  if (text.size() < 16) {
    return Error{ErrorCode::InvalidArgument,
                 "the token is too short",
                 file.string(),
                 "at least 16 characters in the first line",
                 std::to_string(text.size()),
                 "openssl rand -hex 32 > " + file.string()};
  }
  return text;
}

}  // namespace coxswain::launcher
