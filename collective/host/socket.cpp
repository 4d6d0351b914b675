#include "collective/host/socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "collective/host/doorbell.h"

namespace coxswain::collective {
namespace {

constexpr int kSocketFlags = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
constexpr int kMaxDescriptors = 4;

/// A socket address holds 107 characters; a longer path is reached through its folder's descriptor.
struct UnixAddress {
  sockaddr_un address = {};
  UniqueFd folder;
};

Result<UnixAddress> unix_address(const std::string& path) {
  UnixAddress result;
  result.address.sun_family = AF_UNIX;
  std::string name = path;
  if (name.size() >= sizeof(result.address.sun_path)) {
    const std::filesystem::path whole(path);
    result.folder = UniqueFd(::open(whole.parent_path().c_str(), O_PATH | O_CLOEXEC));
    if (!result.folder) return system_error(ErrorCode::FailedPrecondition, "cannot open the folder of a socket");
    name = "/proc/self/fd/" + std::to_string(result.folder.value()) + "/" + whole.filename().string();
    if (name.size() >= sizeof(result.address.sun_path)) {
      return Error{ErrorCode::FailedPrecondition, "the name of a socket is too long", path, "", "",
                   "choose a shorter file name"};
    }
  }
  std::memcpy(result.address.sun_path, name.c_str(), name.size() + 1);
  return result;
}

using AddressList = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Result<AddressList> look_up(const std::string& host, const std::string& port, bool passive) {
  addrinfo wanted = {};
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0);
  addrinfo* found = nullptr;
  const int code = ::getaddrinfo(host.c_str(), port.c_str(), &wanted, &found);
  if (code != 0) {
    return Error{ErrorCode::FailedPrecondition,
                 std::string("no such address: ") + ::gai_strerror(code),
                 host,
                 "",
                 "",
                 "give an address of this machine (--local-addr)"};
  }
  return AddressList(found, &::freeaddrinfo);
}

/// Waits until `events` or the deadline.
Result<void> wait_ready(const UniqueFd& socket, short events, Deadline deadline) {
  pollfd waited{socket.value(), events, 0};
  while (true) {
    const int ready = ::poll(&waited, 1, poll_timeout(deadline));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return system_error(ErrorCode::Unavailable, "poll failed");
    if (deadline.passed(steady_clock()))
      return Error{ErrorCode::DeadlineExceeded, "no answer on a connection", "", "", "", ""};
  }
}

Result<void> finish_connect(const UniqueFd& socket, const sockaddr* address, socklen_t bytes, const std::string& where,
                            Deadline deadline) {
  if (::connect(socket.value(), address, bytes) == 0) return {};
  // EAGAIN: a Unix listener whose queue is full.
  if (errno != EINPROGRESS && errno != EAGAIN)
    return system_error(ErrorCode::Unavailable, "cannot connect to " + where);
  COX_TRY_VOID(wait_ready(socket, POLLOUT, deadline));
  int failure = 0;
  socklen_t length = sizeof(failure);
  ::getsockopt(socket.value(), SOL_SOCKET, SO_ERROR, &failure, &length);
  errno = failure;
  if (failure != 0) return system_error(ErrorCode::Unavailable, "cannot connect to " + where);
  return {};
}

}  // namespace

Result<UniqueFd> listen_unix(const std::string& path) {
  UniqueFd socket(::socket(AF_UNIX, kSocketFlags, 0));
  if (!socket) return system_error(ErrorCode::FailedPrecondition, "cannot make a socket");
  COX_TRY(const UnixAddress address, unix_address(path));
  if (::bind(socket.value(), reinterpret_cast<const sockaddr*>(&address.address), sizeof(address.address)) != 0 ||
      ::listen(socket.value(), SOMAXCONN) != 0) {
    return system_error(ErrorCode::FailedPrecondition, "cannot listen on " + path);
  }
  return socket;
}

Result<UniqueFd> listen_tcp(const std::string& address) {
  COX_TRY(const AddressList found, look_up(address, "0", true));
  UniqueFd socket(::socket(found->ai_family, kSocketFlags, 0));
  if (!socket) return system_error(ErrorCode::FailedPrecondition, "cannot make a socket");
  if (::bind(socket.value(), found->ai_addr, found->ai_addrlen) != 0 || ::listen(socket.value(), SOMAXCONN) != 0) {
    return system_error(ErrorCode::FailedPrecondition, "cannot listen on a port of " + address);
  }
  return socket;
}

Result<std::string> local_endpoint(const UniqueFd& socket) {
  sockaddr_storage address = {};
  socklen_t bytes = sizeof(address);
  if (::getsockname(socket.value(), reinterpret_cast<sockaddr*>(&address), &bytes) != 0) {
    return system_error(ErrorCode::Internal, "cannot ask a socket for its port");
  }
  char host[NI_MAXHOST] = {};
  char port[NI_MAXSERV] = {};
  ::getnameinfo(reinterpret_cast<const sockaddr*>(&address), bytes, host, sizeof(host), port, sizeof(port),
                NI_NUMERICHOST | NI_NUMERICSERV);
  const std::string name = address.ss_family == AF_INET6 ? "[" + std::string(host) + "]" : std::string(host);
  return name + ":" + port;
}

Result<UniqueFd> connect_unix(const std::string& path, Deadline deadline) {
  COX_TRY(const UnixAddress address, unix_address(path));
  while (true) {
    UniqueFd socket(::socket(AF_UNIX, kSocketFlags, 0));
    if (!socket) return system_error(ErrorCode::FailedPrecondition, "cannot make a socket");
    COX_TRY_VOID(finish_connect(socket, reinterpret_cast<const sockaddr*>(&address.address), sizeof(address.address),
                                path, deadline));
    // After EAGAIN the socket is writable but not connected: ask again.
    sockaddr_un peer = {};
    socklen_t bytes = sizeof(peer);
    if (::getpeername(socket.value(), reinterpret_cast<sockaddr*>(&peer), &bytes) == 0) return socket;
    if (deadline.passed(steady_clock()))
      return Error{ErrorCode::DeadlineExceeded, "no room in a listener's queue", path, "", "", ""};
  }
}

Result<UniqueFd> connect_tcp(const std::string& endpoint, Deadline deadline) {
  const std::size_t colon = endpoint.rfind(':');
  if (colon == std::string::npos)
    return Error{ErrorCode::InvalidArgument, "not an address", "", "HOST:PORT", endpoint, ""};
  std::string host = endpoint.substr(0, colon);
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  COX_TRY(const AddressList found, look_up(host, endpoint.substr(colon + 1), false));
  UniqueFd socket(::socket(found->ai_family, kSocketFlags, 0));
  if (!socket) return system_error(ErrorCode::FailedPrecondition, "cannot make a socket");
  COX_TRY_VOID(finish_connect(socket, found->ai_addr, found->ai_addrlen, endpoint, deadline));
  tune_tcp(socket);
  return socket;
}

UniqueFd accept_one(const UniqueFd& listener) {
  return UniqueFd(::accept4(listener.value(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

void tune_tcp(const UniqueFd& socket) {
  const auto set = [&](int level, int option, int value) {
    ::setsockopt(socket.value(), level, option, &value, sizeof(value));
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 1);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 1);
  set(IPPROTO_TCP, TCP_KEEPCNT, 5);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 6000);  // probes do not run while data is unacknowledged
}

Moved send_some(int socket, std::span<const std::byte> data, std::span<const int> descriptors) {
  iovec piece{const_cast<std::byte*>(data.data()), data.size()};
  msghdr header = {};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxDescriptors)] = {};
  if (!descriptors.empty()) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
  }
  const ssize_t sent = ::sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent >= 0) return {static_cast<std::size_t>(sent), false};
  return {0, errno != EAGAIN && errno != EINTR && errno != ENOBUFS};
}

Moved receive_some(int socket, std::span<std::byte> data, std::vector<UniqueFd>* descriptors) {
  iovec piece{data.data(), data.size()};
  msghdr header = {};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxDescriptors)] = {};
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  const ssize_t received = ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (received < 0) return {0, errno != EAGAIN && errno != EINTR};
  for (cmsghdr* rights = CMSG_FIRSTHDR(&header); rights != nullptr; rights = CMSG_NXTHDR(&header, rights)) {
    if (rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(rights) + i * sizeof(int), sizeof(int));
      UniqueFd owned(fd);
      if (descriptors != nullptr) descriptors->push_back(std::move(owned));
    }
  }
  return {static_cast<std::size_t>(received), received == 0 && !data.empty()};
}

Moved send_two(int socket, std::span<const std::byte> first, std::span<const std::byte> second) {
  iovec pieces[] = {{const_cast<std::byte*>(first.data()), first.size()},
                    {const_cast<std::byte*>(second.data()), second.size()}};
  msghdr header = {};
  header.msg_iov = pieces;
  header.msg_iovlen = 2;
  const ssize_t sent = ::sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent >= 0) return {static_cast<std::size_t>(sent), false};
  return {0, errno != EAGAIN && errno != EINTR && errno != ENOBUFS};
}

Moved receive_two(int socket, std::span<std::byte> first, std::span<std::byte> second) {
  iovec pieces[] = {{first.data(), first.size()}, {second.data(), second.size()}};
  msghdr header = {};
  header.msg_iov = pieces;
  header.msg_iovlen = 2;
  const ssize_t received = ::recvmsg(socket, &header, MSG_DONTWAIT);
  if (received < 0) return {0, errno != EAGAIN && errno != EINTR};
  return {static_cast<std::size_t>(received), received == 0 && first.size() + second.size() > 0};
}

Result<void> send_all(const UniqueFd& socket, std::span<const std::byte> data, std::span<const int> descriptors,
                      Deadline deadline) {
  while (!data.empty()) {
    const Moved moved = send_some(socket.value(), data, descriptors);
    if (moved.closed) return Error{ErrorCode::Unavailable, "the other side closed the connection", "", "", "", ""};
    if (moved.bytes == 0) {
      COX_TRY_VOID(wait_ready(socket, POLLOUT, deadline));
      continue;
    }
    descriptors = {};
    data = data.subspan(moved.bytes);
  }
  return {};
}

Result<void> receive_all(const UniqueFd& socket, std::span<std::byte> data, std::vector<UniqueFd>* descriptors,
                         Deadline deadline) {
  while (!data.empty()) {
    const Moved moved = receive_some(socket.value(), data, descriptors);
    if (moved.closed) return Error{ErrorCode::Unavailable, "the other side closed the connection", "", "", "", ""};
    if (moved.bytes == 0) COX_TRY_VOID(wait_ready(socket, POLLIN, deadline));
    data = data.subspan(moved.bytes);
  }
  return {};
}

}  // namespace coxswain::collective
