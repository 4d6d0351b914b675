#pragma once
// `launch plan --import FORMAT FILE` and `--export FORMAT`: options of plan with work of their own.
#include <string>
#include <vector>

#include "cluster/resource_graph.h"
#include "common/exit_code.h"
#include "common/result.h"
#include "model/model_graph.h"
#include "plan/plan.h"

namespace CLI {
class App;
}

namespace coxswain::launcher {

struct ExchangeOptions {
  std::vector<std::string> import;    // FORMAT, FILE; empty: none
  std::string export_format;          // empty: none
  const CLI::App* command = nullptr;  // whose other options --import refuses
};
void add_exchange_options(CLI::App& command, ExchangeOptions& options);

/// Solves another planner's problem. `file` may be a folder that holds FORMAT.json. Prints to stdout, and as JSON to
/// `out` when not empty. Errors: usage (a job or one of its options beside it), InvalidArgument with every problem of
/// the file, ResourceExhausted.
[[nodiscard]] Result<ExitCode> run_import(const ExchangeOptions& options, const std::string& output_format,
                                          const std::string& out);

/// The plan in the words of another tool on stdout, what that loses on stderr.
[[nodiscard]] Result<void> print_export(const plan::Plan& plan, const model::ModelGraph& model,
                                        const cluster::ResourceGraph& resources, const std::string& format);

}  // namespace coxswain::launcher
