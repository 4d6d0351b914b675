#include "proto/file_exchange.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <optional>

#include "common/bytes_io.h"
#include "proto/cancel_at.h"
#include "proto/control.pb.h"
#include "proto/error_json.h"
#include "proto/time_limits.h"

namespace coxswain::proto {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kPartBytes = std::int64_t{1} << 20;
// Asked for and not yet answered: hides a round trip, and bounds what waits in memory.
constexpr int kMostAhead = 4;
constexpr std::string_view kFolderPrefix = "step_";

Error disk_error(const char* message, const fs::path& path, const std::string& got = "") {
  return {ErrorCode::FailedPrecondition, message, path.string(), "", got, "check free space and permissions"};
}

/// A node that is there answers within this; one that is not is not waited for.
Deadline soon(Deadline deadline) {
  return {std::min(deadline.at, Deadline::after(steady_clock(), Seconds(limits::kFileConnect)).at)};
}

/// Nothing but files in folders of checkpoints.
Result<fs::path> path_of(const control::FileRequest& request) {
  const fs::path folder = request.folder();
  const bool plain = !request.file().empty() && request.file().find('/') == std::string::npos &&
                     request.file() != "." && request.file() != "..";
  const bool is_checkpoint = folder.is_absolute() && folder.lexically_normal() == folder &&
                             folder.filename().string().starts_with(kFolderPrefix);
  if (plain && is_checkpoint) return folder / request.file();
  return Error{ErrorCode::InvalidArgument,
               "no file of a checkpoint",
               request.folder() + "/" + request.file(),
               "a name without folders, in an absolute folder step_...",
               "",
               ""};
}

/// What a peer writes, until it is whole.
class Arrival {
 public:
  Result<void> add(const control::FileRequest& request, const fs::path& path) {
    if (request.offset() == 0) COX_TRY_VOID(begin(path));
    if (!file_ || path != path_ || request.offset() != file_->size().value)
      return Error{ErrorCode::InvalidArgument, "a part of a file that was not begun", path.string(), "", "", ""};
    COX_TRY_VOID(file_->write(request.write()));
    return request.sha256().empty() ? Result<void>() : finish(request.sha256());
  }

 private:
  Result<void> begin(const fs::path& path) {
    std::error_code code;
    fs::create_directories(path.parent_path(), code);
    if (code) return disk_error("cannot make the folder", path.parent_path(), code.message());
    file_.reset();
    path_ = path;
    COX_TRY(NewFile file, NewFile::create(part_path()));
    file_.emplace(std::move(file));
    return {};
  }
  Result<void> finish(const std::string& sha256) {
    COX_TRY_VOID(file_->finish());
    const std::string got = file_->sha256();
    file_.reset();
    std::error_code code;
    if (got != sha256) {
      fs::remove(part_path(), code);
      return Error{ErrorCode::DataLoss, "a file arrived changed", path_.string(), sha256, got, ""};
    }
    if (auto there = check_on_disk(part_path(), sha256); !there) {
      fs::remove(part_path(), code);
      return there;
    }
    fs::rename(part_path(), path_, code);
    if (code) return disk_error("cannot put the file in its place", path_, code.message());
    return {};
  }
  [[nodiscard]] fs::path part_path() const { return path_.string() + "." + token_ + ".part"; }

  const std::string token_ = random_hex(4);
  fs::path path_;
  std::optional<NewFile> file_;  // one that is not finished is removed
};

Result<std::string> read_part(const fs::path& path, std::int64_t offset, std::int64_t size) {
  if (offset < 0 || size < 0 || size > kPartBytes)
    return Error{ErrorCode::InvalidArgument, "no part of a file", path.string(), "", std::to_string(size), ""};
  std::ifstream in(path, std::ios::binary);
  if (!in) return Error{ErrorCode::NotFound, "cannot open the file", path.string(), "", "", ""};
  std::string data(static_cast<std::size_t>(size), '\0');
  in.seekg(offset);
  in.read(data.data(), size);
  if (in.gcount() != size)
    return Error{ErrorCode::DataLoss, "the file is shorter", path.string(), "", std::to_string(in.gcount()), ""};
  return data;
}

/// Until the peer hangs up.
template <class Answer>
void answer_all(Stream& stream, Answer answer) {
  while (const auto body = stream.receive()) {
    control::FileRequest request;
    control::FileReply reply;
    if (!request.ParseFromString(*body)) return;
    if (const Result<void> done = answer(request, reply); !done) reply.set_error_json(error_to_text(done.error()));
    if (!stream.send(reply.SerializeAsString())) return;
  }
}

/// Requests in order, a few ahead of their answers.
class Conversation {
 public:
  explicit Conversation(Stream& stream, const FilePlace& place) : stream_(stream), place_(place) {}

  /// Sends, and takes answers until few are left open; each goes to `take`.
  template <class Take>
  Result<void> ask(control::FileRequest request, Take take) {
    request.set_folder(place_.folder.string());
    request.set_file(place_.file);
    if (!stream_.send(request.SerializeAsString())) return gone();
    ++open_;
    return answers(kMostAhead - 1, take);
  }
  template <class Take>
  Result<void> answers(int left, Take take) {
    for (; open_ > left; --open_) {
      const auto body = stream_.receive();
      control::FileReply reply;
      if (!body || !reply.ParseFromString(*body)) return gone();
      if (!reply.error_json().empty()) return error_from_text(reply.error_json());
      COX_TRY_VOID(take(reply.data()));
    }
    return {};
  }

 private:
  [[nodiscard]] Error gone() const {
    if (const auto status = stream_.status(); !status && status.error().code == ErrorCode::Unauthenticated)
      return status.error();
    return {ErrorCode::Unavailable, "the node that takes and gives files is gone", place_.address, "", "", ""};
  }

  Stream& stream_;
  const FilePlace& place_;
  int open_ = 0;
};

}  // namespace

void serve_files(Stream& stream) {
  Arrival arrival;
  answer_all(stream, [&](const control::FileRequest& request, control::FileReply& reply) -> Result<void> {
    if (request.kind_case() == control::FileRequest::kEcho) {
      const auto size = static_cast<std::size_t>(std::clamp<std::int64_t>(request.echo(), 0, kPartBytes));
      reply.set_data(std::string(size, 0));
      return {};
    }
    COX_TRY(const fs::path path, path_of(request));
    if (request.kind_case() != control::FileRequest::kRead) return arrival.add(request, path);
    COX_TRY(*reply.mutable_data(), read_part(path, request.offset(), request.read()));
    return {};
  });
}

void serve_inputs(Stream& stream, const std::function<Result<std::vector<SharedFile>>()>& files) {
  answer_all(stream, [&](const control::FileRequest& request, control::FileReply& reply) -> Result<void> {
    COX_TRY(const std::vector<SharedFile> shared, files());
    if (request.kind_case() == control::FileRequest::kList) {
      control::FileList list;
      for (const SharedFile& file : shared) {
        control::SharedFile& to = *list.add_files();
        to.set_path(file.path.string());
        to.set_bytes(file.size.value);
        to.set_sha256(file.sha256);
      }
      reply.set_data(list.SerializeAsString());
      return {};
    }
    const fs::path path = fs::path(request.folder()) / request.file();
    const bool is_shared =
        std::any_of(shared.begin(), shared.end(), [&path](const SharedFile& file) { return file.path == path; });
    if (request.kind_case() != control::FileRequest::kRead || !is_shared)
      return Error{ErrorCode::PermissionDenied, "no file that this run reads", path.string(), "", "", ""};
    COX_TRY(*reply.mutable_data(), read_part(path, request.offset(), request.read()));
    return {};
  });
}

Result<std::vector<SharedFile>> list_inputs(const std::string& address, const Secret& secret, Deadline deadline) {
  COX_TRY(const auto stream, connect(address, Service::Agent, secret, soon(deadline)));
  const CancelAt watch([&stream] { stream->cancel(); }, deadline.at);
  const FilePlace place{address, "", ""};
  Conversation conversation(*stream, place);
  std::vector<SharedFile> files;
  const auto take = [&files](const std::string& data) -> Result<void> {
    control::FileList list;
    list.ParseFromString(data);
    for (const control::SharedFile& file : list.files())
      files.push_back({file.path(), Bytes{file.bytes()}, file.sha256()});
    return {};
  };
  control::FileRequest request;
  request.mutable_list();
  COX_TRY_VOID(conversation.ask(std::move(request), take));
  COX_TRY_VOID(conversation.answers(0, take));
  return files;
}

Result<void> put_file(const fs::path& source, const FilePlace& to, const Secret& secret, Deadline deadline,
                      const std::stop_token& stop) {
  COX_TRY(const auto stream, connect(to.address, Service::Agent, secret, soon(deadline)));
  const CancelAt watch([&stream] { stream->cancel(); }, deadline.at);
  const std::stop_callback end(stop, [&stream] { stream->cancel(); });
  Conversation conversation(*stream, to);
  const auto nothing = [](const std::string&) { return Result<void>(); };
  std::error_code code;
  const auto size = static_cast<std::int64_t>(fs::file_size(source, code));
  if (code) return disk_error("cannot look at the file", source, code.message());
  Sha256 hash;
  std::int64_t offset = 0;
  do {
    const std::int64_t part = std::min(kPartBytes, size - offset);
    COX_TRY(std::string data, read_part(source, offset, part));
    hash.add(data);
    control::FileRequest request;
    request.set_offset(offset);
    request.set_write(std::move(data));
    offset += part;
    if (offset == size) request.set_sha256(hash.hex());
    COX_TRY_VOID(conversation.ask(std::move(request), nothing));
  } while (offset < size);
  return conversation.answers(0, nothing);
}

Result<void> get_file(const FilePlace& from, Bytes size, const std::string& sha256, const fs::path& target,
                      const Secret& secret, Deadline deadline, const std::stop_token& stop) {
  COX_TRY(const auto stream, connect(from.address, Service::Agent, secret, soon(deadline)));
  const CancelAt watch([&stream] { stream->cancel(); }, deadline.at);
  const std::stop_callback end(stop, [&stream] { stream->cancel(); });
  Conversation conversation(*stream, from);
  const fs::path part = target.string() + "." + random_hex(4) + ".part";
  COX_TRY(NewFile file, NewFile::create(part));
  const auto write = [&](const std::string& data) { return file.write(data); };
  for (std::int64_t offset = 0; offset < size.value; offset += kPartBytes) {
    control::FileRequest request;
    request.set_offset(offset);
    request.set_read(std::min(kPartBytes, size.value - offset));
    COX_TRY_VOID(conversation.ask(std::move(request), write));
  }
  COX_TRY_VOID(conversation.answers(0, write));
  COX_TRY_VOID(file.finish());
  std::error_code code;
  if (const std::string got = file.sha256(); got != sha256) {
    fs::remove(part, code);
    return Error{ErrorCode::DataLoss, "a file arrived changed", from.address + ":" + from.file, sha256, got, ""};
  }
  fs::rename(part, target, code);
  if (code) return disk_error("cannot put the file in its place", target, code.message());
  return {};
}

Result<LinkRate> measure_link(const std::string& address, const Secret& secret, const std::stop_token& stop,
                              Deadline deadline) {
  constexpr int kRoundTrips = 20;
  constexpr std::int64_t kFirstBytes = 64 << 10, kMostBytes = 64 << 20;
  constexpr double kLongEnoughSeconds = 0.1;
  COX_TRY(const auto stream, connect(address, Service::Agent, secret, soon(deadline)));
  const CancelAt watch([&stream] { stream->cancel(); }, deadline.at);
  const std::stop_callback end(stop, [&stream] { stream->cancel(); });
  const FilePlace place{address, "", ""};
  Conversation conversation(*stream, place);
  const auto nothing = [](const std::string&) { return Result<void>(); };
  const auto seconds_for = [&](std::int64_t bytes) -> Result<double> {
    const TimePoint began = steady_clock().now();
    do {
      control::FileRequest request;
      request.set_echo(std::min(bytes, kPartBytes));
      bytes -= request.echo();
      COX_TRY_VOID(conversation.ask(std::move(request), nothing));
    } while (bytes > 0);
    COX_TRY_VOID(conversation.answers(0, nothing));
    return std::chrono::duration<double>(steady_clock().now() - began).count();
  };
  double round_trip = HUGE_VAL;
  for (int i = 0; i < kRoundTrips; ++i) {
    COX_TRY(const double seconds, seconds_for(0));
    round_trip = std::min(round_trip, seconds);
  }
  for (std::int64_t bytes = kFirstBytes;; bytes *= 4) {
    COX_TRY(const double seconds, seconds_for(bytes));
    if (seconds < kLongEnoughSeconds && bytes < kMostBytes) continue;
    const double carried = std::max(seconds - round_trip, seconds / 2);
    return LinkRate{Seconds(round_trip / 2), BytesPerSecond(static_cast<double>(bytes) / carried)};
  }
}

}  // namespace coxswain::proto
