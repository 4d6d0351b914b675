#pragma once
// What every bench program shares: options, checks with their goals, the table, the JSON of INTERFACE section 6.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/json.h"
#include "common/result.h"

namespace coxswain::bench {

struct Options {
  bool quick = false;
  std::uint64_t seed = 1;
  std::string json;                          // file, empty: none
  std::map<std::string, std::string> other;  // `--name value` of the program's own
};
/// Exits 64 with a usage line on an unknown flag. `own` = names of the program's own flags, each with a value.
[[nodiscard]] Options parse_options(int argc, char** argv, const std::string& what,
                                    const std::vector<std::string>& own = {});

/// One row: ours beside the peer (or measured beside predicted) against a goal.
struct Check {
  std::string name;
  double ours = 0, peer = 0, ratio = 0;
  std::string unit, goal;
  bool pass = false;
};

/// The value; where there is none, its error on stderr and exit 1.
template <class T>
T or_end(Result<T> result) {
  if (!result) {
    std::fputs(to_text(result.error()).c_str(), stderr);
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

class Report {
 public:
  Report(std::string program, const Options& options);
  void add(Check check);
  void peer(const std::string& name, const std::string& version) { peers_[name] = version; }
  /// Anything else worth keeping in the JSON.
  Json& extra() { return extra_; }
  /// Prints the table, writes the JSON; 0 when every check passed, else 1.
  [[nodiscard]] int finish() const;

 private:
  std::string program_;
  Options options_;
  std::vector<Check> checks_;
  std::map<std::string, std::string> peers_;
  Json extra_ = JsonObject{};
};

[[nodiscard]] double median(std::vector<double> values);
/// Spearman's correlation of ranks; equal values share the mean of theirs. 0 where one side has one value only.
[[nodiscard]] double spearman(const std::vector<double>& a, const std::vector<double>& b);

struct ProcessResult {
  int exit_code = 0;  // 128 + signal when killed
  std::string output, errors;
};
/// Exit code of one that did not end within its limit and was killed.
constexpr int kEndedByBench = 124;
/// Runs `arguments` to its end or for `limit_seconds`.
[[nodiscard]] ProcessResult run_process(const std::vector<std::string>& arguments, double limit_seconds);
/// Starts without waiting; wait_process ends it at the limit. For programs that talk to each other.
[[nodiscard]] int start_process(const std::vector<std::string>& arguments, const std::filesystem::path& output_file);
[[nodiscard]] int wait_process(int pid, double limit_seconds);

/// Folder of this program's siblings: `launch`, `worker`.
[[nodiscard]] std::filesystem::path program_folder();
[[nodiscard]] std::filesystem::path source_folder();
/// Of the sources, short; "unknown" outside of git.
[[nodiscard]] std::string source_commit();
/// A fresh folder, removed at the end of the process.
[[nodiscard]] std::filesystem::path make_scratch_folder(const std::string& name);

}  // namespace coxswain::bench
