#include "launcher/rest/service_client.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>

#include <array>
#include <chrono>
#include <exception>
#include <optional>

#include "launcher/rest/problem.h"

namespace coxswain::launcher {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;

constexpr std::chrono::seconds kConnect(10), kGoesOn(60);
constexpr std::size_t kMostAnswer = std::size_t{16} << 20, kPart = std::size_t{64} << 10;

using Take = std::function<void(std::string_view)>;
struct Asked {
  const ServicePlace& place;
  const ServiceCall& call;
  bool waits;  // for what comes, as long as it may take
};
struct Answer {
  int status = 0;
  std::string body;
};

Error unavailable(const ServicePlace& place, const std::string& why) {
  return {ErrorCode::Unavailable,
          "the service does not answer",
          place.host + ":" + place.port,
          "a `launch serve` there",
          why,
          "look at its address, and for https at --tls-ca"};
}

std::string bracketed(const std::string& host) { return host.find(':') == std::string::npos ? host : "[" + host + "]"; }

/// As the service's own list of names has it.
std::string host_field(const ServicePlace& place) {
  return bracketed(place.host) + (place.port == (place.tls ? "443" : "80") ? "" : ":" + place.port);
}

ErrorCode code_of(int status) {
  switch (status) {
    case 401:
    case 403: return ErrorCode::PermissionDenied;
    case 404: return ErrorCode::NotFound;
    case 409: return ErrorCode::FailedPrecondition;
    case 408:
    case 429:
    case 502:
    case 503:
    case 504: return ErrorCode::Unavailable;
    default: return status >= 500 ? ErrorCode::Internal : ErrorCode::InvalidArgument;
  }
}

/// What the service says of a request that it refuses.
Error refusal(const ServicePlace& place, const Answer& answer) {
  const auto problem = parse_json(answer.body);
  const Json detail = problem && problem->is_object() ? std::as_const(*problem)["detail"] : Json();
  const char* const hint = answer.status == 401 || answer.status == 403 ? "give the run token with --token-file" : "";
  return {code_of(answer.status),
          detail.is_string() ? detail.string() : "the service refuses",
          place.host,
          "",
          std::to_string(answer.status) + " " + std::string(reason_phrase(answer.status)),
          hint};
}

/// `take`: of an answer with 200; else what is refused is gathered.
template <class Stream>
asio::awaitable<Answer> exchange(Stream& stream, const Asked& asked, const Take& take) {
  http::request<http::string_body> request{http::string_to_verb(asked.call.method), asked.call.target, 11};
  request.set(http::field::host, host_field(asked.place));
  request.set(http::field::authorization, "Bearer " + asked.place.token);
  request.set(http::field::connection, "close");
  if (!asked.call.prefer.empty()) request.set("Prefer", asked.call.prefer);
  if (!asked.call.body.is_null()) {
    request.set(http::field::content_type, "application/json");
    request.body() = to_text(asked.call.body);
    request.prepare_payload();
  }
  co_await http::async_write(stream, request, asio::use_awaitable);
  beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  co_await http::async_read_header(stream, buffer, parser, asio::use_awaitable);
  Answer answer{static_cast<int>(parser.get().result_int()), ""};
  std::array<char, kPart> part{};
  while (!parser.is_done()) {
    parser.get().body().data = part.data();
    parser.get().body().size = part.size();
    if (asked.waits && answer.status == 200)
      beast::get_lowest_layer(stream).expires_never();
    else
      beast::get_lowest_layer(stream).expires_after(kGoesOn);
    boost::system::error_code error;
    co_await http::async_read(stream, buffer, parser, asio::redirect_error(asio::use_awaitable, error));
    if (error && error != http::error::need_buffer) throw boost::system::system_error(error);
    const std::string_view came(part.data(), part.size() - parser.get().body().size);
    if (answer.status == 200 && take)
      take(came);
    else if (answer.body.size() < kMostAnswer)
      answer.body += came;
    else
      throw boost::system::system_error(make_error_code(http::error::body_limit));
  }
  co_return answer;
}

asio::awaitable<Answer> ask_all(const Asked& asked, const Take& take) {
  const auto executor = co_await asio::this_coro::executor;
  asio::ip::tcp::resolver resolver(executor);
  const auto found = co_await resolver.async_resolve(asked.place.host, asked.place.port, asio::use_awaitable);
  if (!asked.place.tls) {
    beast::tcp_stream stream(executor);
    stream.expires_after(kConnect);
    co_await stream.async_connect(found, asio::use_awaitable);
    stream.socket().set_option(asio::socket_base::keep_alive(true));
    stream.expires_after(kGoesOn);
    co_return co_await exchange(stream, asked, take);
  }
  asio::ssl::context context(asio::ssl::context::tls_client);
  if (asked.place.ca_file.empty())
    context.set_default_verify_paths();
  else
    context.load_verify_file(asked.place.ca_file);
  asio::ssl::stream<beast::tcp_stream> stream(executor, context);
  stream.set_verify_mode(asio::ssl::verify_peer);
  stream.set_verify_callback(asio::ssl::host_name_verification(asked.place.host));
  SSL_set_tlsext_host_name(stream.native_handle(), asked.place.host.c_str());
  stream.next_layer().expires_after(kConnect);
  co_await stream.next_layer().async_connect(found, asio::use_awaitable);
  stream.next_layer().socket().set_option(asio::socket_base::keep_alive(true));
  co_await stream.async_handshake(asio::ssl::stream_base::client, asio::use_awaitable);
  stream.next_layer().expires_after(kGoesOn);
  co_return co_await exchange(stream, asked, take);
}

Result<Answer> ask(const Asked& asked, const Take& take) {
  std::optional<Answer> answer;
  std::exception_ptr failed;
  asio::io_context loop;
  asio::co_spawn(loop, ask_all(asked, take), [&](std::exception_ptr error, Answer got) {
    failed = error;
    answer = std::move(got);
  });
  {
    const std::stop_callback stopped(asked.call.stop, [&loop] { loop.stop(); });
    loop.run_until(asked.call.deadline.at);
  }
  try {
    if (failed) std::rethrow_exception(failed);
  } catch (const boost::system::system_error& error) {
    return unavailable(asked.place, error.code().message());
  }
  if (!answer && asked.call.stop.stop_requested())
    return Error{ErrorCode::Cancelled, "nobody waits for the answer any more", asked.place.host, "", "", ""};
  if (!answer) return unavailable(asked.place, "no answer in time");
  if (answer->status >= 200 && answer->status < 300) return std::move(*answer);
  return refusal(asked.place, *answer);
}

}  // namespace

Result<ServicePlace> parse_service_url(const std::string& url) {
  ServicePlace place;
  const Error wrong{ErrorCode::InvalidArgument,
                    "no address of a service",
                    "--service",
                    "http://HOST:PORT or https://HOST[:PORT]",
                    url,
                    "`launch serve` tells its address at its start"};
  std::string rest = url;
  if (rest.starts_with("https://"))
    place.tls = true;
  else if (!rest.starts_with("http://"))
    return wrong;
  rest.erase(0, rest.find("//") + 2);
  if (rest.ends_with('/')) rest.pop_back();
  const auto end = rest.starts_with('[') ? rest.find(']') : std::string::npos;
  const auto colon = rest.find(':', end == std::string::npos ? 0 : end);
  place.host = end == std::string::npos ? rest.substr(0, colon) : rest.substr(1, end - 1);
  place.port = colon == std::string::npos ? (place.tls ? "443" : "80") : rest.substr(colon + 1);
  const bool is_number =
      !place.port.empty() && place.port.size() <= 5 && place.port.find_first_not_of("0123456789") == std::string::npos;
  if (place.host.empty() || !is_number || rest.find_first_of("/?#@ ") != std::string::npos) return wrong;
  return place;
}

std::string beside(const ServicePlace& place, int port) { return bracketed(place.host) + ":" + std::to_string(port); }

Result<Json> ask_service(const ServicePlace& place, const ServiceCall& call) {
  COX_TRY(const Answer answer, ask({place, call, false}, {}));
  if (answer.status == 204) return Json();
  auto json = parse_json(answer.body);
  if (!json) return unavailable(place, "an answer that is no JSON");
  return json;
}

Result<void> follow_service(const ServicePlace& place, const std::string& target, const Take& take) {
  const ServiceCall call{"GET", target};
  COX_TRY(const Answer answer, ask({place, call, true}, take));
  return {};
}

}  // namespace coxswain::launcher
