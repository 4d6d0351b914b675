#include "launcher/control/input_files.h"

#include "common/bytes_io.h"
#include "common/hash.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

namespace fs = std::filesystem;

const proto::Secret kSecret{"key", false};

/// That gives what `files` lists.
std::unique_ptr<proto::Server> serve(const std::function<Result<std::vector<proto::SharedFile>>()>& files) {
  auto server = proto::start_server(
      {"127.0.0.1:0", proto::Service::Coordinator, kSecret, "run"}, [](proto::Stream&) {},
      [files](proto::Stream& stream) { proto::serve_inputs(stream, files); });
  REQUIRE(server);
  return std::move(*server);
}

/// Files beneath.
std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) names.push_back(entry.path().filename());
  return names;
}

std::string address_of(const proto::Server& server) { return "127.0.0.1:" + std::to_string(server.port()); }

}  // namespace

TEST_CASE("a run reads its model, and where it trains its data", "[input_files]") {
  Job job;
  job.model.pt2 = "gpt.pt2";
  job.data.text = "/data/text.txt";
  CHECK(input_paths(job, false) == std::vector<fs::path>{fs::absolute("gpt.pt2")});
  CHECK(input_paths(job, true) == std::vector<fs::path>{fs::absolute("gpt.pt2"), "/data/text.txt"});
  job.model.pt2.clear();
  job.data.text.clear();
  job.data.tensors = "/data/tensors";
  CHECK(input_paths(job, true) == std::vector<fs::path>{"/data/tensors"});
}

TEST_CASE("a node uses its own copy where that is the same, and fetches what is not", "[input_files]") {
  TempDir disk, folder;
  REQUIRE(write_file(disk / "same", "equal on both"));
  REQUIRE(write_file(disk / "other.txt", "as it is at the coordinator"));
  InputFiles shared({disk / "same", disk / "other.txt"});
  const auto files = shared.list();
  REQUIRE(files);
  CHECK(files->back().sha256 == sha256_hex("as it is at the coordinator"));
  CHECK(files->back().size.value == 27);
  auto told = *files;
  const auto server = serve([&]() -> Result<std::vector<proto::SharedFile>> { return told; });
  auto fetched = fetch_inputs(address_of(*server), kSecret, folder.path(), {});
  REQUIRE(fetched);
  CHECK(fetched->empty());

  told.back().path = disk / "away";
  REQUIRE(write_file(disk / "away", "as it was at the coordinator"));  // of another length
  fetched = fetch_inputs(address_of(*server), kSecret, folder.path(), {});
  REQUIRE_FALSE(fetched);
  CHECK(fetched.error().code == ErrorCode::DataLoss);  // and what is there now is not what was said
  CHECK(names_in(folder.path()).empty());
}

TEST_CASE("what is fetched lies in the folder under its own name, and is fetched once", "[input_files]") {
  TempDir disk, folder;
  const fs::path path = disk / "model.pt2";
  const std::string content(3 << 20, 'm');
  // One disk for both: the file is there whenever the coordinator reads it, and not while the node looks for its own.
  int calls = 0;
  const auto server = serve([&]() -> Result<std::vector<proto::SharedFile>> {
    if (++calls == 2) static_cast<void>(write_file(path, content));
    return std::vector{proto::SharedFile{path, Bytes(static_cast<std::int64_t>(content.size())), sha256_hex(content)}};
  });
  const auto fetched = fetch_inputs(address_of(*server), kSecret, folder.path(), {});
  REQUIRE(fetched);
  REQUIRE(fetched->size() == 1);
  const fs::path here = fetched->at(path.string());
  CHECK(here.parent_path().parent_path() == folder.path());
  CHECK(here.filename() == "model.pt2");
  CHECK(*read_file(here) == content);
  REQUIRE(fs::remove(path));
  const auto before = fs::last_write_time(here);
  const auto again = fetch_inputs(address_of(*server), kSecret, folder.path(), {});
  REQUIRE(again);
  CHECK(*again == *fetched);
  CHECK(fs::last_write_time(here) == before);
}

TEST_CASE("files that cannot be read are told to whoever asks, until they can", "[input_files]") {
  TempDir disk, folder;
  InputFiles shared({disk / "text.txt"});
  const auto server = serve([&] { return shared.list(); });
  const auto missing = fetch_inputs(address_of(*server), kSecret, folder.path(), {});
  REQUIRE_FALSE(missing);
  CHECK(missing.error().code == ErrorCode::NotFound);
  REQUIRE(write_file(disk / "text.txt", "there now"));
  const auto fetched = fetch_inputs(address_of(*server), kSecret, folder.path(), {});
  REQUIRE(fetched);
  CHECK(fetched->empty());
}
