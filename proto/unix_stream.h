#pragma once
// Streams over a Unix socket, between a rank and its agent: frames with their length before them, straight into the
// socket by whoever sends, so that a report costs its sender one system call and its receiver one wake-up. Private to
// this folder: reached through channel.h. Source: ADR 0023.
#include <filesystem>
#include <functional>
#include <memory>

#include "proto/channel.h"

namespace coxswain::proto {

/// As connect.
[[nodiscard]] Result<std::unique_ptr<Stream>> connect_unix(const std::filesystem::path& socket, Service service,
                                                           const Secret& secret, Deadline deadline);
/// As start_server; `options.listen` is the path alone.
[[nodiscard]] Result<std::unique_ptr<Server>> start_unix_server(ServerOptions options,
                                                                std::function<void(Stream&)> handler);

}  // namespace coxswain::proto
