// launch export: the weights of a checkpoint for other tools.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "checkpoint/export_weights.h"
#include "common/bytes_io.h"
#include "common/hash.h"
#include "launcher/cli/command.h"
#include "launcher/control/resume.h"

namespace coxswain::launcher {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string checkpoint, out;
  std::string format = "huggingface";
};

/// The config of the model that a run trained: RUN/job.yaml, beside RUN/checkpoints/step_N. Nothing where it is not to
/// be had.
std::string config_of(const fs::path& checkpoint) {
  const fs::path file = fs::absolute(checkpoint).parent_path().parent_path() / "job.yaml";
  const auto text = read_file(file);
  if (!text) return "";
  const auto job = parse_job(*text, file.string());
  if (!job) return "";
  if (job->model.config) return to_text(*job->model.config, 2) + "\n";
  if (job->model.huggingface_folder.empty()) return "";
  return read_file(job->model.huggingface_folder / "config.json").value_or("");
}

/// A folder that takes its name when it is whole; removed else.
class NewFolder {
 public:
  static Result<NewFolder> make(const fs::path& name) {
    NewFolder folder;
    folder.name_ = name;
    folder.path_ = name.string() + "." + random_hex(4) + ".partial";
    std::error_code code;
    if (fs::exists(name, code) && !fs::is_empty(name, code))
      return Error{
          ErrorCode::AlreadyExists, "the folder is not empty", name.string(), "a new folder", "files", "--out"};
    fs::create_directories(folder.path_, code);
    if (code)
      return Error{ErrorCode::FailedPrecondition, "cannot make the folder", name.string(), "", code.message(), "--out"};
    return folder;
  }
  NewFolder(NewFolder&& other) noexcept : name_(other.name_), path_(std::exchange(other.path_, {})) {}
  NewFolder& operator=(NewFolder&&) = delete;
  ~NewFolder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  [[nodiscard]] const fs::path& path() const { return path_; }
  Result<void> finish() {
    std::error_code code;
    fs::remove(name_, code);  // an empty one
    fs::rename(path_, name_, code);
    if (code)
      return Error{ErrorCode::FailedPrecondition,
                   "cannot put the folder in its place",
                   name_.string(),
                   "",
                   code.message(),
                   "--out"};
    path_.clear();
    return {};
  }

 private:
  NewFolder() = default;
  fs::path name_, path_;
};

Result<ExitCode> run(const Options& options) {
  COX_TRY(const checkpoint::Found found, find_checkpoint_at(options.checkpoint));
  const bool huggingface = options.format == "huggingface";
  fs::path name = fs::path(options.out).lexically_normal();
  if (!name.has_filename()) name = name.parent_path();  // DIR/
  COX_TRY(NewFolder out, NewFolder::make(name));
  checkpoint::ExportOptions how;
  how.strips_common_prefix = huggingface;
  COX_TRY(const auto exported, checkpoint::export_weights(found.folder, found.manifest, out.path(), how));
  const std::string config = huggingface ? config_of(found.folder) : "";
  if (!config.empty()) COX_TRY_VOID(write_file(out.path() / "config.json", config));
  COX_TRY_VOID(out.finish());
  std::printf("%s: step %lld, %lld parameters, %lld elements in float32\n", options.out.c_str(),
              static_cast<long long>(found.manifest.progress.step), static_cast<long long>(exported.num_parameters),
              static_cast<long long>(exported.num_elements));
  if (!exported.stripped.empty()) std::printf("left out of every name: %s\n", exported.stripped.c_str());
  if (huggingface && config.empty())
    std::printf("no config.json: the run's job names none; put the model's own there\n");
  std::printf("not in a checkpoint, and so not here: parameters that are not trained, and buffers\n");
  return ExitCode::Done;
}

}  // namespace

void add_export_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("export", "the weights of a checkpoint for other tools");
  auto options = std::make_shared<Options>();
  command
      ->add_option("CHECKPOINT", options->checkpoint,
                   "a checkpoint, a folder of them (the newest whole one), or a run's folder")
      ->required();
  command
      ->add_option(
          "--format", options->format,
          "huggingface: as from_pretrained reads it, with config.json where the run's job has one, and without "
          "a first part of the names that all parameters share; safetensors: the files alone, names as they "
          "are")
      ->check(CLI::IsMember({"huggingface", "safetensors"}))
      ->capture_default_str();
  command->add_option("--out", options->out, "a new folder")->required();
  command->callback([&action, options] { action = [options] { return run(*options); }; });
}

}  // namespace coxswain::launcher
