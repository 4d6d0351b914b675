#include "launcher/rest/plan_request.h"

#include <fstream>

#include "common/hash.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

Json body(const std::string& changes = "{}") {
  Json request = *parse_json(R"({
    "job": {"name": "tiny", "model": {"config": {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 32,
            "vocab_size": 256, "n_positions": 16}}, "data": {"text": "text.txt", "sequence_length": 16},
            "batch": {"global": 8}, "train": {"steps": 1}},
    "cluster": "1x2xt4"})");
  const Json changed = *parse_json(changes);
  for (const auto& [key, value] : changed.object()) request[key] = value;
  return request;
}

std::string path_of(const Result<PlanRequest>& result) {
  REQUIRE_FALSE(result);
  return result.error().path;
}

}  // namespace

TEST_CASE("a request is job, cluster and options, as the planner takes them", "[plan_request]") {
  const auto request = read_plan_request(
      body(R"({"options": {"constrain": ["data=2", "micro=4"], "top": 3, "objective": "cost", "max_candidates": 9000000,
               "max_step_seconds": 2.5, "prices": ["t4=0.5"], "runnable": true}})"),
      {});
  REQUIRE(request);
  CHECK(request->inputs->job.global_batch == 8);
  CHECK(request->inputs->job.constraints.data == std::vector<int>{2});
  CHECK(request->inputs->job.constraints.micro == std::vector<std::int64_t>{4});
  CHECK(cluster::num_devices(request->inputs->resources) == 2);
  CHECK(request->inputs->resources.device_classes.front().price.value.value == 0.5);
  CHECK(request->query.top_k == 3);
  CHECK(request->query.objective == planner::Objective::Cost);
  CHECK(request->query.max_candidates == kMostCandidates);  // clamped, not refused
  CHECK(request->query.max_step == Seconds(2.5));
  CHECK(request->query.runnable);
  CHECK_FALSE(request->query.running);
}

TEST_CASE("a cluster may be sent as its file", "[plan_request]") {
  const auto named = read_plan_request(body(), {});
  REQUIRE(named);
  Json sent = body();
  sent["cluster"] = cluster::to_json(named->inputs->resources);
  const auto described = read_plan_request(sent, {});
  REQUIRE(described);
  CHECK(cluster::cluster_hash(described->inputs->resources) == cluster::cluster_hash(named->inputs->resources));
}

TEST_CASE("every problem of the form is told at once, with its place", "[plan_request]") {
  const auto request = read_plan_request(*parse_json(R"({"cluster": 3, "job": [], "more": 1})"), {});
  REQUIRE_FALSE(request);
  CHECK(request.error().code == ErrorCode::InvalidArgument);
  CHECK(request.error().details.size() == 3);
  CHECK(path_of(read_plan_request(body(R"({"options": {"top": 101}})"), {})) == "options.top");
  CHECK(path_of(read_plan_request(body(R"({"options": {"objective": "luck"}})"), {})) == "options.objective");
  CHECK(path_of(read_plan_request(body(R"({"options": {"max_step_seconds": 0}})"), {})) == "options.max_step_seconds");
  CHECK(path_of(read_plan_request(body(R"({"options": {"constrain": [1]}})"), {})) == "options.constrain[0]");
  CHECK(path_of(read_plan_request(body(R"({"options": {"constrain": ["wings=2"]}})"), {})) == "options.constrain");
  CHECK(path_of(read_plan_request(body(R"({"options": {"prices": ["a100=1"]}})"), {})) == "options.prices");
  CHECK(path_of(read_plan_request(body(R"({"cluster": "2xwarp-drive"})"), {})) == "cluster");
  CHECK(path_of(read_plan_request(body(R"({"running_plan": {}})"), {})) == "options.horizon_seconds");
  CHECK(read_plan_request(body(R"({"job": {"name": "x"}})"), {}).error().details.size() == 4);
  Json odd = body();
  odd["job"].object()["batch"].object()["global"] = -1;
  CHECK(path_of(read_plan_request(odd, {})) == "job.batch.global");
}

TEST_CASE("a file is read beneath the root alone, whatever its path looks like", "[plan_request]") {
  TempDir folder;
  std::filesystem::create_directories(folder / "root");
  std::ofstream(folder / "outside.pt2") << "not read";
  std::ofstream(folder / "root" / "inside.pt2") << "no archive";
  std::filesystem::create_symlink(folder / "outside.pt2", folder / "root" / "link.pt2");
  const ServedFiles files{folder / "root", folder / "models"};
  const auto with_model = [](const std::string& path) {
    Json request = body();
    request["job"].object()["model"] = JsonObject{{"pt2", path}};
    return request;
  };
  for (const std::string& path :
       {(folder / "outside.pt2").string(), std::string("../outside.pt2"), std::string("a/../../outside.pt2"),
        std::string("link.pt2"), std::string("/etc/passwd"), std::string("~/x.pt2"), std::string("$(id).pt2")}) {
    const auto request = read_plan_request(with_model(path), files);
    REQUIRE_FALSE(request);
    INFO(path);
    // The last two are names like any other: there is no such file.
    CHECK((request.error().code == ErrorCode::PermissionDenied) == (path.front() != '~' && path.front() != '$'));
    CHECK(request.error().path.starts_with("job.model"));
  }
  CHECK(read_plan_request(with_model("inside.pt2"), files).error().code !=
        ErrorCode::PermissionDenied);  // read: no .pt2
  CHECK(read_plan_request(with_model("inside.pt2"), {}).error().code == ErrorCode::PermissionDenied);
  // A flag's file would be looked for where the service was started.
  for (const char* text : {"schedule=csv:../outside.pt2", "schedule=csv:inside.pt2", "schedule=cs v:/etc/passwd",
                           " schedule = csv:/etc/passwd", "data=1,schedule=csv:/etc/passwd"}) {
    const Json schedule = body(R"({"options": {"constrain": [")" + std::string(text) + "\"]}}");
    const auto request = read_plan_request(schedule, files);
    REQUIRE_FALSE(request);
    INFO(text << ": " << to_text(request.error()));
    CHECK(request.error().path == "options.constrain");
    CHECK(to_text(request.error()).find("root:") == std::string::npos);  // as /etc/passwd begins
    CHECK(request.error().code != ErrorCode::Internal);
  }
}

TEST_CASE("what would take all memory is refused before it does", "[plan_request]") {
  Json layers = body();
  layers["job"].object()["model"].object()["config"].object()["n_layer"] = std::int64_t{1} << 40;
  CHECK(path_of(read_plan_request(layers, {})) == "job.model.config.n_layer");
  Json samples = body();
  samples["job"].object()["batch"].object()["global"] = std::int64_t{1} << 40;
  CHECK(path_of(read_plan_request(samples, {})) == "job.batch.global");
  const auto named = read_plan_request(body(), {});
  REQUIRE(named);
  cluster::ResourceGraph many = named->inputs->resources;
  many.nodes.front().count = std::int64_t{1} << 40;
  Json devices = body();
  devices["cluster"] = cluster::to_json(many);
  CHECK(path_of(read_plan_request(devices, {})).starts_with("cluster"));
}

TEST_CASE("a model that was sent is named by its hash", "[plan_request]") {
  TempDir folder;
  const ServedFiles files{{}, folder.path()};
  const std::string hash = sha256_hex("no archive");
  std::ofstream(folder / (hash + ".pt2")) << "no archive";
  const auto with_model = [](const std::string& name) {
    Json request = body();
    request["job"].object()["model"] = JsonObject{{"pt2", "sha256:" + name}};
    return request;
  };
  // It was looked for and read: an archive it is not.
  CHECK(path_of(read_plan_request(with_model(hash), files)) == "job.model");
  for (const std::string& name : {sha256_hex("another"), std::string("../") + hash, hash.substr(1), std::string()}) {
    const auto request = read_plan_request(with_model(name), files);
    REQUIRE_FALSE(request);
    CHECK(request.error().code == ErrorCode::NotFound);
    CHECK(request.error().path == "job.model.pt2");
  }
}

TEST_CASE("requests that describe one model share it", "[plan_request]") {
  const ServedFiles files;
  const auto first = read_plan_request(body(), files), again = read_plan_request(body(), files);
  Json other_batch = body();
  other_batch["job"].object()["batch"].object()["global"] = 16;
  Json longer = body();
  longer["job"].object()["data"].object()["sequence_length"] = 8;
  const auto batch = read_plan_request(other_batch, files), sequence = read_plan_request(longer, files);
  REQUIRE((first && again && batch && sequence));
  CHECK(again->inputs->model == first->inputs->model);
  CHECK(batch->inputs->model == first->inputs->model);
  CHECK(sequence->inputs->model != first->inputs->model);
  CHECK(&first->inputs->cost->facts() == &again->inputs->cost->facts());
}

TEST_CASE("a model beneath the root is read anew: its file may have changed", "[plan_request]") {
  TempDir folder;
  const ServedFiles files{folder.path(), folder / "models"};
  std::filesystem::create_directory(folder / "tiny");
  Json request = body();
  const auto layers = [&](int count) -> std::size_t {
    Json config = body()["job"]["model"]["config"];
    config["n_layer"] = count;
    std::ofstream(folder / "tiny" / "config.json") << to_text(config);
    request["job"].object()["model"] = JsonObject{{"huggingface", "tiny"}};
    const auto read = read_plan_request(request, files);
    INFO((read ? std::string() : to_text(read.error())));
    REQUIRE(read);
    return read->inputs->model->graph.blocks.size();
  };
  CHECK(layers(3) == layers(2) + 1);
}
