// parse_job: YAML or JSON of a job; one that it takes is written as YAML that it takes too.
#include <cstdint>

#include "launcher/job/job.h"

using namespace coxswain;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto job = launcher::parse_job(std::string(reinterpret_cast<const char*>(data), size), "/nothing/job.yaml");
  if (!job) return 0;
  if (!launcher::parse_job(launcher::to_yaml(*job), "/nothing/job.yaml")) __builtin_trap();
  return 0;
}
