#pragma once
// Raw sockets: listening and connecting on Unix paths and TCP, and moving bytes with descriptors beside them. Every
// socket is non-blocking and closed on exec. Threads: pure functions on descriptors.
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "collective/host/fd.h"
#include "common/clock.h"

namespace coxswain::collective {

/// Errors: FailedPrecondition (path, permission).
[[nodiscard]] Result<UniqueFd> listen_unix(const std::string& path);
/// A free port of `address`; Errors: FailedPrecondition (no such address here).
[[nodiscard]] Result<UniqueFd> listen_tcp(const std::string& address);
/// "127.0.0.1:41234", "[::1]:41234".
[[nodiscard]] Result<std::string> local_endpoint(const UniqueFd& socket);

/// Errors: Unavailable (nobody listens), DeadlineExceeded.
[[nodiscard]] Result<UniqueFd> connect_unix(const std::string& path, Deadline deadline);
[[nodiscard]] Result<UniqueFd> connect_tcp(const std::string& endpoint, Deadline deadline);
/// The next waiting connection; an empty descriptor when there is none.
[[nodiscard]] UniqueFd accept_one(const UniqueFd& listener);

/// No delay, and keepalive probes that find a vanished host within seconds.
void tune_tcp(const UniqueFd& socket);

struct Moved {
  std::size_t bytes = 0;
  bool closed = false;  // the other side is gone
};
/// Sends or takes what fits now. Descriptors travel with the first byte.
[[nodiscard]] Moved send_some(int socket, std::span<const std::byte> data, std::span<const int> descriptors = {});
[[nodiscard]] Moved receive_some(int socket, std::span<std::byte> data, std::vector<UniqueFd>* descriptors = nullptr);
/// One piece after the other, by one call; `bytes` counts both.
[[nodiscard]] Moved send_two(int socket, std::span<const std::byte> first, std::span<const std::byte> second);
[[nodiscard]] Moved receive_two(int socket, std::span<std::byte> first, std::span<std::byte> second);

/// Everything or an error. Errors: Unavailable (closed), DeadlineExceeded.
[[nodiscard]] Result<void> send_all(const UniqueFd& socket, std::span<const std::byte> data,
                                    std::span<const int> descriptors, Deadline deadline);
[[nodiscard]] Result<void> receive_all(const UniqueFd& socket, std::span<std::byte> data,
                                       std::vector<UniqueFd>* descriptors, Deadline deadline);

}  // namespace coxswain::collective
