#include "proto/channel.h"

#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <stop_token>
#include <thread>

#include "common/hash.h"
#include "common/thread_name.h"
#include "proto/cancel_at.h"
#include "proto/control.grpc.pb.h"
#include "proto/session.h"
#include "proto/unix_stream.h"

namespace coxswain::proto {
namespace {

constexpr std::string_view kUnixPrefix = "unix:";
constexpr const char* kNonceKey = "cox-nonce";
constexpr const char* kRunKey = "cox-run";
// Between two looks at whether a connection is still wanted.
constexpr Seconds kStopLook(0.1);

/// Before anything of gRPC is made, which prints lines of its own to stderr otherwise (what matters comes back as an
/// Error), and would end itself with the last channel of a process and begin anew with the next one: the end waits for
/// 10 s now and then (gRPC 1.51), in which a rank that had copied a checkpoint stood.
void begin_grpc() {
  static std::once_flag once;
  std::call_once(once, [] {
    gpr_set_log_function([](gpr_log_func_args*) {});
    grpc_init();
  });
}

gpr_timespec after(Seconds seconds) {
  const auto milliseconds = static_cast<std::int64_t>(std::min(seconds.value, 1e6) * 1e3);
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(milliseconds, GPR_TIMESPAN));
}

/// What both ends share: the queue with its writing thread, and the check of every frame.
class FrameStream : public Stream {
 public:
  bool send(std::string body) override {
    {
      const std::lock_guard lock(mutex_);
      if (closing_ || broken_) return false;
      if (queue_.size() < kMaxQueued) {
        queue_.push_back(std::move(body));
        changed_.notify_one();
        return true;
      }
      broken_ = true;
    }
    cancel();
    return false;
  }

  std::optional<std::string> receive() override {
    if (over_) return std::nullopt;
    control::Frame frame;
    if (!read(frame)) {
      end();
      return std::nullopt;
    }
    const std::string expected = frame_mac(session_, receive_direction_, received_, frame.body());
    if (frame.sequence() != received_ || !equal_constant_time(expected, frame.mac())) {
      set_status(wrong_key());
      refuse();
      end();
      return std::nullopt;
    }
    ++received_;
    return std::move(*frame.mutable_body());
  }

  void close() override {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    changed_.notify_one();
  }

  [[nodiscard]] Result<void> status() const override {
    const std::lock_guard lock(mutex_);
    if (error_) return *error_;
    return {};
  }
  [[nodiscard]] const std::string& run_id() const override { return run_id_; }

 protected:
  virtual bool read(control::Frame& frame) = 0;
  virtual bool write(const control::Frame& frame) = 0;
  virtual void writes_done() {}
  virtual void finished() {}
  /// A frame was not signed with the run's key.
  virtual void refuse() { cancel(); }

  void begin(std::string session, char send_direction, std::string run_id) {
    session_ = std::move(session);
    send_direction_ = send_direction;
    receive_direction_ = send_direction == 'c' ? 's' : 'c';
    run_id_ = std::move(run_id);
    writer_ = std::jthread([this] { write_all(); });
  }

  /// Flushes, joins the writer, lets the end of the call be read.
  void end() {
    over_ = true;
    stop_writer();
    finished();
  }
  void stop_writer() {
    close();
    if (writer_.joinable()) writer_.join();
  }
  void set_status(Error error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
  }

 private:
  void write_all() {
    name_thread("stream writer");
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return closing_ || broken_ || !queue_.empty(); });
      if (broken_) return;
      if (queue_.empty()) break;
      control::Frame frame;
      frame.set_body(std::move(queue_.front()));
      queue_.pop_front();
      lock.unlock();
      frame.set_sequence(sent_);
      frame.set_mac(frame_mac(session_, send_direction_, sent_, frame.body()));
      ++sent_;
      const bool written = write(frame);
      lock.lock();
      if (!written) {
        broken_ = true;
        return;
      }
    }
    lock.unlock();
    writes_done();
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> queue_;
  bool closing_ = false, broken_ = false;
  std::optional<Error> error_;
  std::string session_, run_id_;
  char send_direction_ = 'c', receive_direction_ = 's';
  std::uint64_t sent_ = 0, received_ = 0;
  bool over_ = false;
  std::jthread writer_;
};

class ClientStream final : public FrameStream {
 public:
  ClientStream(std::shared_ptr<grpc::Channel> channel, Service service)
      : channel_(std::move(channel)), service_(service) {}
  ~ClientStream() override {
    context_.TryCancel();
    stop_writer();
    if (stream_) finished();
  }

  Result<void> open(const Secret& secret, Deadline deadline, const std::stop_token& stop) {
    const std::string nonce = random_hex(kNonceBytes);
    context_.AddMetadata(kNonceKey, nonce);
    {
      const CancelAt watch([this] { context_.TryCancel(); }, deadline.at);
      const std::stop_callback stopped(stop, [this] { context_.TryCancel(); });
      if (service_ == Service::Coordinator) {
        coordinator_ = control::Coordinator::NewStub(channel_);
        stream_ = coordinator_->Join(&context_);
      } else {
        agent_ = control::Agent::NewStub(channel_);
        stream_ = agent_->Work(&context_);
      }
      stream_->WaitForInitialMetadata();
    }
    const auto& metadata = context_.GetServerInitialMetadata();
    const auto server_nonce = metadata.find(kNonceKey);
    const auto run = metadata.find(kRunKey);
    if (server_nonce == metadata.end() || run == metadata.end()) {
      context_.TryCancel();
      return ended_early();
    }
    const std::string run_id(run->second.data(), run->second.size());
    begin(session_key(job_key(secret, run_id), service_, nonce,
                      std::string(server_nonce->second.data(), server_nonce->second.size())),
          'c', run_id);
    return {};
  }

  void cancel() override { context_.TryCancel(); }

 protected:
  bool read(control::Frame& frame) override { return stream_->Read(&frame); }
  bool write(const control::Frame& frame) override { return stream_->Write(frame); }
  void writes_done() override { stream_->WritesDone(); }
  void finished() override {
    if (finished_) return;
    finished_ = true;
    const grpc::Status status = stream_->Finish();
    if (status.error_code() == grpc::StatusCode::UNAUTHENTICATED) {
      set_status(refused());
    } else if (!status.ok()) {
      set_status(Error{ErrorCode::Unavailable, "the connection ended", "", "", status.error_message(), ""});
    }
  }

 private:
  std::shared_ptr<grpc::Channel> channel_;
  Service service_;
  grpc::ClientContext context_;
  std::unique_ptr<control::Coordinator::Stub> coordinator_;
  std::unique_ptr<control::Agent::Stub> agent_;
  std::unique_ptr<grpc::ClientReaderWriter<control::Frame, control::Frame>> stream_;
  bool finished_ = false;
};

using ServerSide = grpc::ServerReaderWriter<control::Frame, control::Frame>;

class ServerStream final : public FrameStream {
 public:
  ServerStream(grpc::ServerContext& context, ServerSide& stream) : context_(context), stream_(stream) {}
  ~ServerStream() override { stop_writer(); }

  /// Proves the peer's key by its first frame; false otherwise.
  bool authenticate(const ServerOptions& options) {
    const auto& metadata = context_.client_metadata();
    const auto nonce = metadata.find(kNonceKey);
    const std::string own_nonce = random_hex(kNonceBytes);
    context_.AddInitialMetadata(kNonceKey, own_nonce);
    context_.AddInitialMetadata(kRunKey, options.run_id);
    stream_.SendInitialMetadata();
    if (nonce == metadata.end()) return false;
    const std::string key = job_key(options.secret, options.run_id);
    begin(session_key(key, options.service, std::string(nonce->second.data(), nonce->second.size()), own_nonce), 's',
          options.run_id);
    const CancelAt watch([this] { context_.TryCancel(); },
                         Deadline::after(steady_clock(), Seconds(kAuthenticationSeconds)).at);
    first_ = FrameStream::receive();
    authenticated_ = first_.has_value();
    return authenticated_;
  }

  std::optional<std::string> receive() override {
    if (first_) return std::exchange(first_, std::nullopt);
    return FrameStream::receive();
  }
  void cancel() override { context_.TryCancel(); }

 protected:
  bool read(control::Frame& frame) override { return stream_.Read(&frame); }
  bool write(const control::Frame& frame) override { return stream_.Write(frame); }
  // Before a peer is known nothing waits on this side, and a cancelled call would hide the status that says why.
  void refuse() override {
    if (authenticated_) cancel();
  }

 private:
  bool authenticated_ = false;
  grpc::ServerContext& context_;
  ServerSide& stream_;
  std::optional<std::string> first_;
};

grpc::Status serve(const ServerOptions& options, const std::function<void(Stream&)>& handler,
                   grpc::ServerContext* context, ServerSide* side) {
  ServerStream stream(*context, *side);
  if (!stream.authenticate(options)) return {grpc::StatusCode::UNAUTHENTICATED, "not signed with this run's key"};
  handler(stream);
  return grpc::Status::OK;
}

class CoordinatorService final : public control::Coordinator::Service {
 public:
  CoordinatorService(const ServerOptions& options, const std::function<void(Stream&)>& handler)
      : options_(options), handler_(handler) {}
  grpc::Status Join(grpc::ServerContext* context, ServerSide* stream) override {
    return serve(options_, handler_, context, stream);
  }

 private:
  const ServerOptions& options_;
  const std::function<void(Stream&)>& handler_;
};

class AgentService final : public control::Agent::Service {
 public:
  AgentService(const ServerOptions& options, const std::function<void(Stream&)>& handler)
      : options_(options), handler_(handler) {}
  grpc::Status Work(grpc::ServerContext* context, ServerSide* stream) override {
    return serve(options_, handler_, context, stream);
  }

 private:
  const ServerOptions& options_;
  const std::function<void(Stream&)>& handler_;
};

class GrpcServer final : public Server {
 public:
  GrpcServer(ServerOptions options, std::function<void(Stream&)> handler, std::function<void(Stream&)> files)
      : options_(std::move(options)),
        agent_options_(options_),
        handler_(std::move(handler)),
        files_(std::move(files)),
        coordinator_(options_, handler_),
        agent_(agent_options_, files_ ? files_ : handler_) {
    agent_options_.service = Service::Agent;
  }
  ~GrpcServer() override { stop(); }

  Result<void> start() {
    grpc::ServerBuilder builder;
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // else two servers share a port silently
    builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
    builder.AddListeningPort(options_.listen, grpc::InsecureServerCredentials(), &port_);
    if (options_.service == Service::Coordinator) builder.RegisterService(&coordinator_);
    if (options_.service == Service::Agent || files_) builder.RegisterService(&agent_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port_ == 0) return cannot_listen(options_.listen);
    return {};
  }

  [[nodiscard]] int port() const override { return port_; }
  void stop() override {
    if (!server_) return;
    server_->Shutdown(after(Seconds(0)));
    server_->Wait();
    server_.reset();
  }

 private:
  ServerOptions options_, agent_options_;
  std::function<void(Stream&)> handler_, files_;
  CoordinatorService coordinator_;
  AgentService agent_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

/// gRPC has no end of this wait but a time.
bool wait_connected(grpc::Channel& channel, Deadline deadline, const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    const Seconds left = deadline.remaining(steady_clock());
    if (channel.WaitForConnected(after(std::min(left, kStopLook)))) return true;
    if (left <= kStopLook) break;
  }
  return false;
}

}  // namespace

Result<std::unique_ptr<Stream>> connect(const std::string& target, Service service, const Secret& secret,
                                        Deadline deadline, const std::stop_token& stop) {
  if (target.starts_with(kUnixPrefix))
    return connect_unix(target.substr(kUnixPrefix.size()), service, secret, deadline);
  begin_grpc();
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  auto channel = grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
  if (!wait_connected(*channel, deadline, stop)) return nobody_answers(target);
  auto stream = std::make_unique<ClientStream>(std::move(channel), service);
  COX_TRY_VOID(stream->open(secret, deadline, stop));
  return std::unique_ptr<Stream>(std::move(stream));
}

Result<std::unique_ptr<Server>> start_server(const ServerOptions& options, std::function<void(Stream&)> handler,
                                             std::function<void(Stream&)> files) {
  if (options.listen.starts_with(kUnixPrefix)) {
    ServerOptions local = options;
    local.listen.erase(0, kUnixPrefix.size());
    return start_unix_server(std::move(local), std::move(handler));
  }
  begin_grpc();
  auto server = std::make_unique<GrpcServer>(options, std::move(handler), std::move(files));
  COX_TRY_VOID(server->start());
  return std::unique_ptr<Server>(std::move(server));
}

}  // namespace coxswain::proto
