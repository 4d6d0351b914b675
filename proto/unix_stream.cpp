#include "proto/unix_stream.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <list>
#include <mutex>
#include <thread>

#include "common/hash.h"
#include "common/thread_name.h"
#include "proto/control.pb.h"
#include "proto/session.h"

namespace coxswain::proto {
namespace {

// At once: room for more is made (and cleared) as it comes, not for all of a long message at each read.
constexpr std::size_t kReadBytes = 4096, kMostReadBytes = 256 << 10;
constexpr int kBacklog = 1024;  // ranks of a node that come at once
// Of a peer that has not proved its key.
constexpr std::uint32_t kMostUnknownBytes = 64 << 10;
// In place of a length: the other end's first frame was not signed with the run's key.
constexpr std::uint32_t kRefused = 0xffffffff;
// Between two tries to reach an agent that does not listen yet, or to accept where descriptors ran out.
constexpr int kPauseMilliseconds = 10;

using Length = std::uint32_t;

class Socket {
 public:
  Socket() = default;
  explicit Socket(int number) : number_(number) {}
  Socket(Socket&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Socket() {
    if (number_ >= 0) ::close(number_);
  }
  [[nodiscard]] int number() const { return number_; }

  /// Of SO_RCVTIMEO or SO_SNDTIMEO; 0 waits for ever.
  void limit(int option, Seconds seconds) const {
    timeval time{};
    time.tv_sec = static_cast<time_t>(std::min(seconds.value, 1e6));
    time.tv_usec = static_cast<suseconds_t>((seconds.value - static_cast<double>(time.tv_sec)) * 1e6);
    ::setsockopt(number_, SOL_SOCKET, option, &time, sizeof time);
  }

 private:
  int number_ = -1;
};

Socket make_socket() { return Socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

/// False: the path is too long for a socket's address.
bool make_address(const std::filesystem::path& path, sockaddr_un& address) {
  address.sun_family = AF_UNIX;
  const std::string text = path.string();
  if (text.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, text.c_str(), text.size() + 1);
  return true;
}

/// `message` with its length before it.
std::string with_length(const google::protobuf::MessageLite& message) {
  std::string bytes(sizeof(Length), '\0');
  message.AppendToString(&bytes);
  const Length length = static_cast<Length>(bytes.size() - sizeof(Length));
  std::memcpy(bytes.data(), &length, sizeof length);  // both ends are on this machine
  return bytes;
}

class UnixStream final : public Stream {
 public:
  explicit UnixStream(Socket socket) : socket_(std::move(socket)) {}
  ~UnixStream() override {
    cancel();
    if (writer_.joinable()) writer_.join();
  }

  /// The client's half of the greeting. Errors: Unavailable.
  Result<void> greet(Service service, const Secret& secret, Deadline deadline) {
    control::Greeting own, other;
    most_bytes_ = kMostUnknownBytes;
    own.set_service(std::string(to_text(service)));
    own.set_nonce(random_hex(kNonceBytes));
    socket_.limit(SO_RCVTIMEO, wait_of(deadline));
    if (!write(with_length(own)) || !read_message(other) || other.nonce().empty()) return ended_early();
    socket_.limit(SO_RCVTIMEO, Seconds(0));
    begin(session_key(job_key(secret, other.run_id()), service, own.nonce(), other.nonce()), 'c', other.run_id());
    start_writer();
    most_bytes_ = kMaxMessageBytes;
    return {};
  }

  /// The server's half, and the client's first frame, which proves its key.
  bool authenticate(const ServerOptions& options) {
    control::Greeting own, other;
    most_bytes_ = kMostUnknownBytes;
    socket_.limit(SO_RCVTIMEO, Seconds(kAuthenticationSeconds));
    if (!read_message(other) || other.service() != to_text(options.service) || other.nonce().empty()) return false;
    own.set_nonce(random_hex(kNonceBytes));
    own.set_run_id(options.run_id);
    if (!write(with_length(own))) return false;
    begin(session_key(job_key(options.secret, options.run_id), options.service, other.nonce(), own.nonce()), 's',
          options.run_id);
    first_ = receive();
    if (!first_) {
      write(std::string(reinterpret_cast<const char*>(&kRefused), sizeof kRefused));
      return false;
    }
    socket_.limit(SO_RCVTIMEO, Seconds(0));
    most_bytes_ = kMaxMessageBytes;
    start_writer();
    return true;
  }

  bool send(std::string body) override {
    const std::lock_guard lock(mutex_);
    if (closing_ || broken_) return false;
    std::string frame = sealed(std::move(body));
    if (queue_.empty() && !writing_) {
      const ssize_t written = ::send(socket_.number(), frame.data(), frame.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (written == static_cast<ssize_t>(frame.size())) return true;
      if (written < 0 && errno != EAGAIN && errno != EINTR) hang_up();
      if (written > 0) frame.erase(0, static_cast<std::size_t>(written));
    }
    if (queue_.size() >= kMaxQueued) hang_up();
    if (broken_) {
      changed_.notify_all();
      return false;
    }
    queue_.push_back(std::move(frame));
    changed_.notify_all();
    return true;
  }

  std::optional<std::string> receive() override {
    if (first_) return std::exchange(first_, std::nullopt);
    control::Frame frame;
    if (over_ || !read_message(frame)) return end();
    const std::string expected = frame_mac(session_, receive_direction_, received_, frame.body());
    if (frame.sequence() != received_ || !equal_constant_time(expected, frame.mac())) {
      set_status(wrong_key());
      return end();
    }
    ++received_;
    return std::move(*frame.mutable_body());
  }

  void close() override {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  void cancel() override {
    const std::lock_guard lock(mutex_);
    hang_up();
    changed_.notify_all();
  }
  /// Sends what is queued, then ends both sides.
  void finish() {
    close();
    if (writer_.joinable()) writer_.join();
    cancel();
  }

  [[nodiscard]] Result<void> status() const override {
    const std::lock_guard lock(mutex_);
    if (error_) return *error_;
    return {};
  }
  [[nodiscard]] const std::string& run_id() const override { return run_id_; }

 private:
  static Seconds wait_of(Deadline deadline) {
    constexpr double kLeastSeconds = 1e-3;  // 0 would wait for ever
    return Seconds(std::max(deadline.remaining(steady_clock()).value, kLeastSeconds));
  }

  void begin(std::string session, char send_direction, std::string run_id) {
    session_ = std::move(session);
    send_direction_ = send_direction;
    receive_direction_ = send_direction == 'c' ? 's' : 'c';
    run_id_ = std::move(run_id);
  }
  /// Of a server not before the client has proved its key: a refusal is the last that it writes.
  void start_writer() {
    writer_ = std::jthread([this] { write_all(); });
  }

  std::string sealed(std::string body) {
    control::Frame frame;
    frame.set_sequence(sent_);
    frame.set_mac(frame_mac(session_, send_direction_, sent_, body));
    frame.set_body(std::move(body));
    ++sent_;
    return with_length(frame);
  }

  /// With the lock held: reads and writes end, here and there.
  void hang_up() {
    broken_ = true;
    ::shutdown(socket_.number(), SHUT_RDWR);
  }
  void set_status(Error error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
  }
  /// Nothing more is received; what is queued leaves.
  std::nullopt_t end() {
    over_ = true;
    close();
    return std::nullopt;
  }

  /// Only what found no room in the socket, in order.
  void write_all() {
    name_thread("stream writer");
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return closing_ || broken_ || !queue_.empty(); });
      if (broken_) return;
      if (queue_.empty()) break;
      const std::string frame = std::move(queue_.front());
      queue_.pop_front();
      writing_ = true;
      lock.unlock();
      const bool written = write(frame);
      lock.lock();
      writing_ = false;
      if (!written) hang_up();
    }
    ::shutdown(socket_.number(), SHUT_WR);
  }

  bool write(const std::string& bytes) const {
    for (std::size_t at = 0; at < bytes.size();) {
      const ssize_t written = ::send(socket_.number(), bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
      if (written < 0 && errno != EINTR) return false;
      if (written > 0) at += static_cast<std::size_t>(written);
    }
    return true;
  }

  bool read_message(google::protobuf::MessageLite& message) {
    if (!await_bytes(sizeof(Length))) return false;
    Length length = 0;
    std::memcpy(&length, buffer_.data() + read_, sizeof length);
    if (length == kRefused) set_status(refused());
    if (length > static_cast<Length>(most_bytes_)) return false;
    if (!await_bytes(sizeof length + length)) return false;
    const bool whole = message.ParseFromArray(buffer_.data() + read_ + sizeof length, static_cast<int>(length));
    read_ += sizeof length + length;
    return whole;
  }

  /// Until so many that are not read lie in the buffer.
  bool await_bytes(std::size_t wanted) {
    while (buffer_.size() - read_ < wanted) {
      buffer_.erase(0, std::exchange(read_, 0));
      const std::size_t had = buffer_.size();
      buffer_.resize(had + std::clamp(wanted - had, kReadBytes, kMostReadBytes));
      const ssize_t came = ::recv(socket_.number(), buffer_.data() + had, buffer_.size() - had, 0);
      const int number = errno;
      buffer_.resize(had + static_cast<std::size_t>(std::max<ssize_t>(came, 0)));
      if (came > 0 || (came < 0 && number == EINTR)) continue;
      if (came < 0) set_status({ErrorCode::Unavailable, "the connection ended", "", "", std::strerror(number), ""});
      return false;
    }
    return true;
  }

  Socket socket_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> queue_;
  bool closing_ = false, broken_ = false, writing_ = false;
  std::optional<Error> error_;
  std::string session_, run_id_;
  char send_direction_ = 'c', receive_direction_ = 's';
  std::uint64_t sent_ = 0, received_ = 0;
  // Of the one that receives.
  std::string buffer_;
  std::size_t read_ = 0;  // of the buffer's bytes
  int most_bytes_ = kMaxMessageBytes;
  std::optional<std::string> first_;
  bool over_ = false;
  std::jthread writer_;
};

class UnixServer final : public Server {
 public:
  UnixServer(ServerOptions options, std::function<void(Stream&)> handler)
      : options_(std::move(options)), handler_(std::move(handler)) {}
  ~UnixServer() override { stop(); }

  Result<void> start() {
    sockaddr_un address{};
    socket_ = make_socket();
    if (!make_address(options_.listen, address) || socket_.number() < 0 ||
        ::bind(socket_.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(socket_.number(), kBacklog) != 0)
      return cannot_listen("unix:" + options_.listen);
    bound_ = true;
    acceptor_ = std::jthread([this] { accept_all(); });
    return {};
  }

  [[nodiscard]] int port() const override { return 0; }
  void stop() override {
    if (!std::exchange(bound_, false)) return;
    stopping_ = true;
    ::shutdown(socket_.number(), SHUT_RDWR);  // ends accept
    acceptor_.join();
    for (Connection& connection : connections_) connection.stream.cancel();
    connections_.clear();
    ::unlink(options_.listen.c_str());
  }

 private:
  struct Connection {
    explicit Connection(Socket socket) : stream(std::move(socket)) {}
    UnixStream stream;
    std::atomic<bool> over = false;
    std::jthread thread;
  };

  void accept_all() {
    name_thread("accept");
    while (!stopping_) {
      Socket peer(::accept4(socket_.number(), nullptr, nullptr, SOCK_CLOEXEC));
      if (peer.number() < 0) {
        if (!stopping_ && errno != EINTR) ::poll(nullptr, 0, kPauseMilliseconds);
        continue;
      }
      connections_.remove_if([](const Connection& connection) { return connection.over.load(); });
      Connection& connection = connections_.emplace_back(std::move(peer));
      connection.thread = std::jthread([this, &connection] { serve(connection); });
    }
  }

  void serve(Connection& connection) {
    name_thread("stream");
    if (connection.stream.authenticate(options_)) handler_(connection.stream);
    connection.stream.finish();
    connection.over = true;
  }

  ServerOptions options_;
  std::function<void(Stream&)> handler_;
  Socket socket_;
  bool bound_ = false;
  std::atomic<bool> stopping_ = false;
  std::list<Connection> connections_;  // of the acceptor, while it runs
  std::jthread acceptor_;
};

}  // namespace

Result<std::unique_ptr<Stream>> connect_unix(const std::filesystem::path& path, Service service, const Secret& secret,
                                             Deadline deadline) {
  const std::string target = "unix:" + path.string();
  sockaddr_un address{};
  if (!make_address(path, address)) return nobody_answers(target);
  for (;;) {
    Socket socket = make_socket();
    if (socket.number() < 0)
      return Error{ErrorCode::Unavailable, "cannot make a socket", target, "", std::strerror(errno), ""};
    const Seconds left = deadline.remaining(steady_clock());
    if (left <= Seconds(0)) return nobody_answers(target);
    socket.limit(SO_SNDTIMEO, left);  // an agent that is stopped lets nobody in
    if (::connect(socket.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
      socket.limit(SO_SNDTIMEO, Seconds(0));
      auto stream = std::make_unique<UnixStream>(std::move(socket));
      COX_TRY_VOID(stream->greet(service, secret, deadline));
      return std::unique_ptr<Stream>(std::move(stream));
    }
    ::poll(nullptr, 0, kPauseMilliseconds);
  }
}

Result<std::unique_ptr<Server>> start_unix_server(ServerOptions options, std::function<void(Stream&)> handler) {
  auto server = std::make_unique<UnixServer>(std::move(options), std::move(handler));
  COX_TRY_VOID(server->start());
  return std::unique_ptr<Server>(std::move(server));
}

}  // namespace coxswain::proto
