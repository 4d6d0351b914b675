#pragma once
// One authenticated, ordered, two-way stream of byte messages between two processes of a run: over gRPC, within a node
// over a Unix socket (both kept out of this header). Both ends prove that they hold the job's key by an HMAC on every
// frame; nonces of both ends go into the session key, so that nothing recorded can be replayed. Used by coordinator,
// agents and workers. Threads: send, close and cancel from any thread, receive from one. Source: DESIGN 3.8 (trust),
// proto/control.proto.
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "common/clock.h"
#include "common/result.h"

namespace coxswain::proto {

enum class Service { Coordinator, Agent };

/// The job's key, or the token that it is made from: key = HMAC(token, run id).
struct Secret {
  std::string text;
  bool is_token = false;
};

class Stream {
 public:
  virtual ~Stream() = default;
  /// Queues `body`. False once the stream is closed; a queue of 10000 unsent messages closes it.
  virtual bool send(std::string body) = 0;
  /// Blocks for the next message; nullopt when the stream is over.
  virtual std::optional<std::string> receive() = 0;
  /// Sends what is queued, then ends this side.
  virtual void close() = 0;
  /// Ends both sides now; a blocked receive returns.
  virtual void cancel() = 0;
  /// Why it is over. Errors: Unauthenticated, Unavailable.
  [[nodiscard]] virtual Result<void> status() const = 0;
  [[nodiscard]] virtual const std::string& run_id() const = 0;
};

/// `target`: "host:port" or "unix:/path". Waits until the server answers, over gRPC no longer than until `stop`.
/// Errors: DeadlineExceeded, Unavailable. A wrong key shows as Unauthenticated in status() after the first receive.
[[nodiscard]] Result<std::unique_ptr<Stream>> connect(const std::string& target, Service service, const Secret& secret,
                                                      Deadline deadline, const std::stop_token& stop = {});

struct ServerOptions {
  std::string listen;  // "host:port" (port 0: any) or "unix:/path"
  Service service = Service::Coordinator;
  Secret secret;
  std::string run_id;
};

class Server {
 public:
  virtual ~Server() = default;  // stops
  /// The bound port; 0 for a Unix socket.
  [[nodiscard]] virtual int port() const = 0;
  /// Cancels every stream and waits for the handlers.
  virtual void stop() = 0;
};

/// `handler` runs on a thread of its own for each peer that proved the key; the stream ends when it returns. Its first
/// receive gives the peer's first message.
/// `files`: for those who come to a Service::Coordinator as to a Service::Agent, over gRPC; none: they are not heard.
/// Errors: FailedPrecondition (the port is taken or the address is none of this machine).
[[nodiscard]] Result<std::unique_ptr<Server>> start_server(const ServerOptions& options,
                                                           std::function<void(Stream&)> handler,
                                                           std::function<void(Stream&)> files = {});

}  // namespace coxswain::proto
