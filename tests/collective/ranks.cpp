#include "tests/collective/ranks.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <iostream>
#include <thread>

namespace coxswain::collective {
namespace {

void run_body(Rank& rank, const RankBody& body) {
  try {
    body(rank);
  } catch (const std::exception& e) {
    rank.report.expect(false, std::string("exception: ") + e.what());
  }
}

std::string lines_of(int rank, const Report& report) {
  std::string text;
  for (const std::string& failure : report.failures()) text += "rank " + std::to_string(rank) + ": " + failure + "\n";
  return text;
}

[[noreturn]] void run_child(Rank rank, const RankBody& body, int report_pipe) {
  run_body(rank, body);
  const std::string text = lines_of(rank.rank, rank.report);
  [[maybe_unused]] const auto written = ::write(report_pipe, text.data(), text.size());
  ::_exit(text.empty() ? 0 : 1);
}

std::string read_to_end(int pipe) {
  std::string text;
  char part[512];
  ssize_t got = 0;
  while ((got = ::read(pipe, part, sizeof(part))) > 0) text.append(part, static_cast<std::size_t>(got));
  return text;
}

}  // namespace

Deadline soon() { return Deadline::after(steady_clock(), Seconds(20)); }
Deadline in_milliseconds(int milliseconds) { return Deadline::after(steady_clock(), Seconds(milliseconds / 1000.0)); }

EndpointOptions Rank::options(int generation) const {
  EndpointOptions options;
  options.rank = rank;
  options.size = size;
  options.node = node;
  options.job_key = "the job's key";
  options.run_id = "test-run";
  options.generation = generation;
  options.scratch_dir = scratch;
  return options;
}

Result<std::unique_ptr<Communicator>> Rank::connect(const EndpointOptions& options, int round) const {
  COX_TRY(auto endpoint, open_endpoint(options));
  board.publish(round, options.rank, endpoint->address());
  return endpoint->connect(board.collect(round, options.size, soon()), soon());
}

std::unique_ptr<Communicator> Rank::communicator() const {
  auto communicator = connect(options());
  if (communicator) return std::move(*communicator);
  report.expect(false, "connect: " + to_text(communicator.error()));
  return nullptr;
}

std::vector<std::string> one_node(int size) { return std::vector<std::string>(static_cast<std::size_t>(size), "node"); }

std::string run_threads(const std::vector<std::string>& nodes, const RankBody& body) {
  Board board;
  const TempDir scratch;
  const int size = static_cast<int>(nodes.size());
  std::vector<Report> reports(nodes.size());
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < size; ++i) {
      threads.emplace_back([&, i] {
        Rank rank{i,
                  size,
                  nodes[static_cast<std::size_t>(i)],
                  board,
                  scratch.path().string(),
                  reports[static_cast<std::size_t>(i)]};
        run_body(rank, body);
      });
    }
  }
  std::string text;
  for (int i = 0; i < size; ++i) text += lines_of(i, reports[static_cast<std::size_t>(i)]);
  return text;
}

std::string run_processes(const std::vector<std::string>& nodes, const RankBody& body, int victim,
                          const std::function<void(Board&, const std::vector<pid_t>&)>& when_ready) {
  Board board;
  const TempDir scratch;
  const int size = static_cast<int>(nodes.size());
  std::vector<pid_t> processes;
  std::vector<int> pipes;
  std::cout.flush();
  for (int i = 0; i < size; ++i) {
    int ends[2];
    if (::pipe(ends) != 0) return "no pipe";
    const pid_t process = ::fork();
    if (process == 0) {
      ::close(ends[0]);
      for (const int other : pipes) ::close(other);
      Report report;
      run_child({i, size, nodes[static_cast<std::size_t>(i)], board, scratch.path().string(), report}, body, ends[1]);
    }
    ::close(ends[1]);
    processes.push_back(process);
    pipes.push_back(ends[0]);
  }
  std::string text;
  try {
    if (when_ready) when_ready(board, processes);
  } catch (const std::exception& e) {
    text += std::string("parent: ") + e.what() + "\n";
    for (const pid_t process : processes) ::kill(process, SIGKILL);
  }
  for (int i = 0; i < size; ++i) {
    text += read_to_end(pipes[static_cast<std::size_t>(i)]);
    ::close(pipes[static_cast<std::size_t>(i)]);
    int status = 0;
    ::waitpid(processes[static_cast<std::size_t>(i)], &status, 0);
    if (i != victim && WIFSIGNALED(status))
      text += "rank " + std::to_string(i) + ": signal " + std::to_string(WTERMSIG(status)) + "\n";
  }
  return text;
}

}  // namespace coxswain::collective
