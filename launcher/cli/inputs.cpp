#include <cstdio>

#include <filesystem>

#include "common/bytes_io.h"
#include "launcher/cli/command.h"

namespace coxswain::launcher {

Result<Job> load_job_argument(const std::string& file) {
  auto job = load_job(file);
  if (!job && std::filesystem::path(file).extension() == ".py")
    return usage_error(job.error().message, job.error().expected, job.error().got, job.error().hint);
  return job;
}

Result<void> write_output(const std::string& text, const std::string& file) {
  if (!file.empty()) return write_file(file, text);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return {};
}

}  // namespace coxswain::launcher
