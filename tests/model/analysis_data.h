#pragma once
// What PyTorch said about the archives of make_expectations.py (fixture model_analysis).
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "common/env.h"
#include "common/json.h"

namespace coxswain::model {

inline std::filesystem::path analysis_folder() {
  return std::filesystem::path(env("COX_BINARY_DIR").value_or(".")) / "fixtures";
}

/// Throws when the fixture has not run.
inline Json analysis_data() {
  const std::filesystem::path file = analysis_folder() / "analysis.json";
  std::ifstream stream(file);
  if (!stream) throw std::runtime_error("no " + file.string() + ": run ctest, which makes it");
  std::ostringstream text;
  text << stream.rdbuf();
  return parse_json(text.str()).value();
}

}  // namespace coxswain::model
