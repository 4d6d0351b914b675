#pragma once
// Data for a model's inputs, one row a sample: tensors of a safetensors file that have the inputs' names, each with the
// samples on its first dim. Called by the launcher before anything starts, and by the engine. Threads: pure after
// opening. Source: INTERFACE section 2, data.tensors.
#include <filesystem>
#include <vector>

#include "model/model_graph.h"
#include "model/safetensors.h"

namespace coxswain::model {

struct InputRows {
  struct Column {
    const std::byte* first = nullptr;  // of the input's tensor
    Bytes row{0};                      // of one sample
  };
  SafetensorsFile file;         // keeps the mapping
  std::int64_t num_rows = 0;    // the same in every tensor
  std::vector<Column> columns;  // by position in graph.inputs
};

/// Tensors of other names are not looked at.
/// Errors, every problem at once, paths begin with `data.tensors`: as SafetensorsFile::open; InvalidArgument (a name
/// that is missing, another dtype, other dims, unequal numbers of rows, none, samples not on the first dim).
[[nodiscard]] Result<InputRows> open_input_rows(const ModelGraph& graph, const std::filesystem::path& path);

/// Every input that indexes a table (an embedding) with a number that is no row of it. Reads those inputs once.
[[nodiscard]] std::vector<Error> check_indices(const ModelGraph& graph, const InputRows& rows);

}  // namespace coxswain::model
