#include "common/log.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/bytes_io.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

namespace coxswain {
namespace {

/// What `body` writes to the process's standard error.
template <class Body>
std::string stderr_of(Body&& body) {
  const TempDir folder;
  const int saved = ::dup(STDERR_FILENO);
  const int file = ::open((folder / "stderr").c_str(), O_CREAT | O_WRONLY, 0600);
  ::dup2(file, STDERR_FILENO);
  body();
  ::dup2(saved, STDERR_FILENO);
  ::close(saved);
  ::close(file);
  return read_file(folder / "stderr").value();
}

TEST_CASE("a line names level, process and component, and braces are text") {
  const std::string text = stderr_of([] {
    set_log_name("rank 3");
    log(LogLevel::Warn, "agent", "lost {} of 4");
    set_log_name("");
    log(LogLevel::Error, "agent", "gone");
  });
  CHECK_THAT(text, Catch::Contains("warning [rank 3] agent: lost {} of 4\n"));
  CHECK_THAT(text, Catch::Contains("error agent: gone\n"));
}

TEST_CASE("lines below the level are not written") {
  const std::string text = stderr_of([] {
    log(LogLevel::Debug, "agent", "too detailed");
    set_log_level(LogLevel::Error);
    log(LogLevel::Warn, "agent", "too mild");
    set_log_level(LogLevel::Info);
    log(LogLevel::Info, "agent", "heard");
  });
  CHECK_THAT(text, !Catch::Contains("too"));
  CHECK_THAT(text, Catch::Contains("info agent: heard\n"));
}

}  // namespace
}  // namespace coxswain
