#pragma once
// What the coordinator was told, in order, on disk before it is acted on: a coordinator that is killed at any instant
// is made again from it. One SQLite file (WAL) beside the run's other files, gone when the run has ended. Called by
// coordinator_process.cpp. Threads: one. Source: DESIGN 3.8; ADR 0018.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/result.h"
#include "launcher/control/coordinator_input.h"

struct sqlite3;

namespace coxswain::launcher {

class Journal {
 public:
  /// Makes it, or opens the one that is there. Errors: FailedPrecondition (disk), DataLoss (damaged, or of another
  /// run).
  [[nodiscard]] static Result<Journal> open(const std::filesystem::path& file, const std::string& run_id);

  /// Everything so far. Errors: DataLoss.
  [[nodiscard]] Result<std::vector<Input>> inputs() const;
  /// All or none. They survive this process; a machine that loses power may lose the last of them.
  /// Errors: FailedPrecondition (disk).
  [[nodiscard]] Result<void> add(const std::vector<Input>& inputs);
  /// Puts `taken`, an input of kind StepsTaken for steps up to `step`, in place of the reports of those steps since the
  /// generation began. Errors: FailedPrecondition (disk); nothing is changed then.
  [[nodiscard]] Result<void> replace_steps(std::int64_t step, const Input& taken);
  /// The run has ended: closes and removes it.
  void remove();

 private:
  struct Closer {
    void operator()(sqlite3* database) const;
  };
  Journal(std::filesystem::path file, std::unique_ptr<sqlite3, Closer> database)
      : file_(std::move(file)), database_(std::move(database)) {}

  Result<void> in_transaction(const std::function<bool()>& write);

  std::filesystem::path file_;
  std::unique_ptr<sqlite3, Closer> database_;
};

}  // namespace coxswain::launcher
