#include "worker/engine/transitions.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "worker/engine/tensor_types.h"

namespace coxswain::worker {
namespace {

using plan::Cut;
using Counts = std::vector<std::int64_t>;
using TensorMap = std::function<at::Tensor(const at::Tensor&)>;

struct TransitionBackward final : torch::autograd::Node {
  TensorMap run;
  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    if (!gradients[0].defined()) return {at::Tensor()};
    const at::NoGradGuard no_grad;
    return {run(gradients[0])};
  }
  std::string name() const override { return "CoxswainTransitionBackward"; }
};

/// `forward` of the input, with `backward` as what carries its gradient. Neither keeps a tensor.
at::Tensor apply(const at::Tensor& input, const TensorMap& forward, TensorMap backward) {
  at::Tensor output;
  {
    const at::NoGradGuard no_grad;
    output = forward(input);
  }
  if (torch::autograd::compute_requires_grad(input)) {
    auto node = c10::make_intrusive<TransitionBackward>();
    node->run = std::move(backward);
    node->set_next_edges(torch::autograd::collect_next_edges(input));
    torch::autograd::set_history(output, node);
  }
  return output;
}

std::int64_t rows_of(const std::vector<Cut::Run>& runs) {
  std::int64_t rows = 0;
  for (const Cut::Run& run : runs) rows += run.size;
  return rows;
}

/// `dim` of sizes `outer` x `rows` x `inner` as three dims.
at::Tensor unfolded(const at::Tensor& tensor, const Layout& layout, std::int64_t rows) {
  std::vector<std::int64_t> sizes = tensor.sizes().vec();
  TORCH_CHECK(layout.dim >= 0 && layout.dim < tensor.dim() && sizes[layout.dim] == layout.outer * rows * layout.inner,
              "dim ", layout.dim, " of a tensor of sizes ", tensor.sizes(), " is not ", layout.outer, " x ", rows,
              " x ", layout.inner);
  sizes[layout.dim] = layout.inner;
  sizes.insert(sizes.begin() + layout.dim, {layout.outer, rows});
  return tensor.view(sizes);
}

std::vector<std::int64_t> sizes_with(const at::Tensor& tensor, const Layout& layout, std::int64_t rows) {
  std::vector<std::int64_t> sizes = tensor.sizes().vec();
  TORCH_CHECK(layout.dim >= 0 && layout.dim < tensor.dim(), "no dim ", layout.dim, " in ", tensor.sizes());
  sizes[layout.dim] = layout.outer * rows * layout.inner;
  return sizes;
}

/// The rows `runs` of a tensor that has all of them, contiguous.
at::Tensor take_rows(const at::Tensor& whole, const Layout& layout, const std::vector<Cut::Run>& runs) {
  const at::Tensor split = unfolded(whole, layout, layout.extent);
  const auto sizes = sizes_with(whole, layout, rows_of(runs));
  if (runs.size() == 1) return split.narrow(layout.dim + 1, runs[0].first, runs[0].size).reshape(sizes).contiguous();
  std::vector<at::Tensor> parts;
  for (const Cut::Run& run : runs) parts.push_back(split.narrow(layout.dim + 1, run.first, run.size));
  return parts.empty() ? at::empty(sizes, whole.options()) : at::cat(parts, layout.dim + 1).reshape(sizes).contiguous();
}

/// Writes `part` (rows `runs`) to its place in `whole`.
void put_rows(const at::Tensor& whole, const Layout& layout, const std::vector<Cut::Run>& runs,
              const at::Tensor& part) {
  const at::Tensor target = unfolded(whole, layout, layout.extent);
  const at::Tensor source = unfolded(part, layout, rows_of(runs));
  std::int64_t from = 0;
  for (const Cut::Run& run : runs) {
    target.narrow(layout.dim + 1, run.first, run.size).copy_(source.narrow(layout.dim + 1, from, run.size));
    from += run.size;
  }
}

/// Whether the members' parts, one after another in memory, are the whole.
bool parts_in_order(const at::Tensor& whole_or_part, const Layout& layout) {
  if (layout.outer != 1) return false;
  for (std::int64_t d = 0; d < layout.dim; ++d)
    if (whole_or_part.size(d) != 1) return false;
  std::int64_t next = 0;
  for (const auto& runs : layout.runs)
    for (const Cut::Run& run : runs) {
      if (run.first != next) return false;
      next += run.size;
    }
  return true;
}

Counts counts_of(const at::Tensor& tensor, const Layout& layout) {
  Counts counts;
  std::int64_t others = 1;
  for (std::int64_t d = 0; d < tensor.dim(); ++d)
    if (d != layout.dim) others *= tensor.size(d);
  for (const auto& runs : layout.runs) counts.push_back(others * layout.outer * rows_of(runs) * layout.inner);
  return counts;
}

at::Tensor sum_over(const at::Tensor& input, const ParallelLink& link) {
  at::Tensor output = input.clone(c10::MemoryFormat::Contiguous);
  all_reduce(output, collective::ReduceOp::Sum, link);
  return output;
}

/// Puts the members' parts, one after another in `packed`, to their places in `whole`.
void unpack_parts(const at::Tensor& whole, const Layout& layout, const at::Tensor& packed) {
  const Counts counts = counts_of(whole, layout);
  std::int64_t first = 0;
  for (std::size_t m = 0; m < counts.size(); first += counts[m++])
    put_rows(whole, layout, layout.runs[m],
             packed.narrow(0, first, counts[m]).view(sizes_with(whole, layout, rows_of(layout.runs[m]))));
}

at::Tensor gather(const at::Tensor& input, const Layout& layout, const ParallelLink& link) {
  if (link.size() == 1) return input.clone(c10::MemoryFormat::Contiguous);
  const at::Tensor part = input.contiguous();
  const at::Tensor whole = at::empty(sizes_with(part, layout, layout.extent), part.options());
  const bool in_order = parts_in_order(whole, layout);
  const at::Tensor flat = in_order ? whole : at::empty({whole.numel()}, part.options());
  wait_for(link.communicator->all_gather(buffer_of(part), buffer_of(flat), counts_of(whole, layout), link.deadline()),
           link);
  if (!in_order) unpack_parts(whole, layout, flat);
  return whole;
}

/// The members' parts of `whole`, one after another.
at::Tensor pack_parts(const at::Tensor& whole, const Layout& layout) {
  if (parts_in_order(whole, layout)) return whole;
  at::Tensor packed = at::empty({whole.numel()}, whole.options());
  const at::Tensor source = unfolded(whole, layout, layout.extent);
  std::int64_t first = 0;
  for (const auto& runs : layout.runs) {
    const auto sizes = sizes_with(whole, layout, rows_of(runs));
    const std::int64_t count = c10::multiply_integers(sizes);
    const at::Tensor target = unfolded(packed.narrow(0, first, count).view(sizes), layout, rows_of(runs));
    std::int64_t row = 0;
    for (const Cut::Run& run : runs) {
      target.narrow(layout.dim + 1, row, run.size).copy_(source.narrow(layout.dim + 1, run.first, run.size));
      row += run.size;
    }
    first += count;
  }
  return packed;
}

at::Tensor scatter_sum(const at::Tensor& input, const Layout& layout, const ParallelLink& link) {
  if (link.size() == 1) return input.clone(c10::MemoryFormat::Contiguous);
  const at::Tensor whole = input.contiguous();
  const Counts counts = counts_of(whole, layout);
  const at::Tensor packed = pack_parts(whole, layout);
  const at::Tensor part = at::empty(sizes_with(whole, layout, rows_of(layout.runs[link.index()])), whole.options());
  wait_for(link.communicator->reduce_scatter(buffer_of(packed), buffer_of(part), counts, collective::ReduceOp::Sum,
                                             link.deadline()),
           link);
  return part;
}

/// The same dim cut in two ways: places in the rows of `from` of those that `to` has too.
Counts common_places(const Layout& from, std::size_t holder, const Layout& to, std::size_t taker, bool in_taker) {
  const auto rows_held = [](const Layout& layout, std::size_t member) {
    Counts rows;
    for (std::int64_t o = 0; o < layout.outer; ++o)
      for (const Cut::Run& run : layout.runs[member])
        for (std::int64_t i = 0; i < run.size * layout.inner; ++i)
          rows.push_back((o * layout.extent + run.first) * layout.inner + i);
    return rows;
  };
  const Counts held = rows_held(from, holder), taken = rows_held(to, taker);
  Counts places;
  for (std::size_t h = 0, t = 0; h < held.size() && t < taken.size();) {
    if (held[h] == taken[t]) places.push_back(static_cast<std::int64_t>(in_taker ? t : h));
    const bool behind = held[h] <= taken[t];
    t += held[h] >= taken[t] ? 1 : 0;
    h += behind ? 1 : 0;
  }
  return places;
}

/// From a part of one dim by `from` to a part of another by `to`.
at::Tensor exchange_dims(const at::Tensor& part, const Layout& from, const Layout& to, const ParallelLink& link) {
  std::vector<std::int64_t> sizes = sizes_with(part, to, rows_of(to.runs[link.index()]));
  sizes[from.dim] = from.outer * from.extent * from.inner;
  const at::Tensor output = at::empty(sizes, part.options());
  const at::Tensor packed = pack_parts(part, to);
  const bool in_order = parts_in_order(output, from);
  const at::Tensor flat = in_order ? output : at::empty({output.numel()}, part.options());
  wait_for(link.communicator->all_to_all(buffer_of(packed), buffer_of(flat), counts_of(part, to),
                                         counts_of(output, from), link.deadline()),
           link);
  if (!in_order) unpack_parts(output, from, flat);
  return output;
}

/// From a part by `from` to one by `to`, which cut the same dim.
at::Tensor exchange_rows(const at::Tensor& part, const Layout& from, const Layout& to, const ParallelLink& link) {
  const auto self = static_cast<std::size_t>(link.index()), size = static_cast<std::size_t>(link.size());
  at::Tensor output = at::empty(sizes_with(part, to, rows_of(to.runs[self])), part.options());
  const auto sizes_of_rows = [&](const at::Tensor& rows) {
    std::vector<std::int64_t> sizes = part.sizes().vec();
    sizes[from.dim] = rows.numel();
    return sizes;
  };
  std::vector<at::Tensor> sent, received;  // by member: rows of the part, and of the output
  Counts send_counts, receive_counts;
  for (std::size_t m = 0; m < size; ++m) {
    sent.push_back(at::tensor(common_places(from, self, to, m, false), c10::ScalarType::Long));
    received.push_back(at::tensor(common_places(from, m, to, self, true), c10::ScalarType::Long));
    send_counts.push_back(c10::multiply_integers(sizes_of_rows(sent.back())));
    receive_counts.push_back(c10::multiply_integers(sizes_of_rows(received.back())));
  }
  const at::Tensor packed = at::empty({c10::sum_integers(send_counts)}, part.options());
  std::int64_t first = 0;
  for (std::size_t m = 0; m < size; first += send_counts[m++]) {
    at::Tensor piece = packed.narrow(0, first, send_counts[m]).view(sizes_of_rows(sent[m]));
    at::index_select_out(piece, part, from.dim, sent[m]);
  }
  const at::Tensor flat = at::empty({c10::sum_integers(receive_counts)}, part.options());
  wait_for(
      link.communicator->all_to_all(buffer_of(packed), buffer_of(flat), send_counts, receive_counts, link.deadline()),
      link);
  first = 0;
  for (std::size_t m = 0; m < size; first += receive_counts[m++])
    output.index_copy_(to.dim, received[m], flat.narrow(0, first, receive_counts[m]).view(sizes_of_rows(received[m])));
  return output;
}

at::Tensor exchange(const at::Tensor& input, const Layout& from, const Layout& to, const ParallelLink& link) {
  if (link.size() == 1) return input.clone(c10::MemoryFormat::Contiguous);
  const at::Tensor part = input.contiguous();
  return from.dim == to.dim ? exchange_rows(part, from, to, link) : exchange_dims(part, from, to, link);
}

at::Tensor first_member_only(const at::Tensor& input, bool first) {
  return first ? input.clone(c10::MemoryFormat::Contiguous)
               : at::zeros_like(input, std::nullopt, std::nullopt, std::nullopt, std::nullopt,
                                c10::MemoryFormat::Contiguous);
}

}  // namespace

Layout layout_of(const MeshCall& call, const std::string& prefix) {
  Layout layout;
  layout.dim = call.integer(prefix + "dim");
  layout.outer = call.integer(prefix + "outer");
  layout.inner = call.integer(prefix + "inner");
  layout.runs = runs_by_member(call.integers(prefix + "runs"), call.group().size());
  layout.extent = total_size(layout.runs);
  return layout;
}

at::Tensor cut_tensor(const at::Tensor& whole, std::span<const Cut> cuts) {
  at::Tensor part = whole;
  for (const Cut& cut : cuts)
    part = take_rows(part.contiguous(), {cut.dim, cut.outer, cut.inner, cut.extent, {}}, cut.runs);
  return part;
}

at::Tensor all_reduce(const MeshCall& call) {
  const auto run = [link = link_of(call)](const at::Tensor& tensor) { return sum_over(tensor, link); };
  return apply(call.tensor("self"), run, run);
}

at::Tensor to_partial(const MeshCall& call) {
  const auto run = [first = call.group().place == 0](const at::Tensor& tensor) {
    return first_member_only(tensor, first);
  };
  return apply(call.tensor("self"), run, run);
}

at::Tensor all_gather(const MeshCall& call) {
  const ParallelLink link = link_of(call);
  const Layout layout = layout_of(call);
  return apply(
      call.tensor("self"), [&](const at::Tensor& part) { return gather(part, layout, link); },
      [=](const at::Tensor& gradient) { return scatter_sum(gradient, layout, link); });
}

at::Tensor reduce_scatter(const MeshCall& call) {
  const ParallelLink link = link_of(call);
  const Layout layout = layout_of(call);
  return apply(
      call.tensor("self"), [&](const at::Tensor& whole) { return scatter_sum(whole, layout, link); },
      [=](const at::Tensor& gradient) { return gather(gradient, layout, link); });
}

at::Tensor slice(const MeshCall& call) {
  const Layout layout = layout_of(call);
  const auto self = static_cast<std::size_t>(call.group().place);
  return apply(
      call.tensor("self"),
      [&](const at::Tensor& whole) {
        const at::Tensor part = take_rows(whole.contiguous(), layout, layout.runs[self]);
        return part.is_alias_of(whole) ? part.clone() : part;
      },
      [layout, self](const at::Tensor& gradient) {
        const at::Tensor whole = at::zeros(sizes_with(gradient, layout, layout.extent), gradient.options());
        put_rows(whole, layout, layout.runs[self], gradient.contiguous());
        return whole;
      });
}

at::Tensor all_to_all(const MeshCall& call) {
  const ParallelLink link = link_of(call);
  const Layout from = layout_of(call), to = layout_of(call, "to_");
  return apply(
      call.tensor("self"), [&](const at::Tensor& part) { return exchange(part, from, to, link); },
      [=](const at::Tensor& gradient) { return exchange(gradient, to, from, link); });
}

at::Tensor local_index(const MeshCall& call) {
  const std::int64_t size = call.integer("size");
  return call.tensor("self").sub(call.integer("first")).clamp(0, std::max<std::int64_t>(size - 1, 0));
}

at::Tensor mask_rows(const MeshCall& call) {
  const at::Tensor self = call.tensor("self"), index = call.tensor("index");
  const std::int64_t first = call.integer("first"), end = first + call.integer("size");
  at::Tensor outside = index.lt(first).logical_or(index.ge(end));
  while (outside.dim() < self.dim()) outside = outside.unsqueeze(-1);
  return self.masked_fill(outside, 0);
}

}  // namespace coxswain::worker
