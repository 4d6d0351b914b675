#pragma once
// Builds operators into a graph under construction: arguments by name, defaults from the schema table. Used by the .pt2
// reader where it rewrites what the archive holds. Private to this folder. Threads: one at a time.
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "model/model_graph.h"

namespace coxswain::model {

/// Where a rewritten operator says it comes from.
struct Origin {
  std::string module_path;
  std::string source;
  bool grad_enabled = true;
};

using NamedArguments = std::initializer_list<std::pair<std::string_view, Argument::Variant>>;

/// `target` with `given` and defaults for the rest, no outputs. Requires: a known operator and every argument without a
/// default given.
[[nodiscard]] Op make_op(std::string_view target, NamedArguments given, const Origin& origin);

/// Appends a value; returns its id.
ValueId add_value(ModelGraph& graph, std::string name, std::vector<Dim> dims, DType dtype);

/// Appends `make_op` with one new output named `name`; returns that value.
ValueId emit_op(ModelGraph& graph, std::string_view target, NamedArguments given, const Origin& origin,
                std::string name, std::vector<Dim> dims, DType dtype);

}  // namespace coxswain::model
