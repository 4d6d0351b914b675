#include "model/storage.h"

#include "tests/model/raw_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::model;

// Expected strides and failures are what `torch.empty_strided(...).view(...)` gives in PyTorch 2.13.
TEST_CASE("elements read under other dims where their strides allow") {
  CHECK(restride({2, 3, 4}, {12, 4, 1}, {6, 4}) == Sizes{4, 1});
  CHECK(restride({2, 3, 4}, {12, 4, 1}, {2, 12}) == Sizes{12, 1});
  CHECK(restride({2, 3, 4}, {12, 4, 1}, {2, 3, 2, 2}) == Sizes{12, 4, 2, 1});
  CHECK(restride({2, 3, 4}, {24, 8, 1}, {6, 4}) == Sizes{8, 1});  // rows with gaps
  CHECK_FALSE(restride({2, 3, 4}, {24, 8, 1}, {24}).has_value());
  CHECK_FALSE(restride({2, 4, 3}, {12, 1, 4}, {2, 12}).has_value());  // transposed
  CHECK(restride({2, 4, 3}, {12, 1, 4}, {2, 2, 2, 3}) == Sizes{12, 2, 1, 4});
  CHECK(restride({1, 3}, {77, 1}, {3}) == Sizes{1});  // a dim of one has any stride
  CHECK(restride({3, 1}, {1, 1}, {3, 1, 1}).has_value());
  CHECK(restride({4, 3}, {0, 1}, {2, 2, 3}) == Sizes{0, 0, 1});  // repeated rows
  CHECK_FALSE(restride({4, 3}, {0, 1}, {12}).has_value());
  CHECK(restride({}, {}, {1, 1}) == Sizes{1, 1});
  CHECK(restride({2, 0}, {0, 1}, {0, 5}).has_value());
}

namespace {

struct Model : RawGraph {
  ValueId view(ValueId x, std::vector<Dim> dims) {
    return op("", "aten::view", {{"self", ValueRef{x}}, {"size", dims}}, dims);
  }
  ValueId transpose(ValueId x, int a, int b) {
    std::vector<Dim> dims = graph.values[x].dims;
    std::swap(dims[static_cast<std::size_t>(a)], dims[static_cast<std::size_t>(b)]);
    return op("", "aten::transpose.int", {{"self", ValueRef{x}}, {"dim0", Dim(a)}, {"dim1", Dim(b)}}, std::move(dims));
  }
  ValueId reshape(ValueId x, std::vector<Dim> dims) {
    return op("", "aten::reshape", {{"self", ValueRef{x}}, {"shape", dims}}, dims);
  }
  [[nodiscard]] StorageMap run() const { return StorageMap(graph, 0, static_cast<OpId>(graph.ops.size()), 3); }
};

}  // namespace

TEST_CASE("merging heads copies after a transpose, and is a view after attention") {
  Model m;
  const ValueId x = m.input("x", {m.batch, Dim(6), Dim(8)});
  const ValueId heads = m.transpose(m.view(x, {m.batch, Dim(6), Dim(2), Dim(4)}), 1, 2);
  const ValueId doubled = m.unary("", "aten::neg", heads);  // keeps the order of its input
  const ValueId merged = m.reshape(m.transpose(doubled, 1, 2), {m.batch, Dim(6), Dim(8)});
  const ValueId flat = m.reshape(heads, {m.batch, Dim(48)});
  const ValueId mixed = m.op("", "aten::scaled_dot_product_attention",
                             {{"query", ValueRef{heads}}, {"key", ValueRef{heads}}, {"value", ValueRef{heads}}},
                             {m.batch, Dim(2), Dim(6), Dim(4)});
  const ValueId joined = m.reshape(m.transpose(mixed, 1, 2), {m.batch, Dim(6), Dim(8)});
  const StorageMap storage = m.run();
  CHECK(storage.base(heads) == x);
  CHECK(storage.base(merged) == doubled);
  CHECK(storage.base(flat) == flat);
  CHECK(storage.base(joined) == mixed);
  CHECK(storage.at(heads).strides == Sizes{48, 4, 8, 1});
  CHECK(storage.at(doubled).strides == Sizes{48, 4, 8, 1});
  CHECK(storage.storage_bytes(heads) == Bytes(3 * 6 * 8 * 4));
}

TEST_CASE("pieces and repeats share the storage of the whole") {
  Model m;
  const ValueId x = m.input("x", {m.batch, Dim(1), Dim(6)});
  const ValueId wide =
      m.op("", "aten::expand", {{"self", ValueRef{x}}, {"size", std::vector<Dim>{m.batch, Dim(5), Dim(6)}}},
           {m.batch, Dim(5), Dim(6)});
  Op split =
      make_op("aten::split.Tensor", {{"self", ValueRef{wide}}, {"split_size", Dim(3)}, {"dim", Dim(-1)}}, Origin{});
  const ValueId left = add_value(m.graph, "left", {m.batch, Dim(5), Dim(3)}, DType::Float32);
  const ValueId right = add_value(m.graph, "right", {m.batch, Dim(5), Dim(3)}, DType::Float32);
  split.outputs = {left, right};
  m.graph.ops.push_back(split);
  const ValueId picked =
      m.op("", "aten::select.int", {{"self", ValueRef{right}}, {"dim", Dim(1)}, {"index", Dim(0)}}, {m.batch, Dim(3)});
  const StorageMap storage = m.run();
  CHECK(storage.base(picked) == x);
  CHECK(storage.storage_bytes(right) == Bytes(3 * 6 * 4));
  CHECK(storage.distinct_bytes(wide) == Bytes(3 * 6 * 4));  // five times the same rows
  CHECK(storage.at(picked).strides == Sizes{6, 1});
  CHECK(storage.is_view(split));
  CHECK_FALSE(storage.is_contiguous(wide));
}

TEST_CASE("a conversion to the same type is the same tensor") {
  Model m;
  const ValueId x = m.input("x", {m.batch, Dim(4)});
  const ValueId same =
      m.op("", "aten::to.dtype", {{"self", ValueRef{x}}, {"dtype", DType::Float32}}, {m.batch, Dim(4)});
  const ValueId wider =
      m.op("", "aten::to.dtype", {{"self", ValueRef{x}}, {"dtype", DType::Float64}}, {m.batch, Dim(4)}, DType::Float64);
  const StorageMap storage = m.run();
  CHECK(storage.base(same) == x);
  CHECK(storage.base(wider) == wider);
  CHECK(storage.storage_bytes(wider) == Bytes(3 * 4 * 8));
}
