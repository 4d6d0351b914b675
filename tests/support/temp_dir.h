#pragma once
// A folder of a test's own: removed when the test passes, kept and named on stderr when it ends by an exception
// (Catch2 leaves a failed REQUIRE that way) or `keep()` was called. Threads: one.
#include <exception>
#include <filesystem>
#include <iostream>
#include <string>

#include "common/hash.h"

namespace coxswain {

class TempDir {
 public:
  TempDir() : path_(std::filesystem::temp_directory_path() / ("coxswain-test-" + random_hex(6))) {
    std::filesystem::create_directories(path_);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    if (kept_ || std::uncaught_exceptions() > 0) {
      std::cerr << "kept for a look: " << path_ << "\n";
      return;
    }
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  void keep() { kept_ = true; }

 private:
  std::filesystem::path path_;
  bool kept_ = false;
};

}  // namespace coxswain
