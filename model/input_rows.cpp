#include "model/input_rows.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

namespace coxswain::model {
namespace {

std::string text_of(const std::vector<std::int64_t>& dims) {
  std::string text;
  for (const std::int64_t dim : dims) text += (text.empty() ? "" : ", ") + std::to_string(dim);
  return "[" + text + "]";
}

std::string names_of(const SafetensorsFile& file) {
  std::string names;
  for (const auto& [name, tensor] : file.tensors()) names += (names.empty() ? "" : ", ") + name;
  return names.empty() ? "no tensor" : names;
}

class Opener {
 public:
  Opener(const ModelGraph& graph, SafetensorsFile file) : graph_(graph) { rows_.file = std::move(file); }

  Result<InputRows> open() {
    for (const Input& input : graph_.inputs) add(input);
    if (problems_.empty() && rows_.num_rows == 0)
      problems_.push_back({ErrorCode::InvalidArgument, "the data holds no sample", "data.tensors", "at least one row",
                           "none", "write one row a sample"});
    if (problems_.empty()) return std::move(rows_);
    return combine_errors(ErrorCode::InvalidArgument, "the tensors cannot feed the model's inputs",
                          std::move(problems_));
  }

 private:
  void add(const Input& input) {
    const std::string path = "data.tensors: " + input.name;
    const Value& value = graph_.values[input.value];
    const auto found = rows_.file.tensors().find(input.name);
    if (found == rows_.file.tensors().end())
      return problem("an input of the model has no data", path, "a tensor of that name", names_of(rows_.file),
                     "name the tensors as the arguments of the exported module's forward");
    const StoredTensor& tensor = found->second;
    if (input.sample_dim != 0)
      return problem("the input's samples do not lie on its first dim", path, "dim 0",
                     "dim " + std::to_string(input.sample_dim), "export the model with samples first");
    if (tensor.dtype != value.dtype)
      problem("another dtype than the model's input", path, std::string(to_text(value.dtype)),
              std::string(to_text(tensor.dtype)), "convert the tensor, or export the model with such an input");
    if (tensor.dims.empty()) return problem("a tensor without samples", path, "samples on the first dim", "[]", "");
    // Only the first dim counts samples.
    std::vector<std::int64_t> expected{tensor.dims[0]};
    for (std::size_t d = 1; d < value.dims.size(); ++d)
      expected.push_back(value.dims[d].evaluate({{graph_.batch_symbol, tensor.dims[0]}}));
    if (tensor.dims != expected)
      return problem("other dims than the model's input", path, text_of(expected), text_of(tensor.dims),
                     "write one row a sample, of the shape the model was exported with");
    if (rows_.columns.empty()) rows_.num_rows = tensor.dims[0];
    if (tensor.dims[0] != rows_.num_rows)
      problem("inputs with unequal numbers of samples", path, std::to_string(rows_.num_rows) + " rows",
              std::to_string(tensor.dims[0]), "");
    rows_.columns.push_back({tensor.data, Bytes(tensor.size.value / std::max<std::int64_t>(tensor.dims[0], 1))});
  }

  void problem(std::string what, std::string path, std::string expected, std::string got, std::string hint) {
    problems_.push_back({ErrorCode::InvalidArgument, std::move(what), std::move(path), std::move(expected),
                         std::move(got), std::move(hint)});
  }

  const ModelGraph& graph_;
  InputRows rows_;
  std::vector<Error> problems_;
};

/// The first element outside [0, bound); -1: none.
std::int64_t first_outside(const StoredTensor& tensor, std::int64_t bound) {
  const std::int64_t count = tensor.size.value / static_cast<std::int64_t>(sizeof(std::int64_t));
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t element = 0;
    std::memcpy(&element, tensor.data + i * static_cast<std::int64_t>(sizeof element), sizeof element);
    if (element < 0 || element >= bound) return i;
  }
  return -1;
}

}  // namespace

Result<InputRows> open_input_rows(const ModelGraph& graph, const std::filesystem::path& path) {
  auto file = SafetensorsFile::open(path);
  if (!file) {
    Error error = file.error();
    error.path = "data.tensors" + (error.path.empty() ? "" : ": " + error.path);
    return error;
  }
  return Opener(graph, std::move(*file)).open();
}

std::vector<Error> check_indices(const ModelGraph& graph, const InputRows& rows) {
  std::vector<Error> problems;
  for (const Op& op : graph.ops) {
    if (op.target.rfind("aten::embedding", 0) != 0 || op.arguments.size() < 2) continue;
    const auto* table = std::get_if<ValueRef>(&op.arguments[0].value);
    const auto* indices = std::get_if<ValueRef>(&op.arguments[1].value);
    if (table == nullptr || indices == nullptr) continue;
    const Dim& dim = graph.values[table->id].dims.at(0);
    for (const Input& input : graph.inputs) {
      if (input.value != indices->id || !dim.is_constant()) continue;
      const StoredTensor& tensor = rows.file.tensors().at(input.name);
      if (tensor.dtype != DType::Int64) continue;
      const std::int64_t place = first_outside(tensor, dim.constant());
      if (place < 0) continue;
      std::int64_t element = 0;
      std::memcpy(&element, tensor.data + place * static_cast<std::int64_t>(sizeof element), sizeof element);
      problems.push_back({ErrorCode::InvalidArgument, "an index that the model has no row of its table for",
                          "data.tensors: " + input.name, "0 to " + std::to_string(dim.constant() - 1),
                          std::to_string(element) + " in row " +
                              std::to_string(place * rows.num_rows * static_cast<std::int64_t>(sizeof element) /
                                             std::max<std::int64_t>(tensor.size.value, 1)),
                          "export the model with a larger table, or write other numbers"});
    }
  }
  return problems;
}

}  // namespace coxswain::model
