// load_pt2: a file in memory, as the service looks at a model that was sent.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>

#include "model/load.h"

using namespace coxswain;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const int file = ::memfd_create("model", 0);
  if (file < 0) return 0;
  if (::write(file, data, size) == static_cast<ssize_t>(size))
    static_cast<void>(model::load_pt2("/proc/self/fd/" + std::to_string(file)));
  ::close(file);
  return 0;
}
