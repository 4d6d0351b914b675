#pragma once
// A real `launch` with a worker that speaks the protocol and fails on demand (fake_worker.cpp), and what it leaves.
// Used by the process tests.
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "cluster/profile.h"
#include "common/bytes_io.h"
#include "common/env.h"
#include "common/json.h"
#include "launcher/control/event_queue.h"
#include "launcher/control/spawner.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

namespace coxswain::launcher {

inline std::filesystem::path program(const std::string& name) {
  return std::filesystem::path(env("COX_BINARY_DIR").value_or(".")) / "bin" / name;
}

/// Runs (not a zombie that nobody has reaped yet).
inline bool alive(int pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  std::getline(in, text);
  const auto name_end = text.rfind(')');
  return name_end != std::string::npos && name_end + 2 < text.size() && text[name_end + 2] != 'Z';
}

inline std::vector<int> children_of(int pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/task/" + std::to_string(pid) + "/children");
  std::vector<int> pids;
  int child = 0;
  while (in >> child) pids.push_back(child);
  return pids;
}

inline std::string command_line(int pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/cmdline");
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

inline int count_lines(const std::filesystem::path& file) {
  std::ifstream in(file);
  int count = 0;
  std::string line;
  while (std::getline(in, line)) ++count;
  return count;
}

inline std::vector<Json> read_lines(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::vector<Json> objects;
  std::string line;
  while (std::getline(in, line)) objects.push_back(*parse_json(line));
  return objects;
}

inline int free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  REQUIRE(::bind(socket, reinterpret_cast<sockaddr*>(&address), size) == 0);
  REQUIRE(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  ::close(socket);
  return ntohs(address.sin_port);
}

/// A thread of it waits for this signal: all of its threads block it.
inline bool handles(int pid, int signal) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("SigBlk:")) return ((std::stoull(line.substr(7), nullptr, 16) >> (signal - 1)) & 1U) != 0;
  return false;
}

/// A job on a tiny model, over two ranks.
class Scene {
 public:
  explicit Scene(const std::string& fake = "", int steps = 20, const std::string& width = "32",
                 const std::string& rest = "plan: {data: 2, pipeline: 1}\nelastic: {max_restarts: 0}\n") {
    std::ofstream(folder / "text.txt") << std::string(4000, 'a');
    std::ofstream(folder / "job.yaml") << "name: scene\n"
                                          "model: {config: {model_type: gpt2, n_layer: 2, n_head: 2, n_embd: "
                                       << width
                                       << ", vocab_size: 256, n_positions: 16}}\n"
                                          "data: {text: text.txt, sequence_length: 16, seed: 1}\n"
                                          "batch: {global: 4}\n"
                                          "train: {steps: "
                                       << steps << ", seed: 1, log_every: 5}\n"
                                       << rest << "environment: {COX_FAKE: \"" << fake << "\"}\n";
  }

  int start(std::vector<std::string> more = {}, const std::string& name = "launch") {
    SpawnRequest request;
    request.program = program("launch");
    request.arguments = {"train", (folder / "job.yaml").string(), "--run-dir", run().string()};
    if (std::find(more.begin(), more.end(), "--devices") == more.end()) more.insert(more.end(), {"--devices", "2xcpu"});
    request.arguments.insert(request.arguments.end(), more.begin(), more.end());
    request.environment = {{"COX_WORKER", program("fake_worker").string()}, {"TMPDIR", folder.path().string()}};
    request.stdout_file = folder / (name + ".out");
    request.stderr_file = folder / (name + ".err");
    const auto pid = spawner->spawn(request);
    REQUIRE(pid);
    return *pid;
  }
  /// Exit code, or 128 + signal.
  int wait(int pid) {
    const Deadline deadline = Deadline::after(steady_clock(), Seconds(60));
    while (!ended.contains(pid)) {
      const auto exit = exits.pop(deadline.at);
      REQUIRE(exit);
      ended[exit->pid] = exit->signalled ? 128 + exit->number : exit->number;
    }
    return ended[pid];
  }
  template <class Condition>
  void await(Condition condition) {
    const Deadline deadline = Deadline::after(steady_clock(), Seconds(60));
    while (!condition()) {
      REQUIRE_FALSE(deadline.passed(steady_clock()));
      if (auto exit = exits.pop(Deadline::after(steady_clock(), Seconds(0.02)).at))
        ended[exit->pid] = exit->signalled ? 128 + exit->number : exit->number;
    }
  }
  /// Training has begun and stands after step 3.
  void await_steps() {
    await([&] { return count_lines(run() / "metrics.jsonl") >= 3; });
  }
  [[nodiscard]] std::vector<int> everybody(int launch) const {
    std::vector<int> all{launch};
    for (std::size_t i = 0; i < all.size(); ++i) {
      const auto children = children_of(all[i]);
      all.insert(all.end(), children.begin(), children.end());
    }
    return all;
  }
  [[nodiscard]] int find(const std::vector<int>& pids, const std::string& word) const {
    for (int pid : pids) {
      if (command_line(pid).find(word) != std::string::npos) return pid;
    }
    return -1;
  }
  void none_remains(const std::vector<int>& pids) {
    await([&] { return std::none_of(pids.begin(), pids.end(), alive); });
  }
  void nothing_in_temporary_folder() {
    for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
      CHECK(entry.path().filename().string().rfind("coxswain-", 0) != 0);
  }
  [[nodiscard]] std::string err(const std::string& name = "launch") const {
    return read_file(folder / (name + ".err")).value_or("");
  }
  [[nodiscard]] std::string out(const std::string& name = "launch") const {
    return read_file(folder / (name + ".out")).value_or("");
  }
  [[nodiscard]] std::filesystem::path run() const { return folder / "run"; }
  [[nodiscard]] std::vector<Json> events(const std::string& type) const {
    std::vector<Json> found;
    for (const Json& event : read_lines(run() / "events.jsonl")) {
      if (event["type"].string() == type) found.push_back(event);
    }
    return found;
  }

  TempDir folder;
  EventQueue<ProcessExit> exits;
  std::map<int, int> ended;
  std::unique_ptr<Spawner> spawner = make_process_spawner([this](const ProcessExit& exit) { exits.push(exit); });
};

/// Ranks stand at a named pipe ("pause:PIPE" of fake_worker) until it is opened, and pass from then on.
class Gate {
 public:
  explicit Gate(const std::string& name)
      : pipe_(std::filesystem::temp_directory_path() / (name + "-" + std::to_string(::getpid()))) {
    std::filesystem::remove(pipe_);
    REQUIRE(::mkfifo(pipe_.c_str(), 0600) == 0);
  }
  ~Gate() {
    if (descriptor_ >= 0) ::close(descriptor_);
    std::filesystem::remove(pipe_);
  }
  void open() { descriptor_ = ::open(pipe_.c_str(), O_RDWR | O_CLOEXEC); }
  /// `after`: step; "": the third.
  [[nodiscard]] std::string fake(const std::string& after = "") const { return "pause" + after + ":" + pipe_.string(); }

 private:
  std::filesystem::path pipe_;
  int descriptor_ = -1;
};

inline int mode_of(const std::filesystem::path& path) {
  struct stat status{};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return static_cast<int>(status.st_mode & 0777);
}

}  // namespace coxswain::launcher
