#include "launcher/job/job_data.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "common/bytes_io.h"
#include "model/input_rows.h"

namespace coxswain::launcher {
namespace {

const model::ValueRef* value_argument(const model::Op& op, std::size_t position) {
  if (position >= op.arguments.size()) return nullptr;
  return std::get_if<model::ValueRef>(&op.arguments[position].value);
}

bool is_input(const model::ModelGraph& graph, model::ValueId value) {
  return std::any_of(graph.inputs.begin(), graph.inputs.end(),
                     [value](const model::Input& input) { return input.value == value; });
}

std::vector<Error> check_length(const Job& job, const model::ModelGraph& graph, std::int64_t size) {
  std::vector<Error> problems;
  const std::int64_t sequence = job.data.sequence_length;
  const auto tail = static_cast<std::int64_t>(std::floor(static_cast<double>(size) * job.validation.fraction));
  if (size - tail < sequence + 1)
    problems.push_back({ErrorCode::InvalidArgument, "the training text is too short for one window", "data.text",
                        "at least " + std::to_string(sequence + 1) + " bytes before the held-back tail",
                        std::to_string(size - tail) + " bytes", "use a longer text or a smaller data.sequence_length"});
  const std::int64_t windows = tail > 0 ? (tail - 1) / sequence : 0;
  const std::int64_t wanted = job.validation.steps * job.global_batch;
  if (wanted > windows)
    problems.push_back({ErrorCode::InvalidArgument, "the held-back tail is too short for validation",
                        "validation.fraction",
                        "at least " + std::to_string(wanted) + " windows (validation.steps x batch.global) of " +
                            std::to_string(sequence) + " bytes",
                        std::to_string(windows) + " windows", "raise validation.fraction or lower validation.steps"});
  for (const model::Input& input : graph.inputs) {
    const auto& dims = graph.values[static_cast<std::size_t>(input.value)].dims;
    if (dims.size() < 2 || !dims[1].is_constant() || dims[1].constant() == sequence) continue;
    problems.push_back({ErrorCode::InvalidArgument, "the sequence length is not the one the model was exported with",
                        "data.sequence_length", std::to_string(dims[1].constant()), std::to_string(sequence),
                        "export the model with the wanted length, or change data.sequence_length"});
    break;
  }
  return problems;
}

std::optional<Error> check_tokens(const std::string& text, std::int64_t vocabulary) {
  if (vocabulary == 0 || vocabulary >= 256) return std::nullopt;
  const auto wrong = std::find_if(text.begin(), text.end(),
                                  [vocabulary](char c) { return static_cast<unsigned char>(c) >= vocabulary; });
  if (wrong == text.end()) return std::nullopt;
  return Error{ErrorCode::InvalidArgument,
               "the text holds tokens that the model has no embedding for",
               "data.text",
               "bytes below " + std::to_string(vocabulary) + ", the rows of the model's embedding",
               "byte " + std::to_string(static_cast<unsigned char>(*wrong)) + " at offset " +
                   std::to_string(wrong - text.begin()),
               "bytes are tokens: export the model with a vocabulary of 256"};
}

std::vector<Error> check_tensors(const Job& job, const model::ModelGraph& graph) {
  const auto rows = model::open_input_rows(graph, job.data.tensors);
  if (!rows) return rows.error().details.empty() ? std::vector<Error>{rows.error()} : rows.error().details;
  std::vector<Error> problems = model::check_indices(graph, *rows);
  const auto tail =
      static_cast<std::int64_t>(std::floor(static_cast<double>(rows->num_rows) * job.validation.fraction));
  const std::int64_t wanted = job.validation.steps * job.global_batch;
  if (wanted > tail)
    problems.push_back({ErrorCode::InvalidArgument, "the held-back tail is too short for validation",
                        "validation.fraction",
                        "at least " + std::to_string(wanted) + " rows (validation.steps x batch.global)",
                        std::to_string(tail) + " rows", "raise validation.fraction or lower validation.steps"});
  return problems;
}

std::vector<Error> check_text(const Job& job, const model::ModelGraph& graph) {
  const auto text = read_file(job.data.text);
  std::vector<Error> problems;
  if (!text) {
    problems.push_back(
        {ErrorCode::NotFound, "the data file cannot be read", "data.text", "a text file",
         job.data.text.string() + ": " + (text.error().got.empty() ? text.error().message : text.error().got), ""});
  } else {
    problems = check_length(job, graph, static_cast<std::int64_t>(text->size()));
    if (auto problem = check_tokens(*text, vocabulary_of(graph))) problems.push_back(std::move(*problem));
  }
  return problems;
}

}  // namespace

std::int64_t vocabulary_of(const model::ModelGraph& graph) {
  std::int64_t rows = 0;
  for (const model::Op& op : graph.ops) {
    if (op.target.rfind("aten::embedding", 0) != 0) continue;
    const model::ValueRef* table = value_argument(op, 0);
    const model::ValueRef* indices = value_argument(op, 1);
    if (table == nullptr || indices == nullptr || !is_input(graph, indices->id)) continue;
    const auto& dims = graph.values[static_cast<std::size_t>(table->id)].dims;
    if (dims.empty() || !dims[0].is_constant()) continue;
    rows = rows == 0 ? dims[0].constant() : std::min(rows, dims[0].constant());
  }
  return rows;
}

std::vector<Error> check_data(const Job& job, const model::ModelGraph& graph) {
  std::vector<Error> problems = job.data.tensors.empty() ? check_text(job, graph) : check_tensors(job, graph);
  for (Error& problem : problems) problem.path = job.file.string() + "  " + problem.path;
  return problems;
}

}  // namespace coxswain::launcher
