#include "proto/session.h"

#include "common/hash.h"

namespace coxswain::proto {

std::string job_key(const Secret& secret, std::string_view run_id) {
  return secret.is_token ? hmac_sha256_hex(secret.text, run_id) : secret.text;
}

std::string_view to_text(Service service) { return service == Service::Coordinator ? "coordinator" : "agent"; }

std::string session_key(const std::string& key, Service service, const std::string& client_nonce,
                        const std::string& server_nonce) {
  return hmac_sha256_hex(key, "session " + std::string(to_text(service)) + " " + client_nonce + " " + server_nonce);
}

std::string frame_mac(const std::string& session, char direction, std::uint64_t sequence, std::string_view body) {
  std::string signed_text = std::string(1, direction) + std::to_string(sequence) + " ";
  signed_text += body;
  return hmac_sha256_hex(session, signed_text);
}

Error wrong_key() {
  return {ErrorCode::Unauthenticated, "a peer does not hold this run's key", "", "a frame signed with the run's key",
          "another signature",        "give every node the same token file"};
}

Error refused() {
  return {ErrorCode::Unauthenticated,           "refused: this process does not hold the run's key", "", "", "",
          "give every node the same token file"};
}

Error nobody_answers(const std::string& target) {
  return {ErrorCode::DeadlineExceeded,
          "nobody answers",
          target,
          "a coordinator or agent listening there",
          "no connection",
          "check the address and that it runs"};
}

Error ended_early() {
  return {ErrorCode::Unavailable, "the peer ended the connection before it began", "", "", "", ""};
}

Error cannot_listen(const std::string& address) {
  return {ErrorCode::FailedPrecondition,
          "cannot listen",
          address,
          "a free port on an address of this machine",
          "taken, or no such address here",
          "choose another port or address"};
}

}  // namespace coxswain::proto
