#pragma once
// Jobs of a `launch serve`, seen and ended from any machine. Called by launch status, logs and cancel.
#include <string>

#include "common/exit_code.h"
#include "common/result.h"
#include "launcher/rest/service_client.h"

namespace CLI {
class App;
}

namespace coxswain::launcher {

struct RemoteOptions {
  std::string service, token_file, ca_file;
  [[nodiscard]] bool is_remote() const { return !service.empty(); }
};
void add_remote_options(CLI::App& command, RemoteOptions& options);
/// With the token out of its file. Errors: usage (no URL, no token), NotFound.
[[nodiscard]] Result<ServicePlace> service_place(const RemoteOptions& options);

/// Errors: usage (no URL, no token, no id), and those of ask_service.
[[nodiscard]] Result<ExitCode> show_remote_job(const RemoteOptions& options, const std::string& id,
                                               const std::string& format, bool follow);
/// `rank`: -1: what `launch train` printed. `stream`: stdout or stderr.
[[nodiscard]] Result<ExitCode> show_remote_logs(const RemoteOptions& options, const std::string& id, int rank,
                                                const std::string& stream, bool follow);
[[nodiscard]] Result<ExitCode> cancel_remote_job(const RemoteOptions& options, const std::string& id);

}  // namespace coxswain::launcher
