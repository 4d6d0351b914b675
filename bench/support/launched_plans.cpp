#include "bench/support/launched_plans.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "common/bytes_io.h"

namespace coxswain::bench {
namespace {

constexpr double kProbeLimitSeconds = 600;

Json read_json(const std::filesystem::path& file) { return or_end(parse_json(or_end(read_file(file.string())))); }

}  // namespace

LaunchedPlans::LaunchedPlans(const TrainJob& job, std::string devices, std::filesystem::path folder)
    : devices_(std::move(devices)), folder_(folder.empty() ? make_scratch_folder("plans") : std::move(folder)) {
  std::filesystem::create_directories(folder_);
  if (!std::filesystem::exists(folder_ / "profile.json")) {
    const ProcessResult result =
        run_process({(program_folder() / "launch").string(), "probe", "--job", write_job(job, folder_).string(),
                     "--devices", devices_, "--out", (folder_ / "cluster.json").string()},
                    kProbeLimitSeconds);
    if (result.exit_code != 0) {
      std::fprintf(stderr, "launch probe: exit %d\n%s", result.exit_code, result.errors.c_str());
      std::exit(1);
    }
  }
  cluster_ = or_end(cluster::resource_graph_from_json(read_json(folder_ / "cluster.json")));
  profile_ = or_end(cluster::profile_from_json(read_json(folder_ / "profile.json")));
}

TrainRun LaunchedPlans::run(const TrainJob& job, const plan::Plan& plan, std::vector<std::string> flags,
                            double limit_seconds) const {
  const std::string file = (folder_ / "plan.json").string();
  or_end(write_file(file, to_text(Json(JsonObject{{"plan", plan::to_json(plan)}}), 2) + "\n"));
  for (const std::string& word : {std::string("--devices"), devices_, std::string("--plan"), file})
    flags.push_back(word);
  return run_train(job, flags, limit_seconds);
}

}  // namespace coxswain::bench
