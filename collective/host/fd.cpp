#include "collective/host/fd.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace coxswain::collective {

void UniqueFd::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Error system_error(ErrorCode code, const std::string& what) {
  return {code, what + ": " + std::strerror(errno), "", "", "", ""};
}

}  // namespace coxswain::collective
