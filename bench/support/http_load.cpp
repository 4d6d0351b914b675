#include "bench/support/http_load.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <string_view>
#include <utility>

#include "bench/support/waits.h"
#include "common/ensure.h"

namespace coxswain::bench {
namespace {

/// Of a slow end: what is on its way then counts as it comes.
constexpr double kLastSeconds = 30;

class LoadClient {
 public:
  explicit LoadClient(int port) : port_(port) { connect(); }
  LoadClient(LoadClient&& other) noexcept
      : port_(other.port_),
        socket_(std::exchange(other.socket_, -1)),
        came_(std::move(other.came_)),
        due_(other.due_),
        busy_(other.busy_) {}
  LoadClient& operator=(LoadClient&&) = delete;
  ~LoadClient() {
    if (socket_ >= 0) ::close(socket_);
  }

  [[nodiscard]] bool busy() const { return busy_; }
  [[nodiscard]] int socket() const { return socket_; }
  [[nodiscard]] double due() const { return due_; }

  void ask(const std::string& request, double due) {
    busy_ = true;
    due_ = due;
    came_.clear();
    // Small beside a socket's buffer: one that does not take it whole is broken.
    if (::send(socket_, request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size()))
      lost_ = true;
  }

  /// The status of the answer that is whole now; -1: not yet; 0: the connection ended.
  int read() {
    char bytes[65536];
    const ssize_t size = lost_ ? 0 : ::recv(socket_, bytes, sizeof bytes, MSG_DONTWAIT);
    if (size < 0) return -1;
    came_.append(bytes, static_cast<std::size_t>(size));
    const int status = size == 0 ? 0 : whole_status();
    if (status < 0) return status;
    busy_ = false;
    if (size == 0 || came_.find("Connection: close") != std::string::npos) connect();
    return status;
  }

 private:
  void connect() {
    if (socket_ >= 0) ::close(socket_);
    lost_ = false;
    socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(port_));
    COX_ENSURE(::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, port_);
    const int yes = 1;
    ::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  }

  [[nodiscard]] int whole_status() const {
    constexpr std::string_view kLength = "Content-Length: ", kVersion = "HTTP/1.1 ";
    const std::size_t end = came_.find("\r\n\r\n");
    if (end == std::string::npos) return -1;
    const std::size_t length = came_.find(kLength);
    const std::size_t size = length < end ? std::strtoull(came_.c_str() + length + kLength.size(), nullptr, 10) : 0;
    return came_.size() < end + 4 + size ? -1 : std::atoi(came_.c_str() + kVersion.size());
  }

  int port_, socket_ = -1;
  std::string came_;
  double due_ = 0;
  bool busy_ = false, lost_ = false;
};

class Load {
 public:
  explicit Load(const LoadSettings& settings) : settings_(settings) {
    for (int i = 0; i < settings.clients; ++i) clients_.emplace_back(settings.port);
  }

  LoadResult run() {
    began_ = steady_clock().now();
    while (true) {
      const double now = seconds_since(began_);
      const bool over = now >= settings_.seconds || all_asked();
      if (!over) ask(now);
      if (over && (num_busy() == 0 || now >= settings_.seconds + kLastSeconds)) break;
      wait_for_answers(over ? settings_.seconds + kLastSeconds : std::min(settings_.seconds, next_due()));
    }
    result_.seconds = all_asked() ? seconds_since(began_) : settings_.seconds;
    std::sort(result_.latencies.begin(), result_.latencies.end());
    return std::move(result_);
  }

 private:
  [[nodiscard]] bool is_open() const { return settings_.per_second > 0; }
  [[nodiscard]] bool all_asked() const { return settings_.requests > 0 && num_asked_ >= settings_.requests; }
  [[nodiscard]] std::ptrdiff_t num_busy() const {
    return std::count_if(clients_.begin(), clients_.end(), [](const LoadClient& client) { return client.busy(); });
  }
  [[nodiscard]] double next_due() const {
    return is_open() ? static_cast<double>(num_due_) / settings_.per_second : settings_.seconds;
  }

  void ask(double now) {
    for (; is_open() && next_due() <= now; ++num_due_) waiting_.push_back(next_due());
    for (LoadClient& client : clients_) {
      if (client.busy()) continue;
      if ((is_open() && waiting_.empty()) || all_asked()) return;
      ++num_asked_;
      client.ask(settings_.next_request(), is_open() ? waiting_.front() : seconds_since(began_));
      if (is_open()) waiting_.pop_front();
    }
  }

  void wait_for_answers(double until) {
    std::vector<pollfd> entries;
    for (const LoadClient& client : clients_) entries.push_back({client.socket(), POLLIN, 0});
    const double left = std::max(0.0, until - seconds_since(began_));
    const timespec limit{static_cast<time_t>(left), static_cast<long>((left - std::floor(left)) * 1e9)};
    if (::ppoll(entries.data(), entries.size(), &limit, nullptr) <= 0) return;
    for (std::size_t i = 0; i < clients_.size(); ++i) {
      if (entries[i].revents == 0 || !clients_[i].busy()) continue;
      const double due = clients_[i].due();
      const int status = clients_[i].read();
      if (status < 0) continue;
      ++result_.statuses[status];
      if (status == 200) result_.latencies.push_back(seconds_since(began_) - due);
    }
  }

  const LoadSettings& settings_;
  std::vector<LoadClient> clients_;
  std::deque<double> waiting_;  // due, and no client is free
  std::int64_t num_due_ = 0, num_asked_ = 0;
  TimePoint began_;
  LoadResult result_;
};

}  // namespace

int LoadResult::answers() const {
  int sum = 0;
  for (const auto& [status, count] : statuses) sum += count;
  return sum;
}

double LoadResult::percentile(double fraction) const {
  if (latencies.empty()) return 0;
  const auto rank = static_cast<std::size_t>(std::ceil(fraction * static_cast<double>(latencies.size())));
  return latencies[std::clamp<std::size_t>(rank, 1, latencies.size()) - 1];
}

LoadResult run_load(const LoadSettings& settings) { return Load(settings).run(); }

}  // namespace coxswain::bench
