#include "tests/model/raw_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::model;

namespace {

struct Options {
  std::int64_t width = 4;
  bool other_last = false;  // the last layer has another activation
  std::string name = "h";
  bool frozen = false;
};

ModelGraph make(const Options& options = {}) {
  RawGraph raw;
  const std::vector<Dim> dims{raw.batch, Dim(options.width)};
  ValueId h = raw.input("x", dims);
  h = raw.linear("embed", h, raw.parameter("embed.weight", {options.width, options.width}), dims);
  for (int layer = 0; layer < 3; ++layer) {
    const std::string path = options.name + "." + std::to_string(layer);
    h = raw.linear(path, h,
                   raw.parameter(path + ".weight", {options.width, options.width}, !(options.frozen && layer == 1)),
                   dims);
    h = raw.unary(path, options.other_last && layer == 2 ? "aten::relu" : "aten::tanh", h);
  }
  raw.loss(raw.sum("", h));
  REQUIRE(finish_graph(raw.graph).has_value());
  return std::move(raw.graph);
}

}  // namespace

TEST_CASE("equal layers share a signature, unequal ones do not") {
  const ModelGraph equal = make();
  REQUIRE(equal.num_blocks() == 5);
  CHECK(equal.blocks[1].signature.size() == 16);
  CHECK(equal.blocks[1].signature == equal.blocks[2].signature);
  CHECK(equal.blocks[2].signature == equal.blocks[3].signature);
  CHECK(equal.blocks[0].signature != equal.blocks[1].signature);

  Options options;
  options.other_last = true;
  const ModelGraph unequal = make(options);
  CHECK(unequal.blocks[1].signature == unequal.blocks[2].signature);
  CHECK(unequal.blocks[2].signature != unequal.blocks[3].signature);
}

TEST_CASE("a signature knows shapes and what is trained, not names") {
  const std::string signature = make().blocks[1].signature;
  Options options;
  options.name = "layers";
  CHECK(make(options).blocks[1].signature == signature);
  options.width = 8;
  CHECK(make(options).blocks[1].signature != signature);
  Options frozen;
  frozen.frozen = true;
  CHECK(make(frozen).blocks[2].signature != make(frozen).blocks[3].signature);
}

TEST_CASE("the model hash ignores files, source lines and notes, and nothing else") {
  const ModelGraph graph = make();
  const std::string hash = model_hash(graph);
  CHECK(hash.size() == 64);
  ModelGraph same = graph;
  same.name = "other";
  same.source_file = "other.pt2";
  same.notes.push_back("remark");
  same.ops[0].source = "elsewhere.py:1";
  same.parameters[0].weights = WeightLocation{};
  CHECK(model_hash(same) == hash);

  ModelGraph tied = graph;
  tied.parameters[0].tied_names.push_back("head.weight");
  CHECK(model_hash(tied) != hash);
  ModelGraph frozen = graph;
  frozen.parameters[0].trainable = false;
  CHECK(model_hash(frozen) != hash);
  ModelGraph scaled = graph;
  scaled.loss[0].coefficient = 0.5;
  CHECK(model_hash(scaled) != hash);
  ModelGraph renamed = graph;
  renamed.ops[1].target = "aten::sin";
  CHECK(model_hash(renamed) != hash);
  ModelGraph argument = graph;
  argument.ops[0].arguments[2].value = 1.5;
  CHECK(model_hash(argument) != hash);
  Options options;
  options.width = 8;
  CHECK(model_hash(make(options)) != hash);
}
