#include "launcher/rest/http_server.h"

#include <poll.h>

#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/experimental/as_tuple.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cctype>
#include <list>
#include <map>
#include <optional>
#include <thread>

#include "common/log.h"
#include "launcher/rest/problem.h"

namespace coxswain::launcher {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kAwait = asio::experimental::as_tuple(asio::use_awaitable);
constexpr std::size_t kReadBytes = 65536;

std::chrono::steady_clock::duration span_of(Seconds seconds) {
  return std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double>(seconds.value));
}

/// What all connections share. Lives as long as the server's thread.
struct Shared {
  HttpLimits limits;
  HttpHandler handler;
  // The server's thread alone.
  bool draining = false;
  std::uint64_t body_bytes = 0;  // held
  /// Of connections between two requests: cut off when draining begins.
  std::list<tcp::socket::lowest_layer_type*> idle;
};

/// Room for one body among those that are held at once, until it is answered.
class BodyRoom {
 public:
  BodyRoom(std::shared_ptr<Shared> shared, std::uint64_t bytes) : shared_(std::move(shared)), bytes_(bytes) {
    granted_ = shared_->body_bytes + bytes <= shared_->limits.body_bytes;
    if (granted_) shared_->body_bytes += bytes;
  }
  BodyRoom(const BodyRoom&) = delete;
  BodyRoom& operator=(const BodyRoom&) = delete;
  ~BodyRoom() {
    if (granted_) shared_->body_bytes -= bytes_;
  }
  [[nodiscard]] bool granted() const { return granted_; }

 private:
  std::shared_ptr<Shared> shared_;
  std::uint64_t bytes_;
  bool granted_ = false;
};

/// Nothing: `operation` took longer than `limit` and was given up.
template <class Value>
asio::awaitable<std::optional<Value>> within_time(asio::awaitable<Value> operation, Seconds limit) {
  using namespace asio::experimental::awaitable_operators;
  asio::steady_timer timer(co_await asio::this_coro::executor);
  timer.expires_after(span_of(limit));
  auto first = co_await (std::move(operation) || timer.async_wait(kAwait));
  if (first.index() == 0) co_return std::get<0>(std::move(first));
  co_return std::nullopt;
}

using Done = std::tuple<error_code, std::size_t>;
using Socket = tcp::socket::lowest_layer_type;

HttpRequest read_head(const http::request_header<>& head, std::string client) {
  HttpRequest request;
  request.method = std::string(head.method_string());
  request.path = std::string(head.target());  // until it is parsed
  request.client = std::move(client);
  for (const auto& field : head) {
    std::string name(field.name_string());
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    std::string& value = request.headers[name];
    value += (value.empty() ? "" : ", ") + std::string(field.value());
  }
  return request;
}

/// Else it is of the socket.
bool is_of_http(const error_code& error) {
  return error.category() == http::make_error_code(http::error::bad_method).category();
}

/// The status for a message that could not be read.
int status_of(const error_code& error) {
  if (error == http::error::header_limit) return 431;
  if (error == http::error::body_limit) return 413;
  return 400;
}

std::string words_of(int status) {
  switch (status) {
    case 408: return "the request did not come whole in time";
    case 413: return "the body is larger than this call takes";
    case 429: return "too many bodies are on their way; send it again";
    case 431: return "the header is larger than this server takes";
    default: return "this is no HTTP/1.1 request";
  }
}

http::response<http::string_body> to_message(HttpResponse response, unsigned version, bool keep_alive, bool head_only) {
  http::response<http::string_body> message{static_cast<http::status>(response.status), version};
  message.reason(std::string(reason_phrase(response.status)));
  message.set(http::field::server, "coxswain");
  message.set("X-Content-Type-Options", "nosniff");
  message.set(http::field::cache_control, "no-store");
  if (!response.body.empty()) message.set(http::field::content_type, response.content_type);
  for (const auto& [name, value] : response.headers) message.set(name, value);
  message.keep_alive(keep_alive);
  const std::size_t size = response.body.size();
  if (!head_only) message.body() = std::move(response.body);
  if (response.status != 204 && response.status != 304) message.content_length(size);
  return message;
}

/// One connection, request after request. `Stream`: tcp::socket or TLS over one.
template <class Stream>
class Connection {
 public:
  Connection(Stream stream, std::shared_ptr<Shared> shared, std::string client)
      : stream_(std::move(stream)), shared_(std::move(shared)), client_(std::move(client)), buffer_(kReadBytes) {}

  asio::awaitable<void> run() {
    bool goes_on = co_await greet();
    while (goes_on) {
      goes_on = co_await wait_for_request();
      if (goes_on) goes_on = co_await serve_one();
    }
    if (unread_) co_await linger();
    error_code ignored;
    socket().shutdown(Socket::shutdown_both, ignored);
    socket().close(ignored);
  }

 private:
  Socket& socket() { return stream_.lowest_layer(); }

  asio::awaitable<bool> greet() {
    if constexpr (!std::is_same_v<Stream, tcp::socket>) {
      const auto done =
          co_await within_time(stream_.async_handshake(asio::ssl::stream_base::server, kAwait), shared_->limits.head);
      co_return done && !std::get<0>(*done);
    }
    co_return true;
  }

  /// Until a first byte comes. False: none came.
  asio::awaitable<bool> wait_for_request() {
    if (buffer_.size() > 0) co_return true;
    if (shared_->draining) co_return false;
    const auto place = shared_->idle.insert(shared_->idle.end(), &socket());
    const auto came = co_await within_time(read_some(), shared_->limits.idle);
    shared_->idle.erase(place);
    co_return came && !std::get<0>(*came);
  }

  asio::awaitable<Done> read_some() {
    const auto [error, size] = co_await stream_.async_read_some(buffer_.prepare(kFirstBytes), kAwait);
    buffer_.commit(size);
    co_return Done{error, size};
  }

  /// False: the connection ends.
  asio::awaitable<bool> serve_one() {
    http::request_parser<http::empty_body> head;
    head.header_limit(static_cast<std::uint32_t>(shared_->limits.header_bytes));
    head.body_limit(boost::none);
    const auto read =
        co_await within_time(http::async_read_header(stream_, buffer_, head, kAwait), shared_->limits.head);
    if (!read) co_return co_await refuse(408);
    if (const error_code error = std::get<0>(*read)) {
      if (error == http::error::end_of_stream || !is_of_http(error)) co_return false;
      co_return co_await refuse(status_of(error));
    }
    const unsigned version = head.get().version();
    const bool head_only = head.get().method() == http::verb::head;
    HttpRequest request = read_head(head.get(), client_);
    auto target = parse_target(request.path);
    if (!target) co_return co_await refuse(400);
    request.path = std::move(target->path);
    request.query = std::move(target->query);
    // A coding that is not ours would leave a body that passes for the next request.
    if (head.get().count(http::field::transfer_encoding) > 0 && !head.chunked()) co_return co_await refuse(400);
    auto admitted = admit(request);
    if (auto* answer = std::get_if<HttpResponse>(&admitted)) {
      // A body that was not read may not pass for the next request.
      unread_ = !head.is_done() && head.content_length().value_or(1) > 0;
      const bool stays = !unread_ && keeps(head);
      const bool sent = co_await send(to_message(std::move(*answer), version, stays, head_only));
      co_return sent&& stays;
    }
    const std::size_t most = std::get<std::size_t>(admitted);
    if (head.content_length().value_or(0) > most) co_return co_await refuse(413);
    const BodyRoom room(shared_, head.chunked() ? most : head.content_length().value_or(0));
    if (!room.granted()) co_return co_await refuse(429);
    const bool goes_on = keeps(head);
    if (beast::iequals(head.get()[http::field::expect], "100-continue")) {
      const bool said = co_await say_continue(version);
      if (!said) co_return false;
    }
    http::request_parser<http::string_body> whole(std::move(head));
    whole.body_limit(most);
    const auto body = co_await within_time(http::async_read(stream_, buffer_, whole, kAwait), shared_->limits.body);
    if (!body) co_return co_await refuse(408);
    if (const error_code error = std::get<0>(*body)) {
      if (!is_of_http(error)) co_return false;
      co_return co_await refuse(status_of(error));
    }
    request.body = std::move(whole.get().body());
    HttpResponse response = co_await answer_of(std::move(request));
    if (response.more) co_return co_await send_stream(std::move(response), version, head_only);
    const bool stays = goes_on && !shared_->draining;
    const bool sent = co_await send(to_message(std::move(response), version, stays, head_only));
    co_return sent&& stays;
  }

  static HttpResponse our_bug(const Error& error) {
    log(LogLevel::Error, "serve", to_text(error));
    return problem(500, "this is our bug; the log tells what happened");
  }

  std::variant<std::size_t, HttpResponse> admit(const HttpRequest& request) const {
    using Admitted = std::variant<std::size_t, HttpResponse>;
    auto admitted = guard("launcher", [&]() -> Result<Admitted> { return shared_->handler.admit(request); });
    return admitted ? std::move(*admitted) : Admitted(our_bug(admitted.error()));
  }

  template <class Parser>
  [[nodiscard]] bool keeps(const Parser& parser) const {
    return parser.get().keep_alive() && !shared_->draining;
  }

  asio::awaitable<HttpResponse> answer_of(HttpRequest request) {
    struct Waiting {
      explicit Waiting(const asio::any_io_executor& executor) : came(executor) {}
      asio::steady_timer came;
      std::optional<HttpResponse> response;
    };
    const auto executor = co_await asio::this_coro::executor;
    const auto waiting = std::make_shared<Waiting>(executor);
    waiting->came.expires_after(span_of(shared_->limits.answer));
    const Reply reply = [waiting, executor](HttpResponse response) {
      asio::post(executor, [waiting, response = std::move(response)]() mutable {
        waiting->response = std::move(response);
        waiting->came.cancel();
      });
    };
    const auto taken = guard("launcher", [&]() -> Result<void> {
      shared_->handler.handle(std::move(request), reply);
      return {};
    });
    if (!taken) co_return our_bug(taken.error());
    if (!waiting->response) co_await waiting->came.async_wait(kAwait);
    if (waiting->response) co_return std::move(*waiting->response);
    co_return problem(500, "no answer was found in time");
  }

  asio::awaitable<bool> say_continue(unsigned version) {
    http::response<http::empty_body> message{http::status::continue_, version};
    const auto sent = co_await within_time(http::async_write(stream_, message, kAwait), shared_->limits.send);
    co_return sent && !std::get<0>(*sent);
  }

  asio::awaitable<bool> send(http::response<http::string_body> message) {
    // A body that is left out (HEAD) still has its length in the header.
    http::response_serializer<http::string_body> serializer(message);
    std::optional<Done> sent;
    if (message.body().empty())
      sent = co_await within_time(http::async_write_header(stream_, serializer, kAwait), shared_->limits.send);
    else
      sent = co_await within_time(http::async_write(stream_, serializer, kAwait), shared_->limits.send);
    co_return sent && !std::get<0>(*sent);
  }

  /// In chunks (to HTTP/1.0 as it is), until it ends or the server drains; the connection ends with it. What is quiet
  /// is asked again soon.
  asio::awaitable<bool> send_stream(HttpResponse response, unsigned version, bool head_only) {
    const auto more = std::exchange(response.more, nullptr);
    const std::string type = response.content_type;
    const bool in_chunks = version > 10;
    const auto message = to_message(std::move(response), version, false, true);
    http::response<http::empty_body> head{message.base()};
    head.set(http::field::content_type, type);
    head.erase(http::field::content_length);
    head.chunked(in_chunks);
    http::response_serializer<http::empty_body> serializer(head);
    const auto began =
        co_await within_time(http::async_write_header(stream_, serializer, kAwait), shared_->limits.send);
    if (!began || std::get<0>(*began) || head_only) co_return false;
    Seconds quiet{0};
    while (!shared_->draining) {
      std::optional<std::string> part = co_await part_of(more);
      if (!part) {
        if (in_chunks)
          co_await within_time(asio::async_write(stream_, http::make_chunk_last(), kAwait), shared_->limits.send);
        break;
      }
      if (part->empty()) {
        asio::steady_timer timer(co_await asio::this_coro::executor, span_of(kQuietLook));
        co_await timer.async_wait(kAwait);
        if (has_gone()) break;
        quiet.value += kQuietLook.value;
        if (quiet.value < kQuietMost.value || type != "text/event-stream") continue;
        part = ":\n\n";  // proxies cut off what is quiet
      }
      quiet = Seconds(0);
      auto writing = in_chunks ? asio::async_write(stream_, http::make_chunk(asio::buffer(*part)), kAwait)
                               : asio::async_write(stream_, asio::buffer(*part), kAwait);
      const auto sent = co_await within_time(std::move(writing), shared_->limits.send);
      if (!sent || std::get<0>(*sent)) break;
    }
    co_return false;
  }

  /// The other side has closed the connection.
  bool has_gone() {
    pollfd entry{socket().native_handle(), POLLRDHUP, 0};
    return ::poll(&entry, 1, 0) > 0;
  }

  asio::awaitable<std::optional<std::string>> part_of(std::function<void(TakePart)> more) {
    struct Waiting {
      explicit Waiting(const asio::any_io_executor& executor) : came(executor) {}
      asio::steady_timer came;
      bool is_there = false;
      std::optional<std::string> part;
    };
    const auto executor = co_await asio::this_coro::executor;
    const auto waiting = std::make_shared<Waiting>(executor);
    waiting->came.expires_after(span_of(shared_->limits.answer));
    more([waiting, executor](std::optional<std::string> part) {
      asio::post(executor, [waiting, part = std::move(part)]() mutable {
        waiting->is_there = true;
        waiting->part = std::move(part);
        waiting->came.cancel();
      });
    });
    if (!waiting->is_there) co_await waiting->came.async_wait(kAwait);
    co_return std::move(waiting->part);
  }

  asio::awaitable<bool> refuse(int status) {
    unread_ = true;
    HttpResponse response = status == 429 ? too_much(words_of(status)) : problem(status, words_of(status));
    co_await send(to_message(std::move(response), 11, false, false));
    co_return false;
  }

  /// What still comes is read for a while: a client that is still sending would lose our answer with the connection.
  asio::awaitable<void> linger() {
    error_code ignored;
    socket().shutdown(Socket::shutdown_send, ignored);
    buffer_.clear();
    co_await within_time(discard(), kLinger);
  }

  asio::awaitable<Done> discard() {
    std::size_t came = 0;
    while (came < kLingerBytes) {
      const auto [error, size] = co_await stream_.async_read_some(buffer_.prepare(kFirstBytes), kAwait);
      if (error) break;
      came += size;
    }
    co_return Done{error_code(), came};
  }

  static constexpr std::size_t kFirstBytes = 4096, kLingerBytes = std::size_t{16} << 20;
  static constexpr Seconds kLinger{2}, kQuietLook{0.2}, kQuietMost{15};
  Stream stream_;
  std::shared_ptr<Shared> shared_;
  std::string client_;
  beast::flat_buffer buffer_;
  bool unread_ = false;  // the other side may still be sending
};

template <class Stream>
asio::awaitable<void> serve(Stream stream, std::shared_ptr<Shared> shared, std::string client) {
  Connection<Stream> connection(std::move(stream), std::move(shared), std::move(client));
  co_await connection.run();
}

Error cannot_listen(const std::string& where, const std::string& why, const std::string& hint) {
  return {ErrorCode::FailedPrecondition, "cannot listen", where, "", why, hint};
}

Result<tcp::endpoint> parse_endpoint(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  const std::string host = text.substr(0, colon), port = colon == std::string::npos ? "" : text.substr(colon + 1);
  const bool digits = !port.empty() && port.size() <= 5 && port.find_first_not_of("0123456789") == std::string::npos;
  error_code error;
  const bool bare_colons = host.find(':') != std::string::npos && !host.starts_with('[');
  const auto address = asio::ip::make_address(
      host.starts_with('[') && host.ends_with(']') ? host.substr(1, host.size() - 2) : host, error);
  if (error || bare_colons || !digits || std::stoi(port) > 65535)
    return Error{ErrorCode::InvalidArgument,
                 "no address to listen on",
                 "--listen",
                 "ADDRESS:PORT, such as 127.0.0.1:8080 or [::1]:8080",
                 text,
                 "port 0 takes any that is free"};
  return tcp::endpoint(address, static_cast<unsigned short>(std::stoi(port)));
}

class BeastServer final : public HttpServer {
 public:
  BeastServer(HttpOptions options, HttpHandler handler)
      : options_(std::move(options)), shared_(std::make_shared<Shared>()) {
    shared_->limits = options_.limits;
    shared_->handler = std::move(handler);
  }
  ~BeastServer() override {
    drain(Deadline::after(steady_clock(), Seconds(0)));
    wait();
  }

  Result<void> listen() {
    COX_TRY(const tcp::endpoint endpoint, parse_endpoint(options_.listen));
    COX_TRY_VOID(load_certificate());
    error_code error;
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error) return cannot_listen(options_.listen, error.message(), "name another --listen ADDRESS:PORT");
    port_ = acceptor_.local_endpoint().port();
    return {};
  }

  [[nodiscard]] int port() const override { return port_; }
  [[nodiscard]] int num_connections() const override { return num_connections_; }

  void start() override {
    asio::co_spawn(context_, accept(), [](const std::exception_ptr& thrown) { tell(thrown); });
    thread_ = std::jthread([this] { context_.run(); });
  }
  void drain(Deadline deadline) override {
    asio::post(context_, [this, deadline] { begin_drain(deadline); });
  }
  void wait() override {
    if (thread_.joinable()) thread_.join();
  }

 private:
  Result<void> load_certificate() {
    if (options_.certificate_file.empty()) return {};
    error_code error;
    tls_.emplace(asio::ssl::context::tls_server);
    tls_->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv2 |
                          asio::ssl::context::no_sslv3 | asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1,
                      error);
    if (!error) tls_->use_certificate_chain_file(options_.certificate_file.string(), error);
    if (error)
      return cannot_listen(options_.certificate_file.string(), error.message(),
                           "a PEM file with the certificate and its chain");
    tls_->use_private_key_file(options_.key_file.string(), asio::ssl::context::pem, error);
    if (error)
      return cannot_listen(options_.key_file.string(), error.message(), "the PEM file of the certificate's key");
    if (options_.client_ca_file.empty()) return {};
    tls_->load_verify_file(options_.client_ca_file.string(), error);
    if (!error) tls_->set_verify_mode(asio::ssl::verify_peer | asio::ssl::verify_fail_if_no_peer_cert, error);
    // Else a client that resumes a session is cut off: OpenSSL does not know whose certificate it had shown.
    static constexpr unsigned char kSessions[] = "coxswain";
    if (!error) SSL_CTX_set_session_id_context(tls_->native_handle(), kSessions, sizeof kSessions - 1);
    if (error)
      return cannot_listen(options_.client_ca_file.string(), error.message(),
                           "the PEM file of those who sign clients' certificates");
    return {};
  }

  asio::awaitable<void> accept() {
    while (acceptor_.is_open()) {
      auto [error, socket] = co_await acceptor_.async_accept(kAwait);
      if (error == asio::error::operation_aborted) co_return;
      if (error) {  // too many descriptors: others end meanwhile
        asio::steady_timer timer(context_, std::chrono::milliseconds(20));
        co_await timer.async_wait(kAwait);
        continue;
      }
      error_code ignored;
      socket.set_option(tcp::no_delay(true), ignored);
      const std::string client = socket.remote_endpoint(ignored).address().to_string();
      const auto held = of_client_.find(client);
      if (num_connections_ >= options_.limits.connections ||
          (held != of_client_.end() && held->second >= options_.limits.of_one_client)) {
        turn_away(std::move(socket));
        continue;
      }
      ++num_connections_;
      ++of_client_[client];
      const auto ended = [this, client](const std::exception_ptr& thrown) {
        --num_connections_;
        if (--of_client_[client] == 0) of_client_.erase(client);
        tell(thrown);
        if (shared_->draining && num_connections_ == 0) context_.stop();
      };
      if (tls_)
        asio::co_spawn(context_, serve(asio::ssl::stream<tcp::socket>(std::move(socket), *tls_), shared_, client),
                       ended);
      else
        asio::co_spawn(context_, serve(std::move(socket), shared_, client), ended);
    }
  }

  /// Without waiting for what it asks; over TLS it is cut off.
  void turn_away(tcp::socket socket) {
    error_code ignored;
    if (!tls_) {
      socket.non_blocking(true, ignored);
      const auto message = to_message(too_much("too many connections"), 11, false, false);
      std::ostringstream text;
      text << message;
      socket.write_some(asio::buffer(text.str()), ignored);
    }
    socket.close(ignored);
  }

  void begin_drain(Deadline deadline) {
    error_code ignored;
    shared_->draining = true;
    acceptor_.close(ignored);
    for (Socket* socket : shared_->idle) socket->cancel(ignored);
    if (num_connections_ == 0) return context_.stop();
    cut_off_.expires_at(deadline.at);
    cut_off_.async_wait([this](const error_code& error) {
      if (!error) context_.stop();
    });
  }

  static void tell(const std::exception_ptr& thrown) {
    if (!thrown) return;
    try {
      std::rethrow_exception(thrown);
    } catch (const std::exception& e) {
      log(LogLevel::Error, "serve", std::string("a connection ended by an exception: ") + e.what());
    }
  }

  const HttpOptions options_;
  std::shared_ptr<Shared> shared_;
  std::optional<asio::ssl::context> tls_;
  asio::io_context context_{1};
  tcp::acceptor acceptor_{context_};
  asio::steady_timer cut_off_{context_};
  int port_ = 0;
  std::atomic<int> num_connections_ = 0;
  std::map<std::string, int> of_client_;  // connections by address; the server's thread alone
  std::jthread thread_;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> make_http_server(const HttpOptions& options, HttpHandler handler) {
  return guard("launcher", [&]() -> Result<std::unique_ptr<HttpServer>> {
    auto server = std::make_unique<BeastServer>(options, std::move(handler));
    COX_TRY_VOID(server->listen());
    return std::unique_ptr<HttpServer>(std::move(server));
  });
}

}  // namespace coxswain::launcher
