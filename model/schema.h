#pragma once
// Argument names, types and defaults of functional ATen operators: a table generated at build time from the pinned
// PyTorch (make_schema_table.py), so that `launch` needs no libtorch. Called by the .pt2 reader and the builders.
// Threads: any; the table is read once, on first use.
#include <string_view>
#include <vector>

#include "model/model_graph.h"

namespace coxswain::model {

enum class SchemaKind { Tensor, Int, Float, Bool, String, Number, ScalarType, Ignored };

struct SchemaArgument {
  std::string_view name;
  SchemaKind kind = SchemaKind::Tensor;
  bool is_list = false;
  bool is_optional = false;  // None is allowed
  int list_size = 0;         // int[2]: one integer stands for as many
  bool has_default = false;
  Argument::Variant default_value;  // Ignored for layout, device, memory format, generator and pin_memory
};

struct OperatorSchema {
  std::string_view target;  // "aten::add.Tensor"
  std::vector<SchemaArgument> arguments;
};

/// Null when `target` is not a functional ATen operator.
[[nodiscard]] const OperatorSchema* find_schema(std::string_view target);

}  // namespace coxswain::model
