#include "model/show.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "model/finish_parts.h"
#include "model/op_cost.h"

namespace coxswain::model {
namespace {

std::int64_t shown_samples(const ModelGraph& graph, std::int64_t wanted) {
  return graph.batch_symbol.empty() ? graph.static_batch : wanted;
}

Json dims_json(const ModelGraph& graph, ValueId value) {
  JsonArray dims;
  for (const Dim& dim : graph.values[value].dims)
    dims.push_back(dim.is_constant() ? Json(dim.constant()) : Json(dim.to_text()));
  return dims;
}

Json value_json(const ModelGraph& graph, ValueId value) {
  return JsonObject{{"name", graph.values[value].name},
                    {"dims", dims_json(graph, value)},
                    {"dtype", std::string(to_text(graph.values[value].dtype))}};
}

Json parameters_json(const ModelGraph& graph) {
  JsonArray parameters;
  for (const Parameter& parameter : graph.parameters) {
    JsonArray dims(parameter.dims.begin(), parameter.dims.end());
    JsonArray tied(parameter.tied_names.begin(), parameter.tied_names.end());
    parameters.push_back(JsonObject{{"name", parameter.name},
                                    {"dims", std::move(dims)},
                                    {"dtype", std::string(to_text(parameter.dtype))},
                                    {"trainable", parameter.trainable},
                                    {"tied_names", std::move(tied)}});
  }
  return parameters;
}

Json operators_json(const ModelGraph& graph, int block, std::int64_t samples) {
  JsonArray operators;
  const std::vector<OpCost> costs = estimate_op_costs(graph, block, samples);
  for (std::size_t i = 0; i < costs.size(); ++i) {
    const Op& op = graph.ops[static_cast<std::size_t>(graph.blocks[block].first_op) + i];
    JsonArray outputs;
    for (const ValueId output : op.outputs)
      if (output >= 0) outputs.push_back(dims_json(graph, output));
    operators.push_back(JsonObject{{"operator", op.target},
                                   {"class", std::string(to_text(costs[i].op_class))},
                                   {"module", op.module_path},
                                   {"source", op.source},
                                   {"output_dims", std::move(outputs)},
                                   {"forward_flop", costs[i].forward_flop.value},
                                   {"forward_bytes", costs[i].forward_bytes.value},
                                   {"backward_bytes", costs[i].backward_bytes.value}});
  }
  return operators;
}

/// What stands in the way of a cut before block `cut`, or nothing: integers that carry no gradient are sent as well.
Json cuts_json(const ModelGraph& graph, std::int64_t samples) {
  JsonArray cuts;
  const auto live = live_at_cuts(graph);
  for (int cut = 1; cut < graph.num_blocks(); ++cut) {
    if (graph.blocks[cut - 1].end_op == 0 || graph.blocks[cut].first_op == static_cast<OpId>(graph.ops.size()))
      continue;
    JsonArray values;
    Bytes bytes{0};
    for (const ValueId value : live[cut]) {
      values.push_back(value_json(graph, value));
      bytes += value_bytes(graph, value, samples);
    }
    cuts.push_back(JsonObject{{"before_block", std::int64_t{cut}},
                              {"block", graph.blocks[cut].name},
                              {"values", std::move(values)},
                              {"bytes", bytes.value}});
  }
  return cuts;
}

struct UnknownOperator {
  std::string module, source;
  std::int64_t count = 0;
};
std::map<std::string, UnknownOperator> unknown_operators(const ModelGraph& graph) {
  std::map<std::string, UnknownOperator> unknown;
  for (const Op& op : graph.ops) {
    if (has_cost_rule(op)) continue;
    const auto [place, fresh] = unknown.try_emplace(op.target, UnknownOperator{op.module_path, op.source, 0});
    ++place->second.count;
  }
  return unknown;
}

struct Totals {
  std::int64_t parameters = 0, trainable = 0;
  double forward = 0, backward = 0;
  Bytes saved{0};
};
Totals total(const ModelGraph& graph, std::int64_t samples) {
  Totals totals;
  for (const Parameter& parameter : graph.parameters) {
    std::int64_t elements = 1;
    for (const std::int64_t dim : parameter.dims) elements *= dim;
    totals.parameters += elements;
    totals.trainable += parameter.trainable ? elements : 0;
  }
  Bytes shared{0};
  for (int block = 0; block < graph.num_blocks(); ++block) {
    const BlockTotals one = estimate_block(graph, block, samples);
    totals.forward += one.forward_flop.value;
    totals.backward += one.backward_input_flop.value + one.backward_weight_flop.value;
    totals.saved += one.saved_bytes;
    shared = std::max(shared, one.shared_bytes);
  }
  totals.saved += shared;
  return totals;
}

std::string grouped(std::int64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string scaled(double value, double step, const std::vector<std::string>& units) {
  std::size_t unit = 0;
  while (value >= step && unit + 1 < units.size()) {
    value /= step;
    ++unit;
  }
  std::array<char, 48> text{};
  std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.2f %s", value, units[unit].c_str());
  return text.data();
}
std::string bytes_text(Bytes bytes) {
  return scaled(static_cast<double>(bytes.value), 1024, {"B", "KiB", "MiB", "GiB", "TiB"});
}
std::string flop_text(double flop) { return scaled(flop, 1000, {"FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"}); }

std::string aligned(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows)
    for (std::size_t column = 0; column < row.size(); ++column) {
      if (widths.size() <= column) widths.push_back(0);
      widths[column] = std::max(widths[column], row[column].size());
    }
  std::string text;
  for (const auto& row : rows) {
    std::string line = " ";
    for (std::size_t column = 0; column < row.size(); ++column) {
      const std::string padding(widths[column] - row[column].size(), ' ');
      line += ' ' + (column == 0 ? row[column] + padding : padding + row[column]) + ' ';
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + '\n';
  }
  return text;
}

std::string place_text(const std::string& module, const std::string& source) {
  std::string text = module.empty() ? "(top)" : module;
  if (!source.empty()) text += " (" + source + ")";
  return text;
}

std::string block_name(const ModelGraph& graph, int first, int end) {
  return end - first == 1 ? graph.blocks[first].name : graph.blocks[first].name + " .. " + graph.blocks[end - 1].name;
}

/// One row per run of equal blocks.
std::string blocks_text(const ModelGraph& graph, std::int64_t samples) {
  std::vector<std::vector<std::string>> rows{
      {"block", "count", "operators", "parameters", "forward", "kept for backward", "transient", "cut before"}};
  for (int first = 0; first < graph.num_blocks();) {
    int end = first + 1;
    while (end < graph.num_blocks() && graph.blocks[end].signature == graph.blocks[first].signature) ++end;
    const BlockTotals one = estimate_block(graph, first, samples);
    rows.push_back({block_name(graph, first, end), std::to_string(end - first), std::to_string(one.num_ops),
                    grouped(one.parameter_elements), flop_text(one.forward_flop.value), bytes_text(one.saved_bytes),
                    bytes_text(one.transient_bytes), first == 0 ? "-" : bytes_text(one.received_bytes)});
    first = end;
  }
  return aligned(rows);
}

}  // namespace

Json show_json(const ModelGraph& graph, std::int64_t wanted) {
  const std::int64_t samples = shown_samples(graph, wanted);
  JsonArray blocks;
  std::map<std::string, std::int64_t> counts;
  for (const Op& op : graph.ops) ++counts[op.target];
  for (int block = 0; block < graph.num_blocks(); ++block) {
    const BlockTotals one = estimate_block(graph, block, samples);
    blocks.push_back(JsonObject{{"name", graph.blocks[block].name},
                                {"signature", graph.blocks[block].signature},
                                {"num_operators", one.num_ops},
                                {"num_parameters", one.parameter_elements},
                                {"forward_flop", one.forward_flop.value},
                                {"backward_flop", one.backward_input_flop.value + one.backward_weight_flop.value},
                                {"saved_bytes", one.saved_bytes.value},
                                {"shared_bytes", one.shared_bytes.value},
                                {"transient_bytes", one.transient_bytes.value},
                                {"received_bytes", one.received_bytes.value},
                                {"sent_bytes", one.cut_bytes.value},
                                {"operators", operators_json(graph, block, samples)}});
  }
  JsonArray inputs, loss, coupled, unknown;
  for (const Input& input : graph.inputs) {
    Json json = value_json(graph, input.value);
    json["name"] = input.name;
    json["sample_dim"] = input.sample_dim;
    inputs.push_back(std::move(json));
  }
  for (const LossTerm& term : graph.loss)
    loss.push_back(JsonObject{{"coefficient", term.coefficient},
                              {"numerator", graph.values[term.numerator].name},
                              {"denominator", term.denominator ? Json(graph.values[*term.denominator].name) : Json()}});
  for (const CoupledOp& one : graph.coupled)
    coupled.push_back(JsonObject{{"operator", graph.ops[one.op].target},
                                 {"module", graph.ops[one.op].module_path},
                                 {"source", graph.ops[one.op].source},
                                 {"reason", one.reason}});
  for (const auto& [target, one] : unknown_operators(graph))
    unknown.push_back(
        JsonObject{{"operator", target}, {"module", one.module}, {"source", one.source}, {"count", one.count}});
  JsonObject operator_counts;
  for (const auto& [target, count] : counts) operator_counts[target] = count;
  const Totals totals = total(graph, samples);
  return JsonObject{{"name", graph.name},
                    {"model_hash", model_hash(graph)},
                    {"batch", graph.batch_symbol.empty() ? Json(graph.static_batch) : Json(graph.batch_symbol)},
                    {"samples", samples},
                    {"inputs", std::move(inputs)},
                    {"loss", std::move(loss)},
                    {"parameters", parameters_json(graph)},
                    {"blocks", std::move(blocks)},
                    {"cuts", cuts_json(graph, samples)},
                    {"coupled", std::move(coupled)},
                    {"operators", std::move(operator_counts)},
                    {"without_cost_rule", std::move(unknown)},
                    {"notes", JsonArray(graph.notes.begin(), graph.notes.end())},
                    {"totals", JsonObject{{"num_parameters", totals.parameters},
                                          {"num_trainable_parameters", totals.trainable},
                                          {"num_operators", static_cast<std::int64_t>(graph.ops.size())},
                                          {"forward_flop", totals.forward},
                                          {"backward_flop", totals.backward},
                                          {"saved_bytes", totals.saved.value}}}};
}

std::string show_table(const ModelGraph& graph, std::int64_t wanted) {
  const std::int64_t samples = shown_samples(graph, wanted);
  const Totals totals = total(graph, samples);
  std::string text = graph.name + ": " + grouped(totals.parameters) + " parameters";
  if (totals.trainable != totals.parameters) text += " (" + grouped(totals.trainable) + " trainable)";
  text += ", " + std::to_string(graph.ops.size()) + " operators, " + std::to_string(graph.num_blocks()) +
          (graph.num_blocks() == 1 ? " block, " : " blocks, ");
  text +=
      graph.batch_symbol.empty() ? "batch fixed at " + std::to_string(graph.static_batch) : std::string("any batch");
  text += "\n" + std::to_string(samples) + (samples == 1 ? " sample: " : " samples: ") + flop_text(totals.forward) +
          " forward, " + flop_text(totals.backward) + " backward, " + bytes_text(totals.saved) + " kept for backward\n";
  for (const Input& input : graph.inputs) {
    text += "input " + input.name + ": " + std::string(to_text(graph.values[input.value].dtype)) + " (";
    const auto& dims = graph.values[input.value].dims;
    for (std::size_t d = 0; d < dims.size(); ++d) text += (d == 0 ? "" : ", ") + dims[d].to_text();
    text += ")\n";
  }
  for (const Parameter& parameter : graph.parameters)
    for (const std::string& name : parameter.tied_names) text += "tied: " + name + " is " + parameter.name + "\n";
  text += "\n" + blocks_text(graph, samples) + "\n";
  if (graph.num_blocks() > 1) text += "Stages may be cut before any block.\n";
  for (const std::string& note : graph.notes) text += "note: " + note + "\n";
  for (const CoupledOp& one : graph.coupled)
    text += "couples samples: " + graph.ops[one.op].target + " at " +
            place_text(graph.ops[one.op].module_path, graph.ops[one.op].source) + " " + one.reason +
            (one.sums.empty() ? "" : " (replicas that hold all experts together can put them together)") + "\n";
  for (const auto& [target, one] : unknown_operators(graph))
    text += "no cost rule (taken as pointwise, keeps its inputs): " + target + " x " + std::to_string(one.count) +
            ", first at " + place_text(one.module, one.source) + "\n";
  return text;
}

}  // namespace coxswain::model
