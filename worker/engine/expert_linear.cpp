#include "worker/engine/expert_linear.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mm_cpu_dispatch.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/library.h>

#include <cstring>
#include <memory>
#include <numeric>
#include <utility>

#include "worker/engine/expert_load.h"

namespace coxswain::worker {
namespace {

/// Calls `body(expert, first, count)` for every expert that has rows; `first` counts in ExpertGroups::order.
template <class Body>
void for_experts(const ExpertGroups& groups, Body&& body) {
  const auto some = [&](std::int64_t begin, std::int64_t end) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    for (std::int64_t e = begin; e < end; ++e)
      if (groups.rows_of(e) > 0) body(e, groups.offsets[e], groups.rows_of(e));
  };
  // Few experts: each product uses all threads.
  if (groups.num_experts() < at::get_num_threads()) return some(0, groups.num_experts());
  at::parallel_for(0, groups.num_experts(), 1, some);
}

/// In 16 bits libtorch's own product is oneDNN's, which makes a kernel for every new number of rows (0.1 s and more for
/// a few milliseconds of work): numbers are rounded up to a multiple of this, with rows of zeros.
constexpr std::int64_t kRowStep = 64;

std::int64_t padded(std::int64_t count, const at::Tensor& like) {
  const bool pads = like.is_cpu() && like.element_size() == 2;
  return pads ? (count + kRowStep - 1) / kRowStep * kRowStep : count;
}

/// Rows order[first], ... of `from` as one matrix, padded.
at::Tensor take_rows(const at::Tensor& from, const ExpertGroups& groups, std::int64_t first, std::int64_t count) {
  const std::int64_t wanted = padded(count, from);
  if (groups.sorted && wanted == count) return from.narrow(0, first, count);
  at::Tensor rows = at::empty({wanted, from.size(1)}, from.options());
  const std::size_t bytes = static_cast<std::size_t>(from.size(1)) * from.element_size();
  const auto* source = static_cast<const char*>(from.const_data_ptr());
  auto* target = static_cast<char*>(rows.mutable_data_ptr());
  for (std::int64_t i = 0; i < count; ++i)
    std::memcpy(target + i * bytes, source + groups.order[first + i] * bytes, bytes);
  std::memset(target + count * bytes, 0, (wanted - count) * bytes);
  return rows;
}

/// The first `count` of `rows`.
void put_rows(const at::Tensor& rows, const ExpertGroups& groups, std::int64_t first, std::int64_t count,
              const at::Tensor& to) {
  const std::size_t bytes = static_cast<std::size_t>(to.size(1)) * to.element_size();
  const auto* source = static_cast<const char*>(rows.const_data_ptr());
  auto* target = static_cast<char*>(to.mutable_data_ptr());
  for (std::int64_t i = 0; i < count; ++i)
    std::memcpy(target + groups.order[first + i] * bytes, source + i * bytes, bytes);
}

/// An expert has other rows each time. oneDNN makes a kernel for every new size, which costs more than it saves
/// (products.h), so on a CPU libtorch's own float32 product is taken.
at::Tensor product(const at::Tensor& left, const at::Tensor& right) {
  const bool is_own = left.is_cpu() && left.scalar_type() == c10::ScalarType::Float;
  return is_own ? at::cpu::mm(left, right) : at::mm(left, right);
}

/// Rows without an expert (past the last group) stay 0.
at::Tensor make_output(std::int64_t rows, std::int64_t columns, const ExpertGroups& groups, const at::Tensor& like) {
  const bool all = static_cast<std::int64_t>(groups.order.size()) == rows;
  return all ? at::empty({rows, columns}, like.options()) : at::zeros({rows, columns}, like.options());
}

/// table: (experts, out, in)
at::Tensor run_forward(const at::Tensor& input, const at::Tensor& table, const ExpertGroups& groups) {
  at::Tensor output = make_output(input.size(0), table.size(1), groups, input);
  for_experts(groups, [&](std::int64_t expert, std::int64_t first, std::int64_t count) {
    put_rows(product(take_rows(input, groups, first, count), table.select(0, expert).t()), groups, first, count,
             output);
  });
  return output;
}

struct ExpertLinearBackward final : torch::autograd::Node {
  at::Tensor input, table;
  std::shared_ptr<const ExpertGroups> groups;

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    if (!gradients[0].defined()) return {at::Tensor(), at::Tensor()};
    TORCH_CHECK(table.defined(), "the backward of experts after its saved tensors were released");
    const at::NoGradGuard no_grad;
    const at::Tensor incoming = gradients[0].contiguous();
    gradients.clear();
    at::Tensor input_gradient, table_gradient;
    if (task_should_compute_output(0)) input_gradient = make_output(input.size(0), input.size(1), *groups, input);
    // Laid out like the table itself, so that a transposed table's gradient needs no copy; unused experts get zeros.
    if (task_should_compute_output(1))
      table_gradient = table.is_contiguous()
                           ? at::zeros(table.sizes(), table.options())
                           : at::zeros(table.transpose(1, 2).sizes(), table.options()).transpose(1, 2);
    for_experts(*groups, [&](std::int64_t expert, std::int64_t first, std::int64_t count) {
      const at::Tensor rows = take_rows(incoming, *groups, first, count);
      if (input_gradient.defined())
        put_rows(product(rows, table.select(0, expert)), *groups, first, count, input_gradient);
      if (!table_gradient.defined()) return;
      at::Tensor target = table_gradient.select(0, expert);
      at::mm_out(target, rows.t(), take_rows(input, *groups, first, count));
    });
    return {input_gradient, table_gradient};
  }
  void release_variables() override {
    input.reset();
    table.reset();
  }
  std::string name() const override { return "CoxswainExpertLinearBackward"; }
};

void check(const at::Tensor& input, const at::Tensor& table) {
  TORCH_CHECK(input.dim() == 2 && table.dim() == 3 && input.size(1) == table.size(2) &&
                  input.scalar_type() == table.scalar_type(),
              "experts take rows (rows, in) and a table (experts, out, in) of one dtype, got ", input.sizes(), " ",
              input.scalar_type(), " and ", table.sizes(), " ", table.scalar_type());
}

at::Tensor run(const at::Tensor& given, const at::Tensor& table, ExpertGroups made) {
  check(given, table);
  const bool requires_grad = torch::autograd::compute_requires_grad(given, table);
  torch::autograd::edge_list edges;
  if (requires_grad) edges = torch::autograd::collect_next_edges(given, table);
  const at::NoGradGuard no_grad;
  const auto groups = std::make_shared<const ExpertGroups>(std::move(made));
  watch_load(*groups);
  const at::Tensor input = given.detach().contiguous();
  at::Tensor output = run_forward(input, table.detach(), *groups);
  if (requires_grad) {
    auto node = c10::make_intrusive<ExpertLinearBackward>();
    node->input = input;
    node->table = table.detach();
    node->groups = groups;
    node->set_next_edges(std::move(edges));
    torch::autograd::set_history(output, node);
  }
  return output;
}

}  // namespace

ExpertGroups group_by_expert(const at::Tensor& indices, std::int64_t num_experts) {
  TORCH_CHECK(indices.dim() == 1 && indices.scalar_type() == c10::ScalarType::Long,
              "experts are chosen by one int64 a row, got ", indices.sizes(), " ", indices.scalar_type());
  const at::Tensor chosen = indices.contiguous();
  const std::int64_t* expert = chosen.const_data_ptr<std::int64_t>();
  ExpertGroups groups;
  groups.offsets.assign(static_cast<std::size_t>(num_experts) + 1, 0);
  for (std::int64_t r = 0; r < chosen.numel(); ++r) {
    TORCH_CHECK(expert[r] >= 0 && expert[r] < num_experts, "row ", r, " chose expert ", expert[r], " of ", num_experts);
    ++groups.offsets[expert[r] + 1];
  }
  std::partial_sum(groups.offsets.begin(), groups.offsets.end(), groups.offsets.begin());
  groups.order.resize(static_cast<std::size_t>(chosen.numel()));
  std::vector<std::int64_t> next(groups.offsets.begin(), groups.offsets.end() - 1);
  for (std::int64_t r = 0; r < chosen.numel(); ++r) groups.order[next[expert[r]]++] = r;
  return groups;
}

at::Tensor expert_linear(const at::Tensor& input, const at::Tensor& table, const at::Tensor& indices) {
  TORCH_CHECK(input.dim() == 2 && indices.numel() == input.size(0), "experts: ", indices.numel(), " choices for ",
              input.sizes(), " rows");
  TORCH_CHECK(table.dim() == 3, "experts: a table (experts, out, in), got ", table.sizes());
  return run(input, table, group_by_expert(indices, table.size(0)));
}

at::Tensor expert_bmm(const at::Tensor& self, const at::Tensor& table, const at::Tensor& indices, bool by_rows) {
  const std::int64_t single = by_rows ? 1 : 2;
  TORCH_CHECK(self.dim() == 3 && table.dim() == 3 && self.size(single) == 1,
              "experts: one vector a row and a table of matrices, got ", self.sizes(), " and ", table.sizes());
  const at::Tensor matrices = by_rows ? table.transpose(1, 2) : table;
  return expert_linear(self.squeeze(single), matrices, indices).unsqueeze(single);
}

at::Tensor grouped_mm(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& ends) {
  TORCH_CHECK(input.dim() == 2 && weight.dim() == 3 && ends.dim() == 1 && ends.size(0) == weight.size(0),
              "grouped product: input ", input.sizes(), ", weight ", weight.sizes(), " and ", ends.sizes(), " ends");
  const at::Tensor last = ends.to(c10::ScalarType::Long).contiguous();
  ExpertGroups groups;
  groups.offsets.assign(1, 0);
  for (std::int64_t e = 0; e < last.numel(); ++e) {
    const std::int64_t end = last.const_data_ptr<std::int64_t>()[e];
    TORCH_CHECK(end >= groups.offsets.back() && end <= input.size(0), "grouped product: group ", e, " ends at row ",
                end, ", the one before at ", groups.offsets.back(), ", of ", input.size(0), " rows");
    groups.offsets.push_back(end);
  }
  groups.order.resize(static_cast<std::size_t>(groups.offsets.back()));
  std::iota(groups.order.begin(), groups.order.end(), 0);
  groups.sorted = true;
  return run(input, weight.transpose(1, 2), std::move(groups));
}

// Composite: each is made of this file's autograd, whatever the key it is called with.
void register_expert_operators() {
  static torch::Library own(torch::Library::FRAGMENT, "coxswain", std::nullopt, __FILE__, __LINE__);
  static torch::Library foreign(torch::Library::FRAGMENT, "transformers", std::nullopt, __FILE__, __LINE__);
  static const bool once = [] {
    own.def("expert_bmm(Tensor self, Tensor table, Tensor indices, bool by_rows) -> Tensor", &expert_bmm);
    foreign.def("grouped_mm_fallback(Tensor input, Tensor weight, Tensor offs) -> Tensor", &grouped_mm);
    return true;
  }();
  static_cast<void>(once);
}

}  // namespace coxswain::worker
