// Expected values: PyTorch 2.13's operator schemas as its documentation and native_functions.yaml print them.
#include "model/schema.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::model;

namespace {
const SchemaArgument& argument(std::string_view target, std::string_view name) {
  const OperatorSchema* schema = find_schema(target);
  REQUIRE(schema != nullptr);
  for (const auto& candidate : schema->arguments) {
    if (candidate.name == name) return candidate;
  }
  FAIL("no argument " << name);
  return schema->arguments.front();
}
}  // namespace

TEST_CASE("arguments stand in schema order", "[schema]") {
  const OperatorSchema* schema = find_schema("aten::layer_norm");
  REQUIRE(schema != nullptr);
  std::vector<std::string_view> names;
  for (const auto& candidate : schema->arguments) names.push_back(candidate.name);
  CHECK(names == std::vector<std::string_view>{"input", "normalized_shape", "weight", "bias", "eps", "cudnn_enable"});
  CHECK_FALSE(schema->arguments[0].has_default);
  CHECK(schema->arguments[1].is_list);
  CHECK(schema->arguments[2].is_optional);
}

TEST_CASE("defaults have the type of the argument", "[schema]") {
  CHECK(std::get<double>(argument("aten::layer_norm", "eps").default_value) == 1e-5);
  CHECK(std::get<Dim>(argument("aten::cross_entropy_loss", "ignore_index").default_value) == Dim(-100));
  CHECK(std::get<double>(argument("aten::cross_entropy_loss", "label_smoothing").default_value) == 0.0);
  CHECK(std::get<bool>(argument("aten::scaled_dot_product_attention", "is_causal").default_value) == false);
  CHECK(std::get<Dim>(argument("aten::add.Tensor", "alpha").default_value) == Dim(1));
  CHECK(std::get<std::string>(argument("aten::gelu", "approximate").default_value) == "none");
  CHECK(std::holds_alternative<None>(argument("aten::scaled_dot_product_attention", "scale").default_value));
  CHECK(std::get<std::vector<Dim>>(argument("aten::max_pool2d", "dilation").default_value) == std::vector<Dim>{1, 1});
  CHECK(argument("aten::max_pool2d", "kernel_size").list_size == 2);
}

TEST_CASE("layout, device, memory format and pinning are left to the engine", "[schema]") {
  for (const char* name : {"layout", "device", "pin_memory"}) {
    CHECK(std::holds_alternative<Ignored>(argument("aten::zeros", name).default_value));
  }
  CHECK(argument("aten::zeros", "dtype").kind == SchemaKind::ScalarType);
  CHECK(std::holds_alternative<Ignored>(argument("aten::clone", "memory_format").default_value));
}

TEST_CASE("in-place operators and unknown ones have no schema", "[schema]") {
  CHECK(find_schema("aten::add_.Tensor") == nullptr);
  CHECK(find_schema("aten::add") != find_schema("aten::add.Tensor"));
  CHECK(find_schema("aten::no_such_operator") == nullptr);
  CHECK(find_schema("") == nullptr);
  CHECK(find_schema("zzz") == nullptr);
}
