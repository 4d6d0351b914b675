#pragma once
// One walker of a YAML tree (it knows lines) against one protobuf schema: unknown keys, wrong types and broken rules
// are collected, each with file, line and path. JSON is YAML. Called by job.cpp. Threads: pure.
#include <map>
#include <string>
#include <vector>

#include "common/error.h"

namespace google::protobuf {
class Message;
}

namespace coxswain::launcher {

struct Walk {
  std::vector<Error> problems;        // in document order
  std::map<std::string, int> lines;   // dotted path -> line of its key, from 1
  bool uses_missing_feature = false;  // some problem is a value that this version cannot do
};

/// Fills `message` from `text`. `file` is the name used in paths ("job.yaml:14  plan.tensor").
[[nodiscard]] Walk walk_yaml(const std::string& text, const std::string& file, google::protobuf::Message& message);

/// The path of a problem as users see it.
[[nodiscard]] std::string place(const std::string& file, int line, const std::string& path);

}  // namespace coxswain::launcher
