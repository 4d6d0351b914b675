#pragma once
// How both ends of a stream prove that they hold the job's key, whatever carries its frames. Private to this folder.
// Threads: pure. Source: DESIGN 3.8 (trust).
#include <cstdint>
#include <string>
#include <string_view>

#include "proto/channel.h"

namespace coxswain::proto {

// Frames that wait for a peer that does not read; more close the stream.
inline constexpr std::size_t kMaxQueued = 10000;
inline constexpr int kMaxMessageBytes = 256 << 20;
// A peer proves its key within this.
inline constexpr double kAuthenticationSeconds = 10;
inline constexpr int kNonceBytes = 16;

[[nodiscard]] std::string job_key(const Secret& secret, std::string_view run_id);
[[nodiscard]] std::string_view to_text(Service service);
/// Of one connection: nothing that was recorded on another fits.
[[nodiscard]] std::string session_key(const std::string& key, Service service, const std::string& client_nonce,
                                      const std::string& server_nonce);
/// `direction`: 'c' from the client, 's' from the server; frames of each are counted from 0.
[[nodiscard]] std::string frame_mac(const std::string& session, char direction, std::uint64_t sequence,
                                    std::string_view body);

/// What the end says that cannot check the other's frame, the end that was refused, and one that reaches nobody.
[[nodiscard]] Error wrong_key();
[[nodiscard]] Error refused();
[[nodiscard]] Error nobody_answers(const std::string& target);
[[nodiscard]] Error ended_early();
[[nodiscard]] Error cannot_listen(const std::string& address);

}  // namespace coxswain::proto
