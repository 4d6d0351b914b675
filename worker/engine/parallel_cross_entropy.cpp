#include "worker/engine/parallel_cross_entropy.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "worker/engine/row_kernels.h"

namespace coxswain::worker {
namespace {

enum class Reduction { None = 0, Mean = 1, Sum = 2 };

constexpr std::int64_t kChunk = 1024;  // floats that stay in the first cache, and that one float32 sum may hold

/// What forward and backward share: (rows, classes) of this member, and where each row's target lies.
struct Problem {
  at::Tensor logits;                   // contiguous
  at::Tensor target;                   // int64, contiguous, by row
  std::vector<Run> runs;               // of this member
  std::int64_t rows = 0, classes = 0;  // own classes
  std::int64_t all_classes = 0;
  std::int64_t ignore_index = 0;
  float smoothing = 0;
  Reduction reduction = Reduction::Mean;

  [[nodiscard]] std::int64_t target_of(std::int64_t row) const { return target.const_data_ptr<std::int64_t>()[row]; }
  [[nodiscard]] bool counts(std::int64_t row) const { return target_of(row) != ignore_index; }
  /// Column of a class among the own ones; -1: another member's.
  [[nodiscard]] std::int64_t column_of(std::int64_t label) const {
    std::int64_t before = 0;
    for (const Run& run : runs) {
      if (label >= run.first && label < run.first + run.size) return before + label - run.first;
      before += run.size;
    }
    return -1;
  }
  [[nodiscard]] std::int64_t num_counted() const {
    std::int64_t count = 0;
    for (std::int64_t r = 0; r < rows; ++r) count += counts(r) ? 1 : 0;
    return count;
  }
  [[nodiscard]] std::int64_t grain() const {
    return std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, classes));
  }
};

// One row in chunks of float32: as it is, or converted.
template <class Body>
void for_chunks(const Problem& problem, std::int64_t row, Body&& body) {
  alignas(64) float converted[kChunk];
  const std::int64_t start = row * problem.classes;
  const bool is_float = problem.logits.scalar_type() == c10::ScalarType::Float;
  for (std::int64_t first = 0; first < problem.classes; first += kChunk) {
    const std::int64_t count = std::min(kChunk, problem.classes - first);
    if (is_float) {
      body(problem.logits.const_data_ptr<float>() + start + first, first, count);
      continue;
    }
    const auto* from = problem.logits.const_data_ptr<at::BFloat16>() + start + first;
    for (std::int64_t i = 0; i < count; ++i) converted[i] = static_cast<float>(from[i]);
    body(converted, first, count);
  }
}

float logit_at(const Problem& problem, std::int64_t row, std::int64_t column) {
  const std::int64_t i = row * problem.classes + column;
  return problem.logits.scalar_type() == c10::ScalarType::Float
             ? problem.logits.const_data_ptr<float>()[i]
             : static_cast<float>(problem.logits.const_data_ptr<at::BFloat16>()[i]);
}

template <class Body>
void for_rows(const Problem& problem, Body&& body) {
  at::parallel_for(0, problem.rows, problem.grain(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r)
      if (problem.counts(r)) body(r);
  });
}

at::Tensor make_rows(std::int64_t rows, std::int64_t columns = 1) {
  return at::zeros({columns, rows}, at::TensorOptions().dtype(c10::ScalarType::Float));
}

/// Greatest logit of every row over the group.
at::Tensor find_greatest(const Problem& problem, const ParallelLink& link) {
  at::Tensor greatest = make_rows(problem.rows);
  float* to = greatest.mutable_data_ptr<float>();
  for_rows(problem, [&](std::int64_t r) {
    float largest = -std::numeric_limits<float>::infinity();
    for_chunks(problem, r, [&](const float* x, std::int64_t, std::int64_t count) {
      largest = std::max(largest, max_of(x, count));
    });
    to[r] = largest;
  });
  all_reduce(greatest, collective::ReduceOp::Max, link);
  return greatest;
}

/// (2 or 3, rows): sums of exp(logit - greatest), the targets' logits, with smoothing the sums of logits.
at::Tensor find_sums(const Problem& problem, const at::Tensor& greatest, const ParallelLink& link) {
  const bool smooth = problem.smoothing != 0;
  at::Tensor sums = make_rows(problem.rows, smooth ? 3 : 2);
  const float* shift = greatest.const_data_ptr<float>();
  float* exponentials = sums.mutable_data_ptr<float>();
  float *targets = exponentials + problem.rows, *logits = targets + problem.rows;
  for_rows(problem, [&](std::int64_t r) {
    double exponential_sum = 0, logit_sum = 0;
    for_chunks(problem, r, [&](const float* x, std::int64_t, std::int64_t count) {
      exponential_sum += sum_of_exp(x, count, shift[r]);
      if (smooth) logit_sum += sum_of(x, count);
    });
    exponentials[r] = static_cast<float>(exponential_sum);
    if (smooth) logits[r] = static_cast<float>(logit_sum);
    if (const std::int64_t column = problem.column_of(problem.target_of(r)); column >= 0)
      targets[r] = logit_at(problem, r, column);
  });
  all_reduce(sums, collective::ReduceOp::Sum, link);
  return sums;
}

/// Losses by row (0 where ignored); `log_sums` gets the log of the sum of exponentials.
at::Tensor find_losses(const Problem& problem, const at::Tensor& greatest, const at::Tensor& sums,
                       const at::Tensor& log_sums) {
  at::Tensor losses = make_rows(problem.rows);
  float *loss = losses.mutable_data_ptr<float>(), *log_sum = log_sums.mutable_data_ptr<float>();
  const float *shift = greatest.const_data_ptr<float>(), *exponentials = sums.const_data_ptr<float>();
  const float *targets = exponentials + problem.rows, *logits = targets + problem.rows;
  for (std::int64_t r = 0; r < problem.rows; ++r) {
    if (!problem.counts(r)) continue;
    log_sum[r] = shift[r] + std::log(exponentials[r]);
    loss[r] = (1 - problem.smoothing) * (log_sum[r] - targets[r]);
    if (problem.smoothing != 0)
      loss[r] += problem.smoothing * (log_sum[r] - logits[r] / static_cast<float>(problem.all_classes));
  }
  return losses;
}

at::Tensor reduce(const Problem& problem, const at::Tensor& losses) {
  if (problem.reduction == Reduction::None) return losses;
  double sum = 0;
  for (std::int64_t r = 0; r < problem.rows; ++r) sum += losses.const_data_ptr<float>()[r];
  // No row that counts: 0 / 0, as libtorch has it.
  if (problem.reduction == Reduction::Mean) sum /= static_cast<double>(problem.num_counted());
  at::Tensor result = at::empty({}, losses.options());
  *result.mutable_data_ptr<float>() = static_cast<float>(sum);
  return result;
}

/// Gradient of each row's loss; `incoming` is whole.
std::vector<float> row_gradients(const Problem& problem, const at::Tensor& incoming) {
  const float* from = incoming.const_data_ptr<float>();
  std::vector<float> gradients(static_cast<std::size_t>(problem.rows));
  if (problem.reduction == Reduction::None) {
    std::copy(from, from + problem.rows, gradients.begin());
  } else {
    const bool mean = problem.reduction == Reduction::Mean;
    std::fill(gradients.begin(), gradients.end(), mean ? from[0] / static_cast<float>(problem.num_counted()) : from[0]);
  }
  return gradients;
}

/// gradient x (softmax - (1 - smoothing) at the target - smoothing / classes) into `output` of the logits' shape and
/// dtype, which may be the logits themselves.
void write_gradient(const Problem& problem, const float* log_sums, const std::vector<float>& gradients,
                    const at::Tensor& output) {
  const bool is_float = output.scalar_type() == c10::ScalarType::Float;
  const auto store = [&](std::int64_t i, float value) {
    if (is_float) {
      output.mutable_data_ptr<float>()[i] = value;
    } else {
      output.mutable_data_ptr<at::BFloat16>()[i] = static_cast<at::BFloat16>(value);
    }
  };
  at::parallel_for(0, problem.rows, problem.grain(), [&](std::int64_t begin, std::int64_t end) {
    alignas(64) float computed[kChunk];
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t start = r * problem.classes;
      if (!problem.counts(r)) {
        for (std::int64_t c = 0; c < problem.classes; ++c) store(start + c, 0);
        continue;
      }
      const float gradient = gradients[static_cast<std::size_t>(r)];
      const float spread = gradient * problem.smoothing / static_cast<float>(problem.all_classes);
      const std::int64_t column = problem.column_of(problem.target_of(r));
      for_chunks(problem, r, [&](const float* x, std::int64_t first, std::int64_t count) {
        float* to = is_float ? output.mutable_data_ptr<float>() + start + first : computed;
        scaled_exp(x, count, log_sums[r], gradient, spread, to);
        if (column >= first && column < first + count) to[column - first] -= gradient * (1 - problem.smoothing);
        if (!is_float)
          for (std::int64_t i = 0; i < count; ++i) store(start + first + i, to[i]);
      });
    }
  });
}

// (rows, classes, ...) -> (all rows, classes), contiguous.
at::Tensor by_row(const at::Tensor& logits) {
  if (logits.dim() == 2) return logits.contiguous();
  return logits.movedim(1, -1).reshape({-1, logits.size(1)}).contiguous();
}

at::Tensor as_given(const at::Tensor& gradient, const std::vector<std::int64_t>& sizes) {
  if (sizes.size() == 2) return gradient;
  std::vector<std::int64_t> moved(sizes);
  moved.erase(moved.begin() + 1);
  moved.push_back(sizes[1]);
  return gradient.view(moved).movedim(-1, 1);
}

struct CrossEntropyBackward final : torch::autograd::Node {
  Problem problem;
  at::Tensor log_sums;
  std::vector<std::int64_t> sizes;  // of the logits as given
  ParallelLink link;
  bool runs_again = true;  // what it saved is asked for once more

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    TORCH_CHECK(problem.logits.defined(), "the backward of a cross entropy after its saved tensors were released");
    const at::NoGradGuard no_grad;
    // Every member comes here, with or without a gradient of its own: the sum is a collective.
    const std::int64_t count = problem.reduction == Reduction::None ? problem.rows : 1;
    at::Tensor incoming = at::zeros({count}, at::TensorOptions().dtype(c10::ScalarType::Float));
    if (gradients[0].defined()) incoming.copy_(gradients[0].reshape({count}));
    gradients.clear();
    all_reduce(incoming, collective::ReduceOp::Sum, link);
    const std::vector<float> by_row = row_gradients(problem, incoming);
    const bool reuse = !runs_again && problem.logits.storage().use_count() == 1;
    const at::Tensor output = reuse ? problem.logits : at::empty_like(problem.logits);
    write_gradient(problem, log_sums.const_data_ptr<float>(), by_row, output);
    return {as_given(output, sizes)};
  }
  void will_release_variables() override { runs_again = false; }
  void release_variables() override {
    problem.logits.reset();
    log_sums.reset();
  }
  std::string name() const override { return "CoxswainCrossEntropyBackward"; }
};

void check_targets(const Problem& problem) {
  for (std::int64_t r = 0; r < problem.rows; ++r) {
    const std::int64_t label = problem.target_of(r);
    TORCH_CHECK(label == problem.ignore_index || (label >= 0 && label < problem.all_classes), "target ", label,
                " of row ", r, " is neither a class (0 to ", problem.all_classes - 1, ") nor ignore_index (",
                problem.ignore_index, ")");
  }
}

Problem make_problem(const CrossEntropyArguments& arguments, const ParallelLink& link) {
  const at::Tensor& logits = arguments.logits;
  const c10::ScalarType type = logits.scalar_type();
  TORCH_CHECK(type == c10::ScalarType::Float || type == c10::ScalarType::BFloat16,
              "cross entropy over a group takes float32 or bfloat16, got ", type);
  TORCH_CHECK(logits.dim() >= 2 && arguments.target.dim() == logits.dim() - 1 &&
                  arguments.target.scalar_type() == c10::ScalarType::Long,
              "cross entropy over a group takes logits (rows, classes, ...) and int64 targets (rows, ...)");
  const auto runs = runs_by_member(arguments.runs, link.size());
  Problem problem;
  problem.runs = runs[static_cast<std::size_t>(link.index())];
  problem.all_classes = total_size(runs);
  problem.logits = by_row(logits.detach());
  problem.target = arguments.target.reshape({-1}).contiguous();
  problem.rows = problem.logits.size(0);
  problem.classes = problem.logits.size(1);
  problem.ignore_index = arguments.ignore_index;
  problem.smoothing = static_cast<float>(arguments.label_smoothing);
  problem.reduction = static_cast<Reduction>(arguments.reduction);
  TORCH_CHECK(problem.classes == total_size(problem.runs) && problem.target.numel() == problem.rows, "member ",
              link.index(), " has ", total_size(problem.runs), " classes by its runs and ", problem.classes,
              " columns of logits, ", problem.rows, " rows and ", problem.target.numel(), " targets");
  check_targets(problem);
  return problem;
}

}  // namespace

at::Tensor parallel_cross_entropy(const CrossEntropyArguments& arguments, const ParallelLink& link) {
  const bool requires_grad = torch::autograd::compute_requires_grad(arguments.logits);
  torch::autograd::edge_list edges;
  if (requires_grad) edges = torch::autograd::collect_next_edges(arguments.logits);
  const at::NoGradGuard no_grad;
  Problem problem = make_problem(arguments, link);
  const at::Tensor greatest = find_greatest(problem, link);
  const at::Tensor sums = find_sums(problem, greatest, link);
  at::Tensor log_sums = make_rows(problem.rows);
  at::Tensor losses = find_losses(problem, greatest, sums, log_sums);
  at::Tensor result = reduce(problem, losses);
  if (problem.reduction == Reduction::None) result = result.view(arguments.target.sizes());
  if (requires_grad) {
    auto node = c10::make_intrusive<CrossEntropyBackward>();
    node->problem = std::move(problem);
    node->log_sums = std::move(log_sums);
    node->sizes = arguments.logits.sizes().vec();
    node->link = link;
    node->set_next_edges(std::move(edges));
    torch::autograd::set_history(result, node);
  }
  return result;
}

}  // namespace coxswain::worker
