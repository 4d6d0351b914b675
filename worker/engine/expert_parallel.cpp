#include "worker/engine/expert_parallel.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

namespace coxswain::worker {
namespace {

/// Where an expert of the whole lives.
struct Home {
  int member = 0;
  std::int64_t place = 0;  // among all experts, member after member
  std::int64_t own = 0;    // among the experts of its member
};

std::vector<Home> find_homes(const std::vector<std::vector<Run>>& runs) {
  std::vector<Home> homes(static_cast<std::size_t>(total_size(runs)));
  std::int64_t place = 0;
  for (std::size_t m = 0; m < runs.size(); ++m) {
    std::int64_t own = 0;
    for (const Run& run : runs[m])
      for (std::int64_t e = run.first; e < run.first + run.size; ++e) {
        TORCH_CHECK(e >= 0 && e < static_cast<std::int64_t>(homes.size()), "experts: a run holds expert ", e, " of ",
                    homes.size());
        homes[e] = {static_cast<int>(m), place++, own++};
      }
  }
  return homes;
}

/// Rows of every member for every expert, by (member, place of the expert).
std::vector<std::int64_t> exchange_counts(const std::vector<std::int64_t>& own, const ParallelLink& link) {
  const std::size_t members = static_cast<std::size_t>(link.size()), experts = own.size();
  if (members == 1) return own;
  at::Tensor input = at::empty({static_cast<std::int64_t>(experts)}, at::TensorOptions().dtype(at::kLong));
  std::copy(own.begin(), own.end(), input.mutable_data_ptr<std::int64_t>());
  at::Tensor all = at::empty({static_cast<std::int64_t>(members * experts)}, input.options());
  wait_for(link.communicator->all_gather(buffer_of(input), buffer_of(all),
                                         std::vector<std::int64_t>(members, static_cast<std::int64_t>(experts)),
                                         link.deadline()),
           link);
  const auto* data = all.const_data_ptr<std::int64_t>();
  return {data, data + members * experts};
}

std::int64_t width_of(const at::Tensor& rows) { return rows.numel() / std::max<std::int64_t>(1, rows.size(0)); }

at::Tensor make_rows(const at::Tensor& like, std::int64_t count) {
  std::vector<std::int64_t> sizes = like.sizes().vec();
  sizes[0] = count;
  return at::empty(sizes, like.options());
}

std::vector<std::int64_t> scaled(std::vector<std::int64_t> counts, std::int64_t width) {
  for (std::int64_t& count : counts) count *= width;
  return counts;
}

at::Tensor exchange_rows(const at::Tensor& rows, const std::vector<std::int64_t>& send,
                         const std::vector<std::int64_t>& receive, const ParallelLink& link) {
  if (link.size() == 1) return rows;
  std::int64_t width = 1;
  for (std::int64_t d = 1; d < rows.dim(); ++d) width *= rows.size(d);
  at::Tensor arrived = make_rows(rows, std::accumulate(receive.begin(), receive.end(), std::int64_t{0}));
  wait_for(link.communicator->all_to_all(buffer_of(rows), buffer_of(arrived), scaled(send, width),
                                         scaled(receive, width), link.deadline()),
           link);
  return arrived;
}

at::Tensor send_out(const at::Tensor& given, const ExpertRouting& routing, const ParallelLink& link) {
  const at::Tensor rows = given.contiguous();
  TORCH_CHECK(rows.dim() > 0 && rows.size(0) == static_cast<std::int64_t>(routing.order.size()),
              "dispatch: ", routing.order.size(), " rows were routed, got ", rows.sizes());
  at::Tensor sorted = make_rows(rows, rows.size(0));
  const std::size_t bytes = static_cast<std::size_t>(width_of(rows)) * rows.element_size();
  for (std::size_t i = 0; i < routing.order.size(); ++i)
    std::memcpy(static_cast<char*>(sorted.mutable_data_ptr()) + i * bytes,
                static_cast<const char*>(rows.const_data_ptr()) + routing.order[i] * bytes, bytes);
  return exchange_rows(sorted, routing.send_rows, routing.receive_rows, link);
}

at::Tensor bring_back(const at::Tensor& given, const ExpertRouting& routing, const ParallelLink& link) {
  const at::Tensor rows = given.contiguous();
  TORCH_CHECK(rows.dim() > 0 && rows.size(0) == routing.num_received(), "combine: ", routing.num_received(),
              " rows arrived, got ", rows.sizes());
  const at::Tensor sorted = exchange_rows(rows, routing.receive_rows, routing.send_rows, link);
  at::Tensor result = make_rows(sorted, sorted.size(0));
  const std::size_t bytes = static_cast<std::size_t>(width_of(sorted)) * sorted.element_size();
  for (std::size_t i = 0; i < routing.order.size(); ++i)
    std::memcpy(static_cast<char*>(result.mutable_data_ptr()) + routing.order[i] * bytes,
                static_cast<const char*>(sorted.const_data_ptr()) + i * bytes, bytes);
  return result;
}

struct Travel final : torch::autograd::Node {
  std::shared_ptr<const ExpertRouting> routing;
  ParallelLink link;
  bool outwards = true;             // in forward
  std::vector<std::int64_t> sizes;  // of the result, for a member whose result nobody used
  at::TensorOptions options;

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    const at::NoGradGuard no_grad;
    // Every member takes part, with or without a gradient of its own.
    const at::Tensor incoming = gradients[0].defined() ? gradients[0] : at::zeros(sizes, options);
    gradients.clear();
    return {outwards ? bring_back(incoming, *routing, link) : send_out(incoming, *routing, link)};
  }
  std::string name() const override { return outwards ? "CoxswainDispatchBackward" : "CoxswainCombineBackward"; }
};

at::Tensor travel(const at::Tensor& rows, std::shared_ptr<const ExpertRouting> routing, const ParallelLink& link,
                  bool outwards) {
  const bool requires_grad = torch::autograd::compute_requires_grad(rows);
  torch::autograd::edge_list edges;
  if (requires_grad) edges = torch::autograd::collect_next_edges(rows);
  const at::NoGradGuard no_grad;
  at::Tensor result = outwards ? send_out(rows.detach(), *routing, link) : bring_back(rows.detach(), *routing, link);
  if (requires_grad) {
    auto node = c10::make_intrusive<Travel>();
    node->routing = std::move(routing);
    node->link = link;
    node->outwards = outwards;
    node->sizes = result.sizes().vec();
    node->options = result.options();
    node->set_next_edges(std::move(edges));
    torch::autograd::set_history(result, node);
  }
  return result;
}

/// Rows over the group by expert. Throws past the capacity.
std::vector<std::int64_t> count_rows(const std::vector<std::int64_t>& all, const std::vector<Home>& homes,
                                     std::size_t members, const RoutingOptions& options) {
  std::vector<std::int64_t> rows(homes.size(), 0);
  for (std::size_t e = 0; e < homes.size(); ++e) {
    for (std::size_t m = 0; m < members; ++m) rows[e] += all[m * homes.size() + homes[e].place];
    TORCH_CHECK(options.capacity == 0 || rows[e] <= options.capacity, options.where, ": expert ", e, " got ", rows[e],
                " rows, its capacity is ", options.capacity, "; raise it or route without one");
  }
  return rows;
}

/// What arrives: from each member, its rows for the experts here, in the order of their places.
void list_arrivals(const std::vector<std::int64_t>& all, const std::vector<Home>& homes, int self,
                   ExpertRouting& routing) {
  std::vector<Home> here;
  for (const Home& home : homes)
    if (home.member == self) here.push_back(home);
  std::sort(here.begin(), here.end(), [](const Home& a, const Home& b) { return a.place < b.place; });
  std::vector<std::int64_t> arriving;
  for (std::size_t m = 0; m < routing.receive_rows.size(); ++m)
    for (const Home& home : here) {
      const std::int64_t count = all[m * homes.size() + home.place];
      routing.receive_rows[m] += count;
      arriving.insert(arriving.end(), static_cast<std::size_t>(count), home.own);
    }
  routing.own_experts =
      at::empty({static_cast<std::int64_t>(arriving.size())}, at::TensorOptions().dtype(c10::ScalarType::Long));
  std::copy(arriving.begin(), arriving.end(), routing.own_experts.mutable_data_ptr<std::int64_t>());
}

}  // namespace

std::shared_ptr<const ExpertRouting> route(const at::Tensor& indices, const RoutingOptions& options,
                                           const ParallelLink& link) {
  const auto runs = runs_by_member(options.runs, link.size());
  const std::vector<Home> homes = find_homes(runs);
  TORCH_CHECK(indices.dim() == 1 && indices.scalar_type() == c10::ScalarType::Long,
              "experts are chosen by one int64 a row, got ", indices.sizes(), " ", indices.scalar_type());
  const at::Tensor chosen = indices.contiguous();
  const std::int64_t* expert = chosen.const_data_ptr<std::int64_t>();
  const std::int64_t rows = chosen.numel(), experts = static_cast<std::int64_t>(homes.size());

  auto routing = std::make_shared<ExpertRouting>();
  std::vector<std::int64_t> own(homes.size(), 0);
  routing->send_rows.assign(runs.size(), 0);
  routing->receive_rows.assign(runs.size(), 0);
  for (std::int64_t r = 0; r < rows; ++r) {
    TORCH_CHECK(expert[r] >= 0 && expert[r] < experts, "row ", r, " chose expert ", expert[r], " of ", experts);
    ++own[homes[expert[r]].place];
    ++routing->send_rows[homes[expert[r]].member];
  }
  const std::vector<std::int64_t> all = exchange_counts(own, link);
  routing->rows_per_expert = count_rows(all, homes, runs.size(), options);
  std::vector<std::int64_t> next(homes.size(), 0);
  std::partial_sum(own.begin(), own.end() - 1, next.begin() + 1);
  routing->order.resize(static_cast<std::size_t>(rows));
  for (std::int64_t r = 0; r < rows; ++r) routing->order[next[homes[expert[r]].place]++] = r;
  list_arrivals(all, homes, link.index(), *routing);
  return routing;
}

at::Tensor dispatch(const at::Tensor& rows, std::shared_ptr<const ExpertRouting> routing, const ParallelLink& link) {
  return travel(rows, std::move(routing), link, true);
}

at::Tensor combine(const at::Tensor& rows, std::shared_ptr<const ExpertRouting> routing, const ParallelLink& link) {
  return travel(rows, std::move(routing), link, false);
}

}  // namespace coxswain::worker
