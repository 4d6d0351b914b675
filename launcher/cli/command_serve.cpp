// launch serve: plans and jobs over REST, and the page.
#include <CLI/CLI.hpp>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <thread>
#include <utility>

#include "launcher/cli/command.h"
#include "launcher/control/event_queue.h"
#include "launcher/control/liveness.h"
#include "launcher/control/local_start.h"
#include "launcher/control/signals.h"
#include "launcher/rest/http_server.h"
#include "launcher/rest/service.h"

namespace coxswain::launcher {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string listen = "127.0.0.1:8080";
  std::string state = "coxswain-state";
  std::string root, token_file, certificate, key, client_ca, local_addr;
  std::vector<std::string> names;
  int threads = 0, run_port = 29400;
};

constexpr double kDrainSeconds = 30, kLookSeconds = 0.1;

Result<void> make_folder(const fs::path& folder) {
  std::error_code code;
  // The mode of one that was there is its owner's affair.
  if (fs::create_directories(folder, code)) fs::permissions(folder, fs::perms::owner_all, code);
  if (!code) return {};
  return Error{
      ErrorCode::FailedPrecondition, "cannot make a folder", folder.string(), "a folder of ours", code.message(),
      "name another --state"};
}

/// One service for a state folder: two would run its jobs twice. Held until the process ends.
class StateLock {
 public:
  /// Errors: FailedPrecondition (another service has it).
  static Result<StateLock> take(const fs::path& file) {
    StateLock lock(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (lock.descriptor_ >= 0 && ::flock(lock.descriptor_, LOCK_EX | LOCK_NB) == 0) return lock;
    return Error{ErrorCode::FailedPrecondition, "cannot have the state folder",
                 file.parent_path().string(),   "one service for it",
                 std::strerror(errno),          "end the other `launch serve`, or name another --state"};
  }
  StateLock(StateLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  StateLock& operator=(StateLock&&) = delete;
  ~StateLock() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }

 private:
  explicit StateLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

/// What a Host header may say. An address that stands for all of this machine's leaves only the names that were given.
std::vector<std::string> served_hosts(const Options& options, int port) {
  const std::string host = options.listen.substr(0, options.listen.rfind(':')), at = ":" + std::to_string(port);
  const bool is_default = port == (options.certificate.empty() ? 80 : 443);  // clients leave it out
  std::vector<std::string> hosts;
  const auto add = [&](std::string name, bool bare) {
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    hosts.push_back(name + at);
    if (bare) hosts.push_back(name);
  };
  add(host, is_default);
  if (host == "127.0.0.1" || host == "[::1]") add("localhost", is_default);
  for (const std::string& name : options.names) add(name, true);  // a proxy may have another port
  return hosts;
}

/// Where other nodes reach this machine; empty: it listens at all of its addresses, and which one is not said.
std::string run_host(const Options& options) {
  if (!options.local_addr.empty()) return options.local_addr;
  std::string host = options.listen.substr(0, options.listen.rfind(':'));
  return host == "0.0.0.0" || host == "[::]" ? "" : host;
}

/// Descriptors for `connections`, and some for files; how many connections there may be then.
int allow_descriptors(int connections) {
  constexpr int kFiles = 64;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return connections;
  const auto wanted = static_cast<rlim_t>(connections + kFiles);
  if (limit.rlim_cur < wanted) {
    limit.rlim_cur = std::min(wanted, limit.rlim_max);
    static_cast<void>(::setrlimit(RLIMIT_NOFILE, &limit));
  }
  return limit.rlim_cur > kFiles ? static_cast<int>(std::min<rlim_t>(limit.rlim_cur, wanted)) - kFiles : 1;
}

void tell_tokens(const std::vector<Tokens::NewToken>& made, const fs::path& file) {
  if (made.empty()) return;
  std::printf("tokens, told this once (%s keeps their hashes):\n", file.c_str());
  for (const Tokens::NewToken& token : made)
    std::printf("  %-5s %s\n", std::string(to_text(token.scope)).c_str(), token.text.c_str());
}

Result<ExitCode> run(const Options& options) {
  if (options.certificate.empty() != options.key.empty())
    return usage_error("TLS needs a certificate and its key", "--tls-cert FILE --tls-key FILE", "one of them",
                       "name both, or neither");
  if (!options.client_ca.empty() && options.certificate.empty())
    return usage_error("clients show certificates over TLS alone", "--tls-cert and --tls-key beside --tls-client-ca",
                       "neither", "");
  EventQueue<int> signals;
  const SignalWatcher watcher([&signals](int number) { signals.push(number); });
  const fs::path state = fs::absolute(options.state);
  COX_TRY_VOID(make_folder(state));
  COX_TRY_VOID(make_folder(state / "models"));
  COX_TRY_VOID(make_folder(state / "jobs"));
  COX_TRY(const StateLock lock, StateLock::take(state / "lock"));
  std::error_code code;
  if (!options.root.empty() && !fs::is_directory(options.root, code))
    return usage_error("--root is no folder", "a folder whose files jobs may name", options.root, "");
  // The server knows its port first; the service is there before anything is asked of it.
  std::unique_ptr<Service> service;
  const HttpHandler handler{
      [&service](const HttpRequest& head) { return service->admit(head); },
      [&service](HttpRequest request, Reply reply) { service->handle(std::move(request), std::move(reply)); }};
  HttpLimits limits;
  limits.connections = std::min(limits.connections, allow_descriptors(limits.connections));
  COX_TRY(const auto server,
          make_http_server({options.listen, options.certificate, options.key, limits, options.client_ca}, handler));
  // Only now: tokens that a start that failed had made would never be told.
  const fs::path token_file = options.token_file.empty() ? state / "tokens.json" : fs::path(options.token_file);
  std::vector<Tokens::NewToken> made;
  COX_TRY(Tokens tokens, Tokens::open(token_file, made));
  ServiceOptions service_options;
  service_options.files = {options.root.empty() ? fs::path() : fs::absolute(options.root), state / "models"};
  service_options.hosts = served_hosts(options, server->port());
  service_options.tls = !options.certificate.empty();
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  service_options.searches.threads = options.threads > 0 ? options.threads : std::max(1, cores - 1);
  COX_TRY(std::vector<JobRecord> records, load_job_records(state / "jobs"));
  JobRunner::Options runner_options;
  runner_options.folder = state / "jobs";
  runner_options.program = own_program();
  runner_options.host = run_host(options);
  runner_options.tells_host = !options.local_addr.empty();
  runner_options.port = options.run_port;
  auto runner = std::make_unique<JobRunner>(runner_options, steady_clock(), std::move(records), make_process_spawner);
  auto jobs = std::make_unique<Jobs>(service_options.files, steady_clock(), std::move(runner));
  service = std::make_unique<Service>(std::move(service_options), std::move(tokens), steady_clock(), std::move(jobs));
  server->start();

  tell_tokens(made, token_file);
  std::printf("serving %s://%s:%d\n", options.certificate.empty() ? "http" : "https",
              options.listen.substr(0, options.listen.rfind(':')).c_str(), server->port());
  std::fflush(stdout);
  const auto number = signals.pop(Deadline::never().at);
  std::fprintf(stderr, "signal %d: answering what was asked; a second one ends at once\n", number.value_or(0));
  service->drain();
  server->drain(Deadline::after(steady_clock(), Seconds(kDrainSeconds)));
  {
    const std::jthread second([&](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        if (!signals.pop(after(steady_clock().now(), kLookSeconds))) continue;
        service->drain();
        return server->drain(Deadline::after(steady_clock(), Seconds(0)));
      }
    });
    server->wait();
    service->wait();
  }
  service.reset();  // before the server: its answers go there
  return ExitCode::Done;
}

}  // namespace

void add_serve_command(CLI::App& app, Action& action) {
  auto* command =
      app.add_subcommand("serve", "plans and jobs over REST, and the plan explorer: for programs and pages");
  auto options = std::make_shared<Options>();
  command->add_option("--listen", options->listen, "ADDRESS:PORT; port 0: any that is free")->capture_default_str();
  command->add_option("--state", options->state, "folder for tokens, models that are sent, and jobs")
      ->capture_default_str();
  command->add_option("--root", options->root, "folder whose files jobs may name; default: none");
  command->add_option("--token-file", options->token_file,
                      "hashes of the tokens that may ask; made where it is not there. Default: tokens.json in --state");
  command->add_option("--tls-cert", options->certificate, "PEM file of the server's certificate and its chain");
  command->add_option("--tls-key", options->key, "PEM file of its key");
  command->add_option("--tls-client-ca", options->client_ca,
                      "PEM file of those who sign clients' certificates: a client without a valid one is not heard");
  command
      ->add_option("--name", options->names,
                   "repeatable: another name of this server, that a Host header may say; needed behind a proxy, and "
                   "with --listen 0.0.0.0")
      ->take_all();
  command
      ->add_option("--run-port", options->run_port,
                   "where the coordinator of a job with several nodes listens, at --local-addr")
      ->check(CLI::Range(1, 65535))
      ->capture_default_str();
  command->add_option("--local-addr", options->local_addr,
                      "address that nodes of other machines reach this one by; default: that of --listen");
  command->add_option("--threads", options->threads, "threads that search; default: one core less than there are")
      ->check(CLI::Range(1, 256));
  command->callback([&action, options] { action = [options] { return run(*options); }; });
}

}  // namespace coxswain::launcher
