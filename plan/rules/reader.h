#pragma once
// What a rule reads of an operator: arguments by name, with every dim a number. Private to plan/rules. Threads: pure.
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "model/model_graph.h"

namespace coxswain::plan {

using Sizes = std::vector<std::int64_t>;

class OpReader {
 public:
  struct Tensor {
    int argument = -1, element = -1;
    model::ValueId value = -1;
    Sizes sizes;
  };

  OpReader(const model::ModelGraph& graph, const model::Op& op, std::int64_t samples);

  [[nodiscard]] std::string_view target() const { return op_.target; }
  [[nodiscard]] bool is_overload(std::string_view overload) const;
  /// Of op.arguments, or -1.
  [[nodiscard]] int position(std::string_view name) const;
  /// Tensors in argument order, absent ones left out.
  [[nodiscard]] const std::vector<Tensor>& inputs() const { return inputs_; }
  /// Outputs that someone uses.
  [[nodiscard]] const std::vector<Tensor>& outputs() const { return outputs_; }
  /// Number of `name` among inputs(), or -1.
  [[nodiscard]] int input(std::string_view name) const;
  /// Numbers of the tensors of a list argument, -1 for none; a single tensor is a list of one.
  [[nodiscard]] std::vector<int> input_list(std::string_view name) const;
  [[nodiscard]] const Sizes& sizes(int input) const { return inputs_[static_cast<std::size_t>(input)].sizes; }
  [[nodiscard]] bool is_floating(const Tensor& tensor) const;
  [[nodiscard]] std::optional<std::int64_t> integer(std::string_view name) const;
  [[nodiscard]] std::optional<Sizes> integers(std::string_view name) const;
  [[nodiscard]] bool flag(std::string_view name, bool otherwise = false) const;
  [[nodiscard]] std::optional<std::string_view> text(std::string_view name) const;
  [[nodiscard]] bool is_none(std::string_view name) const;

 private:
  [[nodiscard]] std::int64_t evaluate(const model::Dim& dim) const;
  [[nodiscard]] const model::Argument::Variant* find(std::string_view name) const;
  void add(std::vector<Tensor>& list, int argument, int element, model::ValueId value) const;

  const model::ModelGraph& graph_;
  const model::Op& op_;
  model::Bindings bindings_;
  std::vector<Tensor> inputs_, outputs_;
};

/// A dim that may be counted from the end.
[[nodiscard]] inline std::size_t wrap(std::int64_t dim, std::size_t rank) {
  const auto positive = dim < 0 ? dim + static_cast<std::int64_t>(rank) : dim;
  return static_cast<std::size_t>(positive);
}

}  // namespace coxswain::plan
