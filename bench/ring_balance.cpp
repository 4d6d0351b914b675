// What two runs of rows a device save in causal ring attention: processor time of the slowest member, forward and
// backward, beside the same with one run. Members are threads that exchange for real; each one's own processor time is
// read, so that a busy machine and waiting for others do not count. Under causality the last of c members has
// (2 c - 1) / c times the mean with one run.
#include <ATen/Parallel.h>
#include <ATen/ops/randn.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cstdio>

#include "bench/support/bench.h"
#include "common/processor_time.h"
#include "plan/layout/form.h"
#include "tests/worker/kernel_support.h"
#include "worker/engine/ring_attention.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

constexpr std::int64_t kHeads = 4, kDepth = 64;

/// By member.
std::vector<double> time_members(int members, std::int64_t rows, int runs) {
  tests::Runs held;
  for (int member = 0; member < members; ++member) held.push_back(plan::runs_of_extent(rows, members, member, runs));
  std::vector<double> seconds(held.size(), 0);
  const auto problems = tests::run_members(members, [&](const worker::ParallelLink& link, int member) {
    const auto m = static_cast<std::size_t>(member);
    const std::int64_t own = worker::total_size(held[m]);
    worker::RingAttentionArguments arguments;
    for (at::Tensor* input : {&arguments.query, &arguments.key, &arguments.value})
      *input = at::randn({1, kHeads, own, kDepth}).set_requires_grad(true);
    arguments.runs = tests::flat(held);
    arguments.is_causal = true;
    const at::Tensor incoming = at::randn({1, kHeads, own, kDepth});
    const double start = thread_processor_time().value;
    const at::Tensor output = worker::ring_attention(arguments, link);
    static_cast<void>(torch::autograd::grad({output}, {arguments.query, arguments.key, arguments.value}, {incoming}));
    seconds[m] = thread_processor_time().value - start;
  });
  for (const std::string& problem : problems) {
    if (problem.empty()) continue;
    std::fprintf(stderr, "%s\n", problem.c_str());
    std::exit(1);
  }
  return seconds;
}

double slowest(const std::vector<double>& seconds) { return *std::max_element(seconds.begin(), seconds.end()); }

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv, "slowest member of causal ring attention, one run of rows and two");
  Report report("ring_balance", options);
  at::set_num_threads(1);
  const std::int64_t rows = options.quick ? 2048 : 4096;
  for (const int members : {2, 4}) {
    std::vector<double> one, two;
    for (int pair = 0; pair < (options.quick ? 3 : 7); ++pair) {
      const std::vector<double> with_one = time_members(members, rows, 1), with_two = time_members(members, rows, 2);
      std::printf("%d members, %ld rows: one run", members, static_cast<long>(rows));
      for (const double seconds : with_one) std::printf(" %.3f", seconds);
      std::printf(" s, two runs");
      for (const double seconds : with_two) std::printf(" %.3f", seconds);
      std::printf(" s\n");
      one.push_back(slowest(with_one));
      two.push_back(slowest(with_two));
    }
    const double ideal = (2.0 * members - 1) / members, ratio = median(one) / median(two);
    char goal[64];
    std::snprintf(goal, sizeof goal, ">= 1.0, ideal %.2f", ideal);
    report.add({std::to_string(members) + " members, one run / two", median(two), median(one), ratio, "s", goal,
                ratio >= 1.0});
  }
  return report.finish();
}
