#include "model/pt2_ops.h"

#include <algorithm>

#include "common/ensure.h"
#include "model/schema.h"

namespace coxswain::model {

Op make_op(std::string_view target, NamedArguments given, const Origin& origin) {
  const OperatorSchema* schema = find_schema(target);
  COX_ENSURE(schema != nullptr, target);
  Op op{std::string(target), {}, {}, origin.module_path, origin.source, origin.grad_enabled};
  for (const SchemaArgument& argument : schema->arguments) {
    const auto found =
        std::find_if(given.begin(), given.end(), [&](const auto& pair) { return pair.first == argument.name; });
    COX_ENSURE(found != given.end() || argument.has_default, target, argument.name);
    op.arguments.push_back({std::string(argument.name), found != given.end() ? found->second : argument.default_value});
  }
  return op;
}

ValueId add_value(ModelGraph& graph, std::string name, std::vector<Dim> dims, DType dtype) {
  Value value;
  value.name = std::move(name);
  value.dims = std::move(dims);
  value.dtype = dtype;
  graph.values.push_back(std::move(value));
  return static_cast<ValueId>(graph.values.size()) - 1;
}

ValueId emit_op(ModelGraph& graph, std::string_view target, NamedArguments given, const Origin& origin,
                std::string name, std::vector<Dim> dims, DType dtype) {
  Op op = make_op(target, given, origin);
  const ValueId value = add_value(graph, std::move(name), std::move(dims), dtype);
  op.outputs.push_back(value);
  graph.ops.push_back(std::move(op));
  return value;
}

}  // namespace coxswain::model
