// A worker without libtorch for process tests: speaks the agent's protocol, makes up its numbers, and fails on demand.
// COX_FAKE, from the job's `environment`, says how: "RANK:STEP:ACTION" with ACTION = kill | segv | abort | exit3 |
// error | bad_input | exit0, or "hold" to stop stepping after step 3 until told to end, or
// "pause:PIPE" to stand there until someone writes to that named pipe, or "pause6000:PIPE" after step 6000. With "slow
// " before it, rank 1 tells that its actions take a hundred times as long as those of rank 0. Writes its pid to
// COX_FAKE_DIR/pid.RANK.
#include <fcntl.h>
#include <unistd.h>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <string_view>

#include "common/clock.h"
#include "common/env.h"
#include "common/json.h"
#include "proto/channel.h"
#include "proto/control.pb.h"
#include "proto/error_json.h"

namespace {

using namespace coxswain;

constexpr std::int64_t kHoldAfter = 3;
constexpr std::string_view kSlow = "slow ";

struct Fault {
  int rank = -1;
  std::int64_t step = 0;
  std::string action;
};

Fault parse_fault(const std::string& text) {
  const auto first = text.find(':');
  const auto second = text.find(':', first + 1);
  if (first == std::string::npos || second == std::string::npos) return {};
  return {std::atoi(text.c_str()), std::atoll(text.c_str() + first + 1), text.substr(second + 1)};
}

class FakeWorker {
 public:
  FakeWorker(proto::Stream& stream, int rank) : stream_(stream), rank_(rank) {}

  int run() {
    control::WorkerReport hello;
    hello.mutable_hello()->set_rank(rank_);
    hello.mutable_hello()->set_pid(::getpid());
    send(hello);
    control::WorkerCommand command;
    if (!receive(command) || !command.has_assignment()) return 1;
    const control::Assignment assignment = command.assignment();
    control::WorkerReport ready;
    ready.set_ready("address of rank " + std::to_string(rank_));
    send(ready);
    if (!receive(command) || !command.has_addresses() ||
        command.addresses().addresses_size() != assignment.work().world_size())
      return peer_lost();
    return assignment.work().mode() == control::MODE_TRAIN ? train(assignment) : measure();
  }

 private:
  void send(const control::WorkerReport& report) { stream_.send(report.SerializeAsString()); }
  bool receive(control::WorkerCommand& command) {
    const auto body = stream_.receive();
    return body && command.ParseFromString(*body);
  }

  int finish(int code) {
    stream_.close();
    while (stream_.receive()) {}
    return code;
  }
  int peer_lost() { return fail({ErrorCode::Unavailable, "a peer is gone", "", "", "", ""}, true); }
  int fail(const Error& error, bool peer) {
    std::cerr << to_text(error) << std::flush;
    control::WorkerReport report;
    report.mutable_failure()->set_error_json(proto::error_to_text(error));
    report.mutable_failure()->set_peer_lost(peer);
    send(report);
    return finish(1);
  }

  int measure() {
    control::WorkerReport report;
    auto& measured = *report.mutable_measured();
    auto& rate = *measured.add_matmul();
    rate.set_dtype("float32");
    rate.set_size(512);
    rate.set_flop_per_second(5e10);
    measured.set_memory_bytes_per_second(1e10);
    measured.set_launch_overhead_seconds(2e-6);
    if (rank_ == 0) {
      auto& link = *measured.add_links();
      link.set_from(0);
      link.set_to(1);
      link.set_latency_seconds(1e-5);
      link.set_bytes_per_second(4e9);
    }
    send(report);
    return end(0);
  }

  int end(std::int64_t step) {
    control::WorkerReport report;
    report.mutable_finished()->set_last_step(step);
    send(report);
    return finish(0);
  }

  int train(const control::Assignment& assignment) {
    std::string text = env("COX_FAKE").value_or("");
    const bool is_slow = text.starts_with(kSlow);
    if (is_slow) text.erase(0, kSlow.size());
    const Fault fault = parse_fault(text);
    if (const auto folder = env("COX_FAKE_DIR"))
      std::ofstream(*folder + "/pid." + std::to_string(rank_)) << ::getpid() << std::flush;
    std::cout << "rank " << env("RANK").value_or("") << " of " << env("WORLD_SIZE").value_or("") << std::endl;
    for (std::int64_t step = 1; step <= assignment.work().train().steps(); ++step) {
      if (fault.rank == rank_ && fault.step == step) return strike(fault.action);
      if (text.starts_with("pause") && step == pause_after(text) + 1) await_gate(text.substr(text.find(':') + 1));
      if ((text == "hold" || fault.rank >= 0) && step > kHoldAfter) return hold();
      control::WorkerReport report;
      auto& to = *report.mutable_step();
      to.set_step(step);
      to.set_loss(10.0 / static_cast<double>(step));
      to.set_grad_norm(1);
      to.set_learning_rate(1e-3);
      to.set_step_seconds(0.001 * (rank_ + 1));
      to.set_bubble_fraction(0.25);
      to.set_peak_memory_bytes(1000000 * (rank_ + 1));
      if (is_slow && is_looked_at(assignment.work(), step)) add_trace(assignment.work(), *to.mutable_trace());
      send(report);
    }
    return end(assignment.work().train().steps());
  }

  static bool is_looked_at(const control::Work& work, std::int64_t step) {
    for (const control::TraceSettings& look : work.looks())
      if (step >= look.first_step() && step <= look.last_step()) return true;
    return false;
  }

  /// All actions of the plan's only role, at once.
  void add_trace(const control::Work& work, control::StepTrace& trace) const {
    const auto plan = parse_json(work.plan_json());
    if (!plan) return;
    for (std::size_t i = 0; i < (*plan)["roles"].array().front()["actions"].array().size(); ++i) {
      trace.add_start_seconds(0);
      trace.add_end_seconds(rank_ == 1 ? 0.1 : 0.001);
    }
  }

  static std::int64_t pause_after(const std::string& text) {
    const std::int64_t step = std::atoll(text.c_str() + 5);
    return step > 0 ? step : kHoldAfter;
  }

  /// Opening a pipe to read lasts until someone opens it to write.
  static void await_gate(const std::string& pipe) {
    const int descriptor = ::open(pipe.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor >= 0) ::close(descriptor);
  }

  /// As a rank whose peer no longer answers: waits until the agent says so.
  int hold() {
    control::WorkerCommand command;
    while (receive(command)) {
      if (command.has_abort()) return peer_lost();
    }
    return 1;
  }

  int strike(const std::string& action) {
    std::cerr << "about to " << action << std::endl;
    if (action == "kill") std::raise(SIGKILL);
    if (action == "segv") {
      std::signal(SIGSEGV, SIG_DFL);
      std::raise(SIGSEGV);
    }
    if (action == "abort") std::abort();
    if (action == "exit3") std::_Exit(3);
    if (action == "exit0") std::_Exit(0);
    if (action == "bad_input")
      return fail({ErrorCode::InvalidArgument, "no kernel for operator aten::strange", "model.pt2", "", "", ""}, false);
    return fail({ErrorCode::Internal, "something impossible", "", "", "", ""}, false);
  }

  proto::Stream& stream_;
  int rank_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 64;
  std::string key(256, '\0');
  const ssize_t size = ::read(std::atoi(env("COX_KEY_FD").value_or("-1").c_str()), key.data(), key.size());
  key.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
  auto stream =
      proto::connect(argv[2], proto::Service::Agent, {key, false}, Deadline::after(steady_clock(), Seconds(20)));
  if (!stream) return 2;
  return FakeWorker(**stream, std::atoi(env("RANK").value_or("0").c_str())).run();
}
