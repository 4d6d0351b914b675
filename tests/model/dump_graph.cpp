// Prints a model's graph as JSON, complete enough to run it elsewhere: run_graph.py and run_config.py execute it in
// PyTorch. The model is a .pt2 archive, or a Hugging Face config.json with a sequence length.
#include <fstream>
#include <iostream>
#include <sstream>

#include "common/json.h"
#include "model/load.h"

using namespace coxswain;
using namespace coxswain::model;

namespace {

Json location_json(const std::optional<WeightLocation>& weights) {
  if (!weights) return nullptr;
  JsonArray strides;
  for (const auto stride : weights->strides) strides.emplace_back(stride);
  return JsonObject{{"entry", weights->entry},
                    {"file_offset", weights->file_offset},
                    {"storage_offset", weights->storage_offset},
                    {"strides", std::move(strides)}};
}

template <class Tensor>
Json tensor_json(const Tensor& tensor) {
  JsonArray dims;
  for (const auto dim : tensor.dims) dims.emplace_back(dim);
  return JsonObject{{"name", tensor.name},
                    {"value", tensor.value},
                    {"dims", std::move(dims)},
                    {"dtype", to_text(tensor.dtype)},
                    {"weights", location_json(tensor.weights)}};
}

struct ToJson {
  Json operator()(None) const { return JsonObject{{"none", true}}; }
  Json operator()(Ignored) const { return JsonObject{{"ignored", true}}; }
  Json operator()(ValueRef reference) const { return JsonObject{{"value", reference.id}}; }
  Json operator()(const std::vector<std::optional<ValueRef>>& list) const {
    JsonArray ids;
    for (const auto& reference : list) ids.push_back(reference ? Json(reference->id) : Json(nullptr));
    return JsonObject{{"values", std::move(ids)}};
  }
  Json operator()(const Dim& dim) const { return JsonObject{{"dim", dim.to_text()}}; }
  Json operator()(const std::vector<Dim>& list) const {
    JsonArray dims;
    for (const Dim& dim : list) dims.emplace_back(dim.to_text());
    return JsonObject{{"dims", std::move(dims)}};
  }
  Json operator()(double number) const { return JsonObject{{"float", std::to_string(number)}, {"hex", hex(number)}}; }
  Json operator()(const std::vector<double>& list) const {
    JsonArray numbers;
    for (const double number : list) numbers.emplace_back(hex(number));
    return JsonObject{{"floats", std::move(numbers)}};
  }
  Json operator()(bool flag) const { return JsonObject{{"bool", flag}}; }
  Json operator()(const std::vector<bool>& list) const {
    JsonArray flags;
    for (const bool flag : list) flags.emplace_back(flag);
    return JsonObject{{"bools", std::move(flags)}};
  }
  Json operator()(const std::string& text) const { return JsonObject{{"string", text}}; }
  Json operator()(DType dtype) const { return JsonObject{{"dtype", to_text(dtype)}}; }

  static std::string hex(double number) {
    char text[64];
    std::snprintf(text, sizeof text, "%a", number);
    return text;
  }
};

Json op_json(const Op& op) {
  JsonArray arguments, outputs;
  for (const Argument& argument : op.arguments) {
    arguments.push_back(JsonArray{argument.name, std::visit(ToJson{}, argument.value)});
  }
  for (const ValueId output : op.outputs) outputs.emplace_back(output);
  return JsonObject{{"target", op.target},           {"arguments", std::move(arguments)},
                    {"outputs", std::move(outputs)}, {"module_path", op.module_path},
                    {"source", op.source},           {"grad_enabled", op.grad_enabled}};
}

Json graph_json(const ModelGraph& graph) {
  JsonArray values, ops, parameters, buffers, inputs, loss, blocks, coupled;
  for (const Value& value : graph.values) {
    JsonArray dims;
    for (const Dim& dim : value.dims) dims.emplace_back(dim.to_text());
    values.push_back(JsonObject{{"name", value.name}, {"dims", std::move(dims)}, {"dtype", to_text(value.dtype)}});
  }
  for (const Op& op : graph.ops) ops.push_back(op_json(op));
  for (const Parameter& parameter : graph.parameters) {
    Json json = tensor_json(parameter);
    json["tied"] = JsonArray(parameter.tied_names.begin(), parameter.tied_names.end());
    json["trainable"] = parameter.trainable;
    parameters.push_back(std::move(json));
  }
  for (const Buffer& buffer : graph.buffers) {
    buffers.push_back(tensor_json(buffer));
    if (!buffer.content) continue;
    JsonArray content;
    for (const double element : *buffer.content) content.emplace_back(ToJson::hex(element));
    buffers.back()["content"] = std::move(content);
  }
  for (const Input& input : graph.inputs) {
    inputs.push_back(JsonObject{{"name", input.name}, {"value", input.value}, {"sample_dim", input.sample_dim}});
  }
  for (const LossTerm& term : graph.loss) {
    loss.push_back(JsonObject{{"coefficient", term.coefficient},
                              {"numerator", term.numerator},
                              {"denominator", term.denominator ? Json(*term.denominator) : Json(nullptr)}});
  }
  for (const Block& block : graph.blocks) {
    blocks.push_back(JsonObject{
        {"name", block.name}, {"first_op", block.first_op}, {"end_op", block.end_op}, {"signature", block.signature}});
  }
  for (const CoupledOp& op : graph.coupled) coupled.push_back(JsonObject{{"op", op.op}, {"reason", op.reason}});
  return JsonObject{{"batch_symbol", graph.batch_symbol},  {"static_batch", graph.static_batch},
                    {"values", std::move(values)},         {"ops", std::move(ops)},
                    {"parameters", std::move(parameters)}, {"buffers", std::move(buffers)},
                    {"inputs", std::move(inputs)},         {"loss", std::move(loss)},
                    {"blocks", std::move(blocks)},         {"coupled", std::move(coupled)}};
}

Result<ModelGraph> load_config(const std::string& file, std::int64_t sequence_length) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  COX_TRY(const Json config, parse_json(text.str()));
  return build_from_config(config, {sequence_length});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    std::cerr << "use: dump_graph MODEL.pt2 | dump_graph CONFIG.json SEQUENCE_LENGTH\n";
    return 64;
  }
  const auto graph = argc == 2 ? load_pt2(argv[1]) : load_config(argv[1], std::stoll(argv[2]));
  if (!graph) {
    std::cerr << to_text(graph.error());
    return 65;
  }
  std::cout << to_text(graph_json(*graph)) << "\n";
  return 0;
}
