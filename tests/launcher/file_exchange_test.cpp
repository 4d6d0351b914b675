#include "proto/file_exchange.h"

#include <fstream>

#include "common/bytes_io.h"
#include "proto/control.pb.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::proto;

namespace {

namespace fs = std::filesystem;

Deadline soon() { return Deadline::after(steady_clock(), Seconds(20)); }

/// A node that takes and gives files.
struct FileNode {
  std::unique_ptr<Server> server = std::move(*start_server({"127.0.0.1:0", Service::Agent, {"key", false}, "run"},
                                                           [](Stream& stream) { serve_files(stream); }));
  std::string address = "127.0.0.1:" + std::to_string(server->port());
};

/// No two parts of it are alike.
std::string content_of(std::size_t size) {
  std::string content(size, ' ');
  for (std::size_t i = 0; i < size; ++i) content[i] = static_cast<char>((i * 2654435761U) >> 13);
  return content;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  return names;
}

const Secret kSecret{"key", false};

}  // namespace

TEST_CASE("files of any size go there and back whole", "[file_exchange]") {
  const FileNode node;
  TempDir here, there;
  const std::size_t part = std::size_t{1} << 20;
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, part - 1, part, part + 1, 7 * part + 3}) {
    const std::string content = content_of(size);
    REQUIRE(write_file(here / "source", content));
    const FilePlace place{node.address, there / "step_5.partial", "rank_0"};
    REQUIRE(put_file(here / "source", place, kSecret, soon()));
    CHECK(*read_file(there / "step_5.partial" / "rank_0") == content);
    REQUIRE(write_file(here / "copy", "one before"));
    REQUIRE(
        get_file(place, Bytes(static_cast<std::int64_t>(size)), sha256_hex(content), here / "copy", kSecret, soon()));
    CHECK(*read_file(here / "copy") == content);
  }
  CHECK(names_in(there / "step_5.partial") == std::vector<std::string>{"rank_0"});
  CHECK(names_in(here.path()).size() == 2);
}

TEST_CASE("what is not as it should be gets no name", "[file_exchange]") {
  const FileNode node;
  TempDir here, there;
  const std::string content = content_of(3 << 20);
  fs::create_directories(there / "step_5");
  REQUIRE(write_file(there / "step_5" / "rank_0", content));
  const FilePlace place{node.address, there / "step_5", "rank_0"};
  const auto get = [&](const FilePlace& from, std::int64_t size, const std::string& sha256) {
    return get_file(from, Bytes(size), sha256, here / "copy", kSecret, soon()).error().code;
  };
  CHECK(get(place, 3 << 20, std::string(64, '0')) == ErrorCode::DataLoss);
  CHECK(get(place, (3 << 20) + 1, sha256_hex(content)) == ErrorCode::DataLoss);
  CHECK(get({node.address, there / "step_5", "rank_1"}, 8, "") == ErrorCode::NotFound);
  CHECK(names_in(here.path()).empty());

  // A sender whose last part does not fit the rest.
  auto stream = std::move(*connect(node.address, Service::Agent, kSecret, soon()));
  control::FileRequest request;
  request.set_folder((there / "step_6").string());
  request.set_file("rank_0");
  request.set_write("part");
  request.set_sha256(std::string(64, '0'));
  stream->send(request.SerializeAsString());
  control::FileReply reply;
  REQUIRE(reply.ParseFromString(*stream->receive()));
  CHECK(reply.error_json().find("arrived changed") != std::string::npos);
  CHECK(names_in(there / "step_6").empty());
}

TEST_CASE("nothing but files of checkpoints can be asked for", "[file_exchange]") {
  const FileNode node;
  TempDir here, there;
  fs::create_directories(there / "secret");
  fs::create_directories(there / "step_5");
  REQUIRE(write_file(there / "secret" / "file", "s"));
  REQUIRE(write_file(here / "source", "s"));
  const auto refused = [&](const fs::path& folder, const std::string& file) {
    const auto got = get_file({node.address, folder, file}, Bytes(1), sha256_hex("s"), here / "copy", kSecret, soon());
    const auto put = put_file(here / "source", {node.address, folder, file}, kSecret, soon());
    return !got && got.error().code == ErrorCode::InvalidArgument && !put &&
           put.error().code == ErrorCode::InvalidArgument;
  };
  CHECK(refused(there / "secret", "file"));
  CHECK(refused(there / "step_5", "../secret/file"));
  CHECK(refused(there / "step_5", ".."));
  CHECK(refused(there / "step_5", ""));
  CHECK(refused(there.path() / "secret" / ".." / "secret", "file"));
  CHECK(refused("step_5", "file"));
  CHECK(names_in(there / "step_5").empty());
}

TEST_CASE("a node that is gone, or holds another key, is an error", "[file_exchange]") {
  auto node = std::make_unique<FileNode>();
  TempDir here, there;
  REQUIRE(write_file(here / "source", "s"));
  const FilePlace place{node->address, there / "step_5", "rank_0"};
  CHECK_FALSE(put_file(here / "source", place, {"another", false}, soon()));
  node.reset();
  const auto gone = put_file(here / "source", place, kSecret, Deadline::after(steady_clock(), Seconds(0.2)));
  REQUIRE_FALSE(gone);
  CHECK(gone.error().code == ErrorCode::DeadlineExceeded);
}

TEST_CASE("the way to another node is measured without a file", "[file_exchange]") {
  const FileNode node;
  std::stop_source stop;
  const auto rate = measure_link(node.address, kSecret, stop.get_token(), soon());
  REQUIRE(rate);
  CHECK(rate->latency > Seconds(0));
  CHECK(rate->bandwidth > BytesPerSecond(0));
  CHECK_FALSE(measure_link(node.address, {"another", false}, stop.get_token(), soon()));
  CHECK_FALSE(measure_link("127.0.0.1:1", kSecret, stop.get_token(), Deadline::after(steady_clock(), Seconds(0.2))));
  stop.request_stop();
  CHECK(measure_link(node.address, kSecret, stop.get_token(), soon()).error().code == ErrorCode::Unavailable);
}

TEST_CASE("a coordinator gives the files that its run reads, at its own port, and no others", "[file_exchange]") {
  TempDir here, there;
  const std::string content = content_of((std::size_t{1} << 20) + 5);
  REQUIRE(write_file(there / "text.txt", content));
  REQUIRE(write_file(there / "secret", "nobody's"));
  const SharedFile text{there / "text.txt", Bytes(static_cast<std::int64_t>(content.size())), sha256_hex(content)};
  const auto server = start_server(
      {"127.0.0.1:0", Service::Coordinator, {"key", false}, "run"},
      [](Stream& stream) {
        while (auto body = stream.receive()) stream.send(*body + " heard");
      },
      [&](Stream& stream) {
        serve_inputs(stream, [&]() -> Result<std::vector<SharedFile>> { return std::vector{text}; });
      });
  REQUIRE(server);
  const std::string address = "127.0.0.1:" + std::to_string((*server)->port());
  const auto line = connect(address, Service::Coordinator, kSecret, soon());
  REQUIRE(line);
  REQUIRE((*line)->send("hello"));
  CHECK((*line)->receive() == "hello heard");

  const auto files = list_inputs(address, kSecret, soon());
  REQUIRE(files);
  REQUIRE(files->size() == 1);
  CHECK(files->front().path == text.path);
  CHECK(files->front().size == text.size);
  CHECK(files->front().sha256 == text.sha256);
  REQUIRE(get_file({address, there.path(), "text.txt"}, text.size, text.sha256, here / "text", kSecret, soon()));
  CHECK(*read_file(here / "text") == content);
  const auto other = get_file({address, there.path(), "secret"}, Bytes(8), "", here / "secret", kSecret, soon());
  REQUIRE_FALSE(other);
  CHECK(other.error().code == ErrorCode::PermissionDenied);
  CHECK_FALSE(list_inputs(address, {"another", false}, soon()));
  CHECK(put_file(here / "text", {address, there.path(), "text.txt"}, kSecret, soon()).error().code ==
        ErrorCode::PermissionDenied);
  CHECK(*read_file(there / "text.txt") == content);
}
