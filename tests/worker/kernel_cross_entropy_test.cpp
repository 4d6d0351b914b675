// Cross entropy over split classes against libtorch's on the whole, in float64.
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>

#include <cmath>

#include "tests/worker/kernel_support.h"
#include "worker/engine/caching_allocator.h"
#include "worker/engine/parallel_cross_entropy.h"
#include "worker/engine/tensor_types.h"

#undef CHECK
#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

struct Outcome {
  at::Tensor loss, gradient;
};

struct Case {
  at::Tensor logits, target;  // whole
  Runs runs;
  std::int64_t reduction = 1;
  std::int64_t ignore_index = -100;
  double smoothing = 0;
  at::Tensor incoming;  // whole: members get summands of it
};

Outcome whole_outcome(const Case& c) {
  const at::Tensor leaf = c.logits.to(at::kDouble).set_requires_grad(true);
  const at::Tensor loss = at::cross_entropy_loss(leaf, c.target, {}, c.reduction, c.ignore_index, c.smoothing);
  return {loss.detach(), torch::autograd::grad({loss}, {leaf}, {c.incoming.to(at::kDouble)})[0]};
}

std::vector<Outcome> split_outcomes(const Case& c) {
  const int members = static_cast<int>(c.runs.size());
  std::vector<Outcome> outcomes(members);
  const auto problems = run_members(members, [&](const worker::ParallelLink& link, int member) {
    at::Tensor leaf = part_of(c.logits, 1, c.runs[member]).set_requires_grad(true);
    worker::CrossEntropyArguments arguments{leaf, c.target, flat(c.runs), c.reduction, c.ignore_index, c.smoothing};
    const at::Tensor loss = worker::parallel_cross_entropy(arguments, link);
    // Summands 1, 2, ... of the sum of 1 to n, so that a member that takes its own for the whole is found out.
    const double share = 2.0 * (member + 1) / (members * (members + 1));
    const auto gradient = torch::autograd::grad({loss}, {leaf}, {c.incoming.mul(share)});
    outcomes[member] = {loss.detach(), gradient[0]};
  });
  for (const std::string& problem : problems) CHECK(problem == "");
  return outcomes;
}

void compare(const Case& c, double tolerance) {
  const Outcome wanted = whole_outcome(c);
  const std::vector<Outcome> got = split_outcomes(c);
  for (std::size_t m = 0; m < got.size(); ++m) {
    CAPTURE(m);
    REQUIRE(got[m].loss.defined());
    const bool none = wanted.loss.isnan().any().item<bool>();
    CHECK(got[m].loss.isnan().any().item<bool>() == none);
    if (!none) CHECK(largest_difference(got[m].loss, wanted.loss) <= tolerance);
    CHECK(largest_difference(got[m].gradient, part_of(wanted.gradient, 1, c.runs[m])) <= tolerance);
  }
}

at::Tensor incoming_of(std::int64_t reduction, const at::Tensor& target) {
  return reduction == 0 ? at::rand(target.sizes()).add(0.5) : at::full({}, 1.5);
}

std::vector<Runs> class_parts() {
  return {parts({37}),
          parts({20, 17}),
          parts({1, 30, 6}),
          parts({9, 12, 8, 8}),
          // Two runs a member, as a factored vocabulary would give.
          {{{0, 5}, {20, 10}}, {{5, 15}, {30, 7}}}};
}

}  // namespace

TEST_CASE("cross entropy over split classes equals that of the whole") {
  for (const Runs& runs : class_parts())
    for (const std::int64_t reduction : {0, 1, 2})
      for (const double smoothing : {0.0, 0.1}) {
        DYNAMIC_SECTION(runs.size() << " members, " << runs[0].size() << " runs, reduction " << reduction
                                    << ", smoothing " << smoothing) {
          Case c;
          c.logits = at::randn({11, 37}).mul(4);
          c.target = at::randint(37, {11}, at::kLong);
          c.target[3] = c.target[7] = -100;
          c.runs = runs;
          c.reduction = reduction;
          c.smoothing = smoothing;
          c.incoming = incoming_of(reduction, c.target);
          compare(c, 2e-5);
        }
      }
}

TEST_CASE("rows longer than one chunk, logits far apart") {
  Case c;
  c.logits = at::randn({5, 3000}).mul(30);
  c.target = at::randint(3000, {5}, at::kLong);
  c.runs = parts({1700, 1300});
  c.incoming = at::full({}, 1.0);
  compare(c, 2e-5);
}

TEST_CASE("classes on dim 1 of more dims, another ignored index") {
  for (const std::int64_t reduction : {0, 1, 2}) {
    Case c;
    c.logits = at::randn({3, 10, 4, 2});
    c.target = at::randint(10, {3, 4, 2}, at::kLong);
    c.ignore_index = 4;
    c.runs = parts({7, 3});
    c.reduction = reduction;
    c.smoothing = 0.2;
    c.incoming = incoming_of(reduction, c.target);
    compare(c, 2e-5);
  }
}

TEST_CASE("all rows ignored: a mean is not a number, gradients are zero") {
  for (const std::int64_t reduction : {0, 1, 2}) {
    Case c;
    c.logits = at::randn({4, 6});
    c.target = at::full({4}, -100, at::kLong);
    c.runs = parts({2, 4});
    c.reduction = reduction;
    c.incoming = incoming_of(reduction, c.target);
    compare(c, 0);
  }
}

TEST_CASE("bfloat16 logits: the loss is float32, gradients are rounded once") {
  Case c;
  c.logits = at::randn({6, 40}).to(at::kBFloat16);
  c.target = at::randint(40, {6}, at::kLong);
  c.runs = parts({25, 15});
  c.reduction = 2;
  c.incoming = at::full({}, 1.0);
  const Outcome wanted = whole_outcome(c);
  for (std::size_t m = 0; const Outcome& got : split_outcomes(c)) {
    CHECK(got.loss.scalar_type() == at::kFloat);
    CHECK(got.gradient.scalar_type() == at::kBFloat16);
    CHECK(largest_difference(got.loss, wanted.loss) < 1e-4);
    // Half a unit in the last place of numbers below 1.
    CHECK(largest_difference(got.gradient, part_of(wanted.gradient, 1, c.runs[m++])) < 0x1p-9);
  }
}

TEST_CASE("a number that is none stays visible") {
  Case c;
  c.logits = at::randn({3, 8});
  c.logits[1][2] = NAN;
  c.target = at::randint(8, {3}, at::kLong);
  c.runs = parts({4, 4});
  c.incoming = at::full({}, 1.0);
  for (const Outcome& got : split_outcomes(c)) CHECK(got.loss.isnan().item<bool>());
}

TEST_CASE("a target that is no class is named by every member") {
  const auto problems = run_members(2, [&](const worker::ParallelLink& link, int) {
    worker::CrossEntropyArguments arguments{at::randn({3, 4}), at::full({3}, 8, at::kLong), flat(parts({4, 4}))};
    static_cast<void>(worker::parallel_cross_entropy(arguments, link));
  });
  for (const std::string& problem : problems)
    CHECK_THAT(problem, Catch::Contains("target 8 of row 0 is neither a class (0 to 7)"));
}

TEST_CASE("a member that does not come is an error of the communicator") {
  const auto group = std::make_shared<ThreadGroup>(2);
  ThreadCommunicator communicator(group, 0);
  const worker::ParallelLink link{&communicator, Seconds(0.01)};
  const auto result = worker::guard_torch("loss", [&]() -> Result<void> {
    worker::CrossEntropyArguments arguments{at::randn({3, 4}), at::full({3}, 1, at::kLong), flat(parts({4, 4}))};
    static_cast<void>(worker::parallel_cross_entropy(arguments, link));
    return {};
  });
  REQUIRE(!result);
  CHECK(result.error().code == ErrorCode::DeadlineExceeded);
  CHECK(result.error().path == "loss");
}

TEST_CASE("a cross entropy adds at most one tensor of the logits' size, none where it may overwrite them") {
  worker::install_caching_allocator();
  const std::int64_t rows = 64, classes = 4096;
  const std::int64_t size = rows * classes * 4, little = 64 * 1024;
  for (const bool held : {true, false}) {
    at::Tensor leaf = at::randn({rows, classes}).set_requires_grad(true);
    const at::Tensor target = at::randint(classes, {rows}, at::kLong);
    at::Tensor logits = leaf.mul(1.0);
    const std::int64_t before = worker::memory_in_use().value;
    worker::reset_memory_peak();
    worker::CrossEntropyArguments arguments{logits, target, flat(parts({classes}))};
    const at::Tensor loss = worker::parallel_cross_entropy(arguments, {});
    arguments.logits.reset();
    CHECK(worker::memory_peak().value - before < little);
    if (!held) logits.reset();
    // mul's own backward makes the leaf's gradient, one more.
    static_cast<void>(torch::autograd::grad({loss}, {leaf}));
    CHECK(worker::memory_peak().value - before < (held ? 2 : 1) * size + little);
  }
}

}  // namespace coxswain::tests
