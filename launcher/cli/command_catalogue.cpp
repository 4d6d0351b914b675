// launch catalogue: the hardware that can be planned for without having it.
#include <CLI/CLI.hpp>

#include "cluster/catalogue.h"
#include "launcher/cli/command.h"

namespace coxswain::launcher {
namespace {

struct Options {
  std::string cluster;
  std::string out;
};

Result<ExitCode> run(const Options& options) {
  std::string text = cluster::list_catalogue();
  if (!options.cluster.empty()) {
    COX_TRY(auto graph, cluster::cluster_from_catalogue(options.cluster));
    text = to_text(cluster::to_json(graph), 2) + "\n";
  }
  COX_TRY_VOID(write_output(text, options.out));
  return ExitCode::Done;
}

}  // namespace

void add_catalogue_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("catalogue", "hardware to plan for without having it");
  auto options = std::make_shared<Options>();
  command->add_option("CLUSTER", options->cluster,
                      "print this one as a cluster file, to be edited: 16x8xh100-sxm,ib400; default: list all names");
  command->add_option("--out", options->out, "write there");
  command->callback([&action, options] { action = [options] { return run(*options); }; });
}

}  // namespace coxswain::launcher
