#include "launcher/control/spawner.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <fstream>
#include <mutex>
#include <set>
#include <sstream>
#include <thread>

#include "common/env.h"

namespace coxswain::launcher {
namespace {

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  [[nodiscard]] int number() const { return number_; }
  void reset() { *this = Descriptor(); }

 private:
  int number_ = -1;
};

Error system_error(std::string message, std::string path, int number) {
  return Error{ErrorCode::FailedPrecondition, std::move(message), std::move(path), "", std::strerror(number), ""};
}

/// Memory that reads as a file of `text`: no limit as a pipe has, nothing on disk.
Result<Descriptor> text_descriptor(const std::string& text) {
  Descriptor memory(::memfd_create("coxswain", MFD_CLOEXEC));
  if (memory.number() < 0) return system_error("cannot make a memory file", "", errno);
  std::size_t written = 0;
  while (written < text.size()) {
    const ssize_t n = ::write(memory.number(), text.data() + written, text.size() - written);
    if (n < 0) return system_error("cannot write a memory file", "", errno);
    written += static_cast<std::size_t>(n);
  }
  ::lseek(memory.number(), 0, SEEK_SET);
  return memory;
}

Result<Descriptor> log_descriptor(const std::filesystem::path& file) {
  std::error_code ignored;
  std::filesystem::create_directories(file.parent_path(), ignored);
  Descriptor log(::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600));
  if (log.number() < 0) return system_error("cannot make a log file", file.string(), errno);
  return log;
}

/// All that the child needs, prepared before fork: between fork and exec only async-signal-safe calls are allowed.
struct ChildPlan {
  const char* program = nullptr;
  std::vector<char*> arguments, environment;
  int in = -1, out = -1, error = -1, key = -1, report = -1;
  const char* tasks_file = nullptr;
  const cpu_set_t* cpus = nullptr;
  pid_t parent = 0;
};

[[noreturn]] void fail_child(int report, int number) {
  const ssize_t ignored = ::write(report, &number, sizeof number);
  (void)ignored;
  ::_exit(127);
}

void write_own_pid(const ChildPlan& plan) {
  const int file = ::open(plan.tasks_file, O_WRONLY);
  if (file < 0) fail_child(plan.report, errno);
  char digits[16];
  int length = 0;
  for (pid_t rest = ::getpid(); rest > 0; rest /= 10) digits[length++] = static_cast<char>('0' + rest % 10);
  for (int i = 0; i < length / 2; ++i) {
    const char other = digits[i];
    digits[i] = digits[length - 1 - i];
    digits[length - 1 - i] = other;
  }
  if (::write(file, digits, static_cast<std::size_t>(length)) != length) fail_child(plan.report, errno);
  ::close(file);
}

[[noreturn]] void run_child(ChildPlan& plan) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != plan.parent) ::_exit(127);  // the parent ended before the line above
  ::setpgid(0, 0);  // a Ctrl-C at the terminal reaches `launch train` alone, which stops the rest in order
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  struct sigaction standard{};
  standard.sa_handler = SIG_DFL;
  for (int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGQUIT, SIGPIPE, SIGCHLD})
    sigaction(number, &standard, nullptr);
  if (plan.tasks_file != nullptr) write_own_pid(plan);
  if (plan.cpus != nullptr && ::sched_setaffinity(0, sizeof(cpu_set_t), plan.cpus) != 0) fail_child(plan.report, errno);
  // Our descriptors lie high (moved there by the parent), so that no dup2 overwrites one that is still needed.
  if (::dup2(plan.in, 0) < 0) fail_child(plan.report, errno);
  if (plan.out >= 0 && ::dup2(plan.out, 1) < 0) fail_child(plan.report, errno);
  if (plan.error >= 0 && ::dup2(plan.error, 2) < 0) fail_child(plan.report, errno);
  if (plan.key >= 0 && ::dup2(plan.key, kKeyDescriptor) < 0) fail_child(plan.report, errno);
  const unsigned first_closed = plan.key >= 0 ? kKeyDescriptor + 1 : kKeyDescriptor;
  ::syscall(SYS_close_range, first_closed, ~0U, 1U << 2);  // CLOSE_RANGE_CLOEXEC: the report pipe must last until exec
  ::execve(plan.program, plan.arguments.data(), plan.environment.data());
  fail_child(plan.report, errno);
}

/// `descriptor` moved to number 10 or above.
Descriptor lift(Descriptor descriptor) {
  if (descriptor.number() < 0 || descriptor.number() >= 10) return descriptor;
  return Descriptor(::fcntl(descriptor.number(), F_DUPFD_CLOEXEC, 10));
}

class ProcessSpawner final : public Spawner {
 public:
  explicit ProcessSpawner(std::function<void(const ProcessExit&)> on_exit)
      : on_exit_(std::move(on_exit)), reaper_([this] { reap_all(); }) {}

  ~ProcessSpawner() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      for (int pid : alive_) ::kill(-pid, SIGKILL);
    }
    changed_.notify_all();
  }

  Result<int> spawn(const SpawnRequest& request) override {
    ChildPlan plan;
    Descriptor in, out, error, key;
    if (request.stdin_text) {
      COX_TRY(in, text_descriptor(*request.stdin_text));
    } else {
      in = Descriptor(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    }
    if (request.key) {
      COX_TRY(key, text_descriptor(*request.key));
    }
    if (!request.stdout_file.empty()) {
      COX_TRY(out, log_descriptor(request.stdout_file));
    } else if (request.stdout_descriptor >= 0) {
      out = Descriptor(::fcntl(request.stdout_descriptor, F_DUPFD_CLOEXEC, 10));
    }
    if (!request.stderr_file.empty()) {
      COX_TRY(error, log_descriptor(request.stderr_file));
    }
    in = lift(std::move(in));
    out = lift(std::move(out));
    error = lift(std::move(error));
    key = lift(std::move(key));
    plan.in = in.number();
    plan.out = out.number();
    plan.error = error.number();
    plan.key = key.number();

    std::map<std::string, std::string> environment = all_env();
    for (const auto& [name, value] : request.environment) environment[name] = value;
    if (request.key) environment["COX_KEY_FD"] = std::to_string(kKeyDescriptor);
    std::vector<std::string> texts{request.program.string()};
    texts.insert(texts.end(), request.arguments.begin(), request.arguments.end());
    const std::size_t num_arguments = texts.size();
    for (const auto& [name, value] : environment) texts.push_back(name + "=" + value);
    for (std::size_t i = 0; i < texts.size(); ++i)
      (i < num_arguments ? plan.arguments : plan.environment).push_back(texts[i].data());
    plan.arguments.push_back(nullptr);
    plan.environment.push_back(nullptr);
    plan.program = texts.front().c_str();
    if (!request.tasks_file.empty()) plan.tasks_file = request.tasks_file.c_str();
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    for (int cpu : request.cpus) CPU_SET(cpu, &cpus);
    if (!request.cpus.empty()) plan.cpus = &cpus;
    return start(plan);
  }

  void send_signal(int pid, int signal) override {
    const std::lock_guard lock(mutex_);
    if (!alive_.contains(pid)) return;
    // Before the child has made its group, the signal to the group finds nobody.
    if (::kill(-pid, signal) != 0) ::kill(pid, signal);
  }

  std::optional<std::int64_t> stopped_at(int pid) const override {
    // pid (name) state ...; a name may hold anything, brackets too.
    constexpr int kBetween = 10;  // fields from the state to the ticks in user mode, which those of the system follow
    std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
    std::string status;
    std::getline(file, status);
    const std::size_t name_end = status.rfind(')');
    if (name_end == std::string::npos || status.compare(name_end + 1, 2, " T") != 0) return std::nullopt;
    std::istringstream fields(status.substr(name_end + 3));
    std::string other;
    for (int field = 0; field < kBetween; ++field) fields >> other;
    std::int64_t user = 0, system = 0;
    fields >> user >> system;
    return user + system;
  }

 private:
  Result<int> start(ChildPlan& plan) {
    int pipe_ends[2];
    if (::pipe2(pipe_ends, O_CLOEXEC) != 0) return system_error("cannot make a pipe", "", errno);
    Descriptor reading(pipe_ends[0]);
    Descriptor writing = lift(Descriptor(pipe_ends[1]));
    plan.report = writing.number();
    plan.parent = ::getpid();
    pid_t pid = -1;
    {
      // Held until the child is known: the reaper would not know it otherwise.
      const std::lock_guard lock(mutex_);
      pid = ::fork();
      if (pid == 0) run_child(plan);
      if (pid < 0) return system_error("cannot start a process", plan.program, errno);
      alive_.insert(pid);
    }
    changed_.notify_all();
    writing.reset();
    int number = 0;
    const ssize_t reported = ::read(reading.number(), &number, sizeof number);
    if (reported == static_cast<ssize_t>(sizeof number))
      return system_error("cannot start a process", plan.program, number);
    return static_cast<int>(pid);
  }

  void reap_all() {
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stopping_ || !alive_.empty(); });
        if (alive_.empty()) return;
      }
      siginfo_t info{};
      if (::waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) != 0) {
        if (errno == EINTR) continue;
        const std::lock_guard lock(mutex_);
        alive_.clear();
        continue;
      }
      ProcessExit exit{info.si_pid, info.si_code != CLD_EXITED, info.si_status};
      {
        // Reaped under the lock, so that send_signal never hits a pid that was given to somebody else.
        const std::lock_guard lock(mutex_);
        ::waitid(P_PID, static_cast<id_t>(info.si_pid), &info, WEXITED);
        alive_.erase(exit.pid);
      }
      on_exit_(exit);
    }
  }

  std::function<void(const ProcessExit&)> on_exit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<int> alive_;
  bool stopping_ = false;
  std::jthread reaper_;
};

}  // namespace

std::unique_ptr<Spawner> make_process_spawner(std::function<void(const ProcessExit&)> on_exit) {
  return std::make_unique<ProcessSpawner>(std::move(on_exit));
}

}  // namespace coxswain::launcher
