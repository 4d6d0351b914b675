#include "launcher/job/job_model.h"

#include "common/bytes_io.h"
#include "model/load.h"

namespace coxswain::launcher {

Result<model::ModelGraph> load_model_file(const std::filesystem::path& path, std::int64_t sequence_length) {
  std::error_code code;
  if (!std::filesystem::exists(path, code))
    return Error{ErrorCode::NotFound, "model not found",
                 path.string(),       "a .pt2 file, a folder with config.json, or a config.json",
                 "nothing there",     ""};
  if (path.extension() == ".pt2") return model::load_pt2(path);
  if (path.extension() == ".py")
    return Error{ErrorCode::InvalidArgument,
                 "a Python script is no model",
                 path.string(),
                 "a .pt2 file or a config.json",
                 path.filename().string(),
                 "export it once: coxswain.export(module, example_inputs, \"model.pt2\")"};
  const auto config_file = std::filesystem::is_directory(path, code) ? path / "config.json" : path;
  COX_TRY(std::string text, read_file(config_file));
  auto json = parse_json(text);
  if (!json) return with_path_prefix(json.error(), config_file.string());
  auto graph = model::build_from_config(*json, {.sequence_length = sequence_length});
  if (!graph) return with_path_prefix(graph.error(), config_file.string());
  return graph;
}

Result<model::ModelGraph> load_job_model(const Job& job) {
  if (job.model.config) {
    auto graph = model::build_from_config(*job.model.config, {.sequence_length = job.data.sequence_length});
    if (!graph) return with_path_prefix(graph.error(), job.file.string() + "  model.config");
    return graph;
  }
  return load_model_file(job.model.pt2.empty() ? job.model.huggingface_folder : job.model.pt2,
                         job.data.sequence_length);
}

Result<std::shared_ptr<const cost_model::KnownModel>> know_job_model(const Job& job) {
  COX_TRY(model::ModelGraph graph, load_job_model(job));
  return std::make_shared<const cost_model::KnownModel>(std::move(graph));
}

}  // namespace coxswain::launcher
