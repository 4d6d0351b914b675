#include "tests/support/graph_builder.h"

namespace coxswain {
namespace {

using model::Argument;
using model::Dim;
using model::None;
using model::ValueRef;

class Builder {
 public:
  explicit Builder(const ChainOptions& options) : options_(options) {}

  model::ModelGraph build() {
    graph_.name = "chain";
    if (options_.static_batch) {
      graph_.batch_symbol.clear();
      graph_.static_batch = 8;
    }
    const Dim batch = options_.static_batch ? Dim(8) : Dim::symbol("batch");
    const Dim sequence(options_.sequence);
    const int tokens = input("tokens", {batch, sequence});
    const int labels = input("labels", {batch, sequence});

    const int embedding = parameter("embedding.weight", {options_.vocabulary, options_.width});
    begin("prologue");
    int hidden = op("aten::embedding", "embedding",
                    {{"weight", ValueRef{embedding}},
                     {"indices", ValueRef{tokens}},
                     {"padding_idx", Dim(-1)},
                     {"scale_grad_by_freq", false},
                     {"sparse", false}},
                    {batch, sequence, Dim(options_.width)});
    end("prologue");
    for (int layer = 0; layer < options_.num_layers; ++layer) hidden = add_layer(layer, hidden, batch, sequence);
    add_epilogue(hidden, embedding, labels, batch, sequence);
    return std::move(graph_);
  }

 private:
  int value(std::string name, std::vector<Dim> dims, DType dtype, bool depends) {
    graph_.values.push_back({std::move(name), std::move(dims), dtype, depends, depends, -1});
    return static_cast<int>(graph_.values.size()) - 1;
  }

  int input(const std::string& name, std::vector<Dim> dims) {
    const int id = value(name, std::move(dims), DType::Int64, false);
    graph_.inputs.push_back({name, id, 0});
    return id;
  }

  int parameter(const std::string& name, std::vector<std::int64_t> dims) {
    std::vector<Dim> symbolic(dims.begin(), dims.end());
    const int id = value(name, std::move(symbolic), DType::Float32, true);
    model::Parameter made;
    made.name = name;
    made.value = id;
    made.dims = std::move(dims);
    graph_.parameters.push_back(std::move(made));
    return id;
  }

  int op(std::string target, std::string path, std::vector<Argument> arguments, std::vector<Dim> dims,
         DType dtype = DType::Float32, bool depends = true) {
    const int out = value("v" + std::to_string(graph_.values.size()), std::move(dims), dtype, depends);
    graph_.values.back().producer = static_cast<int>(graph_.ops.size());
    model::Op made;
    made.target = std::move(target);
    made.arguments = std::move(arguments);
    made.outputs = {out};
    made.module_path = std::move(path);
    graph_.ops.push_back(std::move(made));
    return out;
  }

  void begin(std::string name) {
    graph_.blocks.push_back({std::move(name), static_cast<int>(graph_.ops.size()), 0, ""});
  }
  void end(std::string signature) {
    graph_.blocks.back().end_op = static_cast<int>(graph_.ops.size());
    graph_.blocks.back().signature = std::move(signature);
  }

  int add_layer(int layer, int hidden, const Dim& batch, const Dim& sequence) {
    const std::string path = "layers." + std::to_string(layer);
    const int weight = parameter(path + ".weight", {options_.width, options_.width});
    const std::vector<Dim> dims{batch, sequence, Dim(options_.width)};
    begin(path);
    const int linear =
        op("aten::linear", path, {{"input", ValueRef{hidden}}, {"weight", ValueRef{weight}}, {"bias", None{}}}, dims);
    const int gelu = op("aten::gelu", path, {{"self", ValueRef{linear}}, {"approximate", std::string("none")}}, dims);
    const int sum =
        op("aten::add.Tensor", path, {{"self", ValueRef{hidden}}, {"other", ValueRef{gelu}}, {"alpha", Dim(1)}}, dims);
    end("layer");
    return sum;
  }

  void add_epilogue(int hidden, int embedding, int labels, const Dim& batch, const Dim& sequence) {
    const int head = options_.tied ? embedding : parameter("head.weight", {options_.vocabulary, options_.width});
    if (options_.tied) graph_.parameters.front().tied_names.push_back("head.weight");
    const Dim rows = batch * sequence;
    begin("epilogue");
    const int logits =
        op("aten::linear", "head", {{"input", ValueRef{hidden}}, {"weight", ValueRef{head}}, {"bias", None{}}},
           {batch, sequence, Dim(options_.vocabulary)});
    const int flat = op("aten::reshape", "",
                        {{"self", ValueRef{logits}}, {"shape", std::vector<Dim>{rows, Dim(options_.vocabulary)}}},
                        {rows, Dim(options_.vocabulary)});
    const int target = op("aten::reshape", "", {{"self", ValueRef{labels}}, {"shape", std::vector<Dim>{rows}}}, {rows},
                          DType::Int64, false);
    const int numerator = op("aten::cross_entropy_loss", "",
                             {{"self", ValueRef{flat}},
                              {"target", ValueRef{target}},
                              {"weight", None{}},
                              {"reduction", Dim(2)},
                              {"ignore_index", Dim(-100)},
                              {"label_smoothing", 0.0}},
                             {});
    const int kept =
        op("aten::ne.Scalar", "", {{"self", ValueRef{target}}, {"other", Dim(-100)}}, {rows}, DType::Bool, false);
    const int denominator = op("aten::sum", "", {{"self", ValueRef{kept}}, {"dtype", None{}}}, {}, DType::Int64, false);
    end("epilogue");
    graph_.loss.push_back({1.0, numerator, denominator});
  }

  ChainOptions options_;
  model::ModelGraph graph_;
};

}  // namespace

model::ModelGraph make_chain_graph(const ChainOptions& options) { return Builder(options).build(); }

}  // namespace coxswain
