#pragma once
// What the tests of parallel kernels share: a group whose members are threads, parts of tensors by runs, comparison.
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/worker/thread_communicator.h"
#include "worker/engine/parallel_link.h"

namespace coxswain::tests {

using Runs = std::vector<std::vector<worker::Run>>;

/// Calls `body(link, member)` on a thread each; returns what they threw, by member.
inline std::vector<std::string> run_members(int members,
                                            const std::function<void(const worker::ParallelLink&, int)>& body) {
  const auto group = std::make_shared<ThreadGroup>(members);
  std::vector<std::string> problems(members);
  std::vector<std::thread> threads;
  for (int member = 0; member < members; ++member) {
    threads.emplace_back([&, member] {
      ThreadCommunicator communicator(group, member);
      const worker::ParallelLink link{members == 1 ? nullptr : &communicator, Seconds(60)};
      try {
        body(link, member);
      } catch (const std::exception& error) {
        problems[member] = error.what();
        group->abort(error.what());
      }
    });
  }
  for (auto& thread : threads) thread.join();
  return problems;
}

/// As operators carry them: first and size of every run, member after member.
inline std::vector<std::int64_t> flat(const Runs& runs) {
  std::vector<std::int64_t> numbers;
  for (const auto& member : runs)
    for (const worker::Run& run : member) {
      numbers.push_back(run.first);
      numbers.push_back(run.size);
    }
  return numbers;
}

/// Contiguous parts of these sizes.
inline Runs parts(const std::vector<std::int64_t>& sizes) {
  Runs runs;
  std::int64_t first = 0;
  for (const std::int64_t size : sizes) {
    runs.push_back({{first, size}});
    first += size;
  }
  return runs;
}

/// The rows of `whole` along `dim` that a member holds.
inline at::Tensor part_of(const at::Tensor& whole, std::int64_t dim, const std::vector<worker::Run>& runs) {
  std::vector<at::Tensor> pieces;
  for (const worker::Run& run : runs) pieces.push_back(whole.narrow(dim, run.first, run.size));
  return at::cat(pieces, dim).contiguous();
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return std::numeric_limits<double>::infinity();
  if (a.numel() == 0) return 0;
  return a.to(at::kDouble).sub(b.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace coxswain::tests
