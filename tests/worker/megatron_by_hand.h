#pragma once
// A layout of the example's GPT written by hand, so that the engine's part can be tested apart from the search for
// layouts: heads and columns of the MLP split over the tensor axis (unevenly), residual stream whole, sums behind both
// projections; or, with `sequence`, scattered along the sequence for the dropout behind them (Megatron-LM, arXiv
// 1909.08053 and 2205.05198).
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "plan/layout/local_graph.h"

namespace coxswain::tests {

class MegatronByHand {
 public:
  explicit MegatronByHand(bool sequence) : sequence_(sequence) {}

  Result<plan::LocalGraph> operator()(const model::ModelGraph& graph, const plan::Stage&, const plan::Replica& replica,
                                      int position) const {
    return Writer(graph, replica, position, sequence_).write();
  }

 private:
  using Runs = std::vector<plan::Cut::Run>;

  class Writer {
   public:
    Writer(const model::ModelGraph& graph, const plan::Replica& replica, int position, bool sequence)
        : graph_(graph), members_(replica.tensor), position_(position), sequence_(sequence) {
      local_.graph = graph;
      bind(replica.samples);
      local_.axes = plan::mesh_axes(replica);
      all_ = (plan::AxisSet{1} << local_.axes.size()) - 1;
      local_.cuts.resize(graph.values.size());
      local_.gradient_axes.assign(graph.parameters.size(), all_);
    }

    plan::LocalGraph write() {
      const std::vector<model::Op> ops = std::exchange(local_.graph.ops, {});
      std::vector<int> place;
      for (std::size_t i = 0; i < ops.size(); ++i) {
        place.push_back(static_cast<int>(local_.graph.ops.size()));
        write_op(ops[i], static_cast<int>(i));
      }
      place.push_back(static_cast<int>(local_.graph.ops.size()));
      for (model::Block& block : local_.graph.blocks) {
        block.first_op = place[block.first_op];
        block.end_op = place[block.end_op];
      }
      for (std::size_t i = 0; i < local_.graph.ops.size(); ++i)
        for (const model::ValueId v : local_.graph.ops[i].outputs)
          if (v >= 0) local_.graph.values[v].producer = static_cast<int>(i);
      return std::move(local_);
    }

   private:
    void bind(std::int64_t samples) {
      const model::Bindings bindings{{graph_.batch_symbol, samples}};
      const auto evaluate = [&](model::Dim& dim) { dim = model::Dim(dim.evaluate(bindings)); };
      for (model::Value& value : local_.graph.values) std::for_each(value.dims.begin(), value.dims.end(), evaluate);
      for (model::Op& op : local_.graph.ops)
        for (model::Argument& argument : op.arguments) {
          if (auto* dim = std::get_if<model::Dim>(&argument.value)) evaluate(*dim);
          if (auto* dims = std::get_if<std::vector<model::Dim>>(&argument.value))
            std::for_each(dims->begin(), dims->end(), evaluate);
        }
      local_.graph.batch_symbol.clear();
      local_.graph.static_batch = samples;
    }

    /// The first member gets more.
    [[nodiscard]] plan::Cut::Run run_of(std::int64_t extent, int member) const {
      std::int64_t first = 0, size = 0;
      const std::int64_t each = extent / members_, more = extent / members_ > 4 ? 1 : 0;
      for (int m = 0; m <= member; ++m) {
        first += size;
        size = m == 0 ? extent - (members_ - 1) * (each - more) : each - more;
      }
      return {first, size};
    }

    void cut(model::ValueId value, int dim, std::int64_t outer, std::int64_t extent, std::int64_t inner) {
      const plan::Cut::Run run = run_of(extent, position_);
      local_.cuts[value].push_back({dim, outer, extent, inner, all_, {run}});
      local_.graph.values[value].dims[dim] = model::Dim(outer * run.size * inner);
      for (std::size_t p = 0; p < local_.graph.parameters.size(); ++p) {
        if (local_.graph.parameters[p].value != value) continue;
        local_.graph.parameters[p].dims[dim] = outer * run.size * inner;
        local_.gradient_axes[p] = 0;
      }
    }

    static model::Argument::Variant& argument(model::Op& op, const std::string& name) {
      return std::find_if(op.arguments.begin(), op.arguments.end(),
                          [&](const model::Argument& a) { return a.name == name; })
          ->value;
    }
    static model::ValueId weight_of(model::Op& op) { return std::get<model::ValueRef>(argument(op, "weight")).id; }

    model::ValueId new_value(model::ValueId like) {
      local_.graph.values.push_back(local_.graph.values[like]);
      local_.cuts.emplace_back();
      return static_cast<model::ValueId>(local_.graph.values.size()) - 1;
    }

    void add(model::Op op, int origin) {
      local_.graph.ops.push_back(std::move(op));
      local_.origin.push_back(origin);
    }

    /// A transition from `from` to `to`, along the sequence where it has a cut.
    void transition(const std::string& target, model::ValueId from, model::ValueId to, const model::Op& near) {
      model::Op op;
      op.target = "coxswain::" + target;
      op.module_path = near.module_path;
      op.arguments = {{"self", model::ValueRef{from}}, {"axes", model::Dim(static_cast<std::int64_t>(all_))}};
      if (target != "all_reduce") {
        std::vector<model::Dim> runs;
        for (int m = 0; m < members_; ++m) {
          runs.emplace_back(run_of(kSequence, m).first);
          runs.emplace_back(run_of(kSequence, m).size);
        }
        op.arguments.push_back({"dim", model::Dim(1)});
        op.arguments.push_back({"outer", model::Dim(1)});
        op.arguments.push_back({"inner", model::Dim(1)});
        op.arguments.push_back({"runs", std::move(runs)});
      }
      op.outputs = {to};
      add(std::move(op), -1);
    }

    void write_op(model::Op op, int origin) {
      const auto ends = [&](const std::string& with) { return op.module_path.ends_with(with); };
      if (ends(".attention.projection_in")) {
        cut(weight_of(op), 0, 3, kHeads, kHeadDim);
        cut(op.outputs[0], 2, 3, kHeads, kHeadDim);
      } else if (ends(".mlp.projection_in")) {
        cut(weight_of(op), 0, 1, kColumns, 1);
        cut(op.outputs[0], 2, 1, kColumns, 1);
      } else if (ends(".mlp")) {
        cut(op.outputs[0], 2, 1, kColumns, 1);
      } else if (ends(".attention")) {
        write_attention(op);
      } else if (ends(".projection_out")) {
        return write_projection_out(op, origin);
      } else if (sequence_ && ends(".dropout") && op.module_path != "dropout") {
        return write_dropout(op, origin);
      }
      add(std::move(op), origin);
    }

    void write_attention(model::Op& op) {
      const std::int64_t heads = run_of(kHeads, position_).size;
      const auto is = [&](const std::string& target) { return op.target.starts_with("aten::" + target); };
      if (is("view")) {
        std::get<std::vector<model::Dim>>(argument(op, "size"))[3] = model::Dim(heads);
        cut(op.outputs[0], 3, 1, kHeads, 1);
      } else if (is("reshape")) {
        std::get<std::vector<model::Dim>>(argument(op, "shape"))[2] = model::Dim(heads * kHeadDim);
        cut(op.outputs[0], 2, 1, kHeads, kHeadDim);
      } else {
        const int dim = is("permute") || is("transpose") ? 2 : 1;
        for (const model::ValueId v : op.outputs) cut(v, dim, 1, kHeads, 1);
      }
    }

    void write_projection_out(model::Op& op, int origin) {
      const bool attention = op.module_path.find("attention") != std::string::npos;
      cut(weight_of(op), 1, 1, attention ? kHeads : kColumns, attention ? kHeadDim : 1);
      const model::ValueId sum = op.outputs[0], part = new_value(sum);
      op.outputs[0] = part;
      add(op, origin);
      if (sequence_) {
        scattered_ = new_value(sum);
        transition("reduce_scatter", part, scattered_, op);
        cut(scattered_, 1, 1, kSequence, 1);
      } else {
        transition("all_reduce", part, sum, op);
      }
    }

    void write_dropout(model::Op& op, int origin) {
      const model::ValueId whole = op.outputs[0], part = new_value(whole);
      op.arguments[0].value = model::ValueRef{scattered_};
      op.outputs[0] = part;
      cut(part, 1, 1, kSequence, 1);
      add(op, origin);
      transition("all_gather", part, whole, op);
    }

    static constexpr std::int64_t kHeads = 4, kHeadDim = 8, kColumns = 128, kSequence = 16;  // of the fixture
    const model::ModelGraph& graph_;
    int members_, position_;
    bool sequence_;
    plan::AxisSet all_ = 0;
    plan::LocalGraph local_;
    model::ValueId scattered_ = -1;
  };

  bool sequence_;
};

}  // namespace coxswain::tests
