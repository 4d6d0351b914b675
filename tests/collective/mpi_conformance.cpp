// The conformance cases over the MPI backend: every rank that mpirun starts runs them on the world and on a smaller
// group. Exit 0: all hold; 1: failures, on stderr; 77: no MPI plug-in here.
#include <algorithm>
#include <iostream>
#include <numeric>

#include "collective/plugin.h"
#include "common/env.h"
#include "tests/collective/conformance.h"

using namespace coxswain;
using namespace coxswain::collective;

namespace {

int number(const char* name, int otherwise) {
  const auto text = env(name);
  return text ? std::stoi(*text) : otherwise;
}

void expect_deadline(Communicator& communicator, Report& report) {
  // Rank 0 waits for a message that nobody sends.
  if (communicator.rank() != 0) return;
  float value = 0;
  Handle handle = communicator.recv({&value, 1, DType::Float32}, communicator.size() - 1, in_milliseconds(50));
  const auto result = handle.wait(soon());
  report.expect(!result && result.error().code == ErrorCode::DeadlineExceeded, "no deadline");
  const auto later = communicator.barrier(soon()).wait(soon());
  report.expect(!later && later.error().code == ErrorCode::DeadlineExceeded, "alive after an error");
}

void run_all(const EndpointOptions& options, Report& report) {
  auto endpoint = open_endpoint(options);
  if (!endpoint) return report.expect(false, to_text(endpoint.error()));
  report.expect((*endpoint)->address().empty(), "MPI needs no address");
  auto communicator = (*endpoint)->connect(std::vector<std::string>(static_cast<std::size_t>(options.size)), soon());
  if (!communicator) return report.expect(false, to_text(communicator.error()));
  report.expect(!(*communicator)->capabilities().elastic, "MPI is not elastic");
  run_conformance(**communicator, report);
  // A world of an odd size, and the rest.
  std::vector<int> members(static_cast<std::size_t>(std::max(1, options.size - 1)));
  std::iota(members.begin(), members.end(), 0);
  const bool inside = options.rank < static_cast<int>(members.size());
  auto smaller = (*communicator)->split(inside ? members : std::vector<int>{options.rank}, soon());
  if (!smaller) return report.expect(false, to_text(smaller.error()));
  run_conformance(**smaller, report);
  (void)(*communicator)->barrier(soon()).wait(soon());
}

}  // namespace

int main(int argc, char** argv) {
  if (!load_plugin("mpi", "")) {
    std::cerr << "no MPI plug-in: skipped\n";
    return 77;
  }
  EndpointOptions options;
  options.backend = "mpi";
  options.rank = number("OMPI_COMM_WORLD_RANK", 0);
  options.size = number("OMPI_COMM_WORLD_SIZE", 1);
  Report report;
  const std::string what = argc > 1 ? argv[1] : "all";
  if (what == "mismatch") {
    options.size += 1;
    const auto endpoint = open_endpoint(options);
    report.expect(!endpoint && endpoint.error().code == ErrorCode::FailedPrecondition, "a wrong world size was taken");
  } else if (what == "deadline") {
    auto endpoint = open_endpoint(options);
    auto communicator = (*endpoint)->connect({}, soon());
    if (communicator) expect_deadline(**communicator, report);
  } else {
    run_all(options, report);
  }
  for (const std::string& failure : report.failures()) std::cerr << "rank " << options.rank << ": " << failure << "\n";
  return report.failures().empty() ? 0 : 1;
}
