#include "bench/support/open_run.h"

#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "common/clock.h"
#include "common/exit_code.h"

namespace coxswain::bench {
namespace {

constexpr double kLookSeconds = 0.01, kEndSeconds = 90;

void pass(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

}  // namespace

std::vector<Json> read_lines(const std::filesystem::path& file) {
  std::vector<Json> lines;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (auto json = parse_json(line)) lines.push_back(std::move(*json));
  }
  return lines;
}

OpenRun::OpenRun(const TrainJob& job, const std::vector<std::string>& flags) : folder_(make_scratch_folder("open")) {
  std::vector<std::string> line{(program_folder() / "launch").string(), "train", write_job(job, folder_).string(),
                                "--run-dir", folder().string()};
  line.insert(line.end(), flags.begin(), flags.end());
  launch_ = start_process(line, folder_ / "output");
}

OpenRun::~OpenRun() {
  if (launch_ < 0) return;
  kill(launch_, SIGKILL);  // everything beneath it ends with it
  waitpid(launch_, nullptr, 0);
}

int OpenRun::steps() {
  std::ifstream in(folder() / "metrics.jsonl", std::ios::binary);
  in.seekg(read_);
  std::stringstream rest;
  rest << in.rdbuf();
  const std::string text = rest.str();
  steps_ += static_cast<int>(std::count(text.begin(), text.end(), '\n'));
  read_ += static_cast<std::streamoff>(text.size());
  return steps_;
}

void OpenRun::wait_steps(int count, double limit_seconds) {
  const Deadline deadline = Deadline::after(steady_clock(), Seconds(limit_seconds));
  while (steps() < count) {
    if (!lives()) fail("ended before step " + std::to_string(count));
    if (deadline.passed(steady_clock())) fail("is not at step " + std::to_string(count));
    pass(kLookSeconds);
  }
}

void OpenRun::wait(double seconds) {
  pass(seconds);
  if (!lives()) fail("ended by itself");
}

void OpenRun::stop() {
  kill(launch_, SIGTERM);
  const int code = wait_process(launch_, kEndSeconds);
  launch_ = -1;
  if (code != static_cast<int>(ExitCode::Stopped)) fail("ended with " + std::to_string(code));
}

bool OpenRun::lives() const {
  siginfo_t ended{};
  return waitid(P_PID, static_cast<id_t>(launch_), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid == 0;
}

void OpenRun::fail(const std::string& what) const {
  std::stringstream errors;
  errors << std::ifstream(folder_ / "output.errors").rdbuf();
  std::fprintf(stderr, "the run %s: %s\n", what.c_str(), errors.str().c_str());
  if (launch_ > 0) kill(launch_, SIGKILL);
  std::exit(1);
}

}  // namespace coxswain::bench
