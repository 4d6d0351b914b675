#pragma once
// Does the job's data fit its model? Asked before anything starts. A text: length, validation tail, vocabulary, and
// that the model was exported for the job's sequence length. Tensors: names, dtypes, dims, validation tail, indices of
// tables. Called by launch plan, validate and train.
#include <vector>

#include "common/error.h"
#include "launcher/job/job.h"
#include "model/model_graph.h"

namespace coxswain::launcher {

/// Every problem; empty when the data can feed the model. Reads a text, or what indexes tables, once.
[[nodiscard]] std::vector<Error> check_data(const Job& job, const model::ModelGraph& graph);

/// Rows of the smallest table that an input indexes: one more than the largest token id. 0: no input indexes a table.
[[nodiscard]] std::int64_t vocabulary_of(const model::ModelGraph& graph);

}  // namespace coxswain::launcher
