#include "launcher/rest/service.h"

#include "common/hash.h"
#include "launcher/control/event_queue.h"
#include "launcher/control/liveness.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

const char* const kBody =
    R"({"job": {"name": "tiny", "model": {"config": {"model_type": "gpt2", "n_layer": 2, "n_head": 2,
  "n_embd": 32, "vocab_size": 256, "n_positions": 16}}, "data": {"text": "text.txt", "sequence_length": 16},
  "batch": {"global": 8}, "train": {"steps": 1}}, "cluster": "1x2xt4"})";

struct Desk {
  TempDir folder;
  std::vector<Tokens::NewToken> tokens;
  std::unique_ptr<Service> service;
  EventQueue<HttpResponse> answers;

  Desk() {
    ServiceOptions options;
    options.files = {{}, folder.path()};
    options.hosts = {"here:1"};
    options.searches.inline_budget = Seconds(60);
    auto opened = Tokens::open(folder / "tokens.json", tokens);
    REQUIRE(opened);
    std::filesystem::create_directory(folder / "jobs");
    JobRunner::Options running;
    running.folder = folder / "jobs";
    running.program = "/bin/true";
    auto runner = std::make_unique<JobRunner>(running, steady_clock(), std::vector<JobRecord>(), make_process_spawner);
    auto jobs = std::make_unique<Jobs>(options.files, steady_clock(), std::move(runner));
    service = std::make_unique<Service>(std::move(options), std::move(*opened), steady_clock(), std::move(jobs));
  }

  [[nodiscard]] HttpRequest request(const std::string& method, const std::string& target,
                                    const std::string& body = "") const {
    HttpRequest request;
    request.method = method;
    const auto parsed = parse_target(target);
    REQUIRE(parsed);
    request.path = parsed->path;
    request.query = parsed->query;
    request.headers = {
        {"host", "here:1"}, {"authorization", "Bearer " + tokens[0].text}, {"content-type", "application/json"}};
    request.body = body;
    return request;
  }
  HttpResponse ask(const HttpRequest& request) {
    auto admitted = service->admit(request);
    if (auto* refused = std::get_if<HttpResponse>(&admitted)) return std::move(*refused);
    CHECK(request.body.size() <= std::get<std::size_t>(admitted));
    service->handle(request, [this](HttpResponse response) { answers.push(std::move(response)); });
    auto answer = answers.pop(after(steady_clock().now(), 60));
    REQUIRE(answer);
    return std::move(*answer);
  }
  HttpResponse ask(const std::string& method, const std::string& target, const std::string& body = "") {
    return ask(request(method, target, body));
  }
};

}  // namespace

TEST_CASE("who may not ask is told so before the body is read", "[service]") {
  Desk desk;
  auto request = desk.request("POST", "/v1/plans", kBody);
  const auto status = [&desk](const HttpRequest& changed) {
    const auto admitted = desk.service->admit(changed);
    const auto* refused = std::get_if<HttpResponse>(&admitted);
    return refused != nullptr ? refused->status : 0;
  };
  CHECK(status(request) == 0);
  auto changed = request;
  changed.headers.erase("authorization");
  CHECK(status(changed) == 401);
  changed = request;
  changed.headers["authorization"] = "Bearer cox-plan-0";
  CHECK(status(changed) == 401);
  changed = request;
  changed.headers["host"] = "elsewhere:1";
  CHECK(status(changed) == 403);
  changed = request;
  changed.headers["origin"] = "http://elsewhere";
  CHECK(status(changed) == 403);
  changed = request;
  changed.headers["content-type"] = "text/yaml";
  CHECK(status(changed) == 415);
  changed = request;
  changed.headers["accept"] = "text/html";
  CHECK(status(changed) == 406);
  changed = desk.request("TRACE", "/v1/plans");
  CHECK(status(changed) == 405);
  CHECK(status(desk.request("GET", "/v1/nothing")) == 404);
  // What there is is told to those alone who may ask.
  changed = desk.request("GET", "/v1/nothing");
  changed.headers.erase("authorization");
  CHECK(status(changed) == 401);
  changed = desk.request("GET", "/healthz");
  changed.headers.erase("authorization");
  CHECK(status(changed) == 0);
}

TEST_CASE("a plan is found, looked at, explained and forgotten", "[service]") {
  Desk desk;
  const HttpResponse made = desk.ask("POST", "/v1/plans", kBody);
  REQUIRE(made.status == 200);
  const auto json = parse_json(made.body);
  REQUIRE(json);
  CHECK((*json)["estimate"]["step_seconds"].number() > 0);
  const std::string path = made.headers.at("Location");
  CHECK(desk.ask("GET", path).body == made.body);
  CHECK(desk.ask("POST", "/v1/plans", kBody).body == made.body);
  auto known = desk.request("GET", path);
  known.headers["if-none-match"] = made.headers.at("ETag");
  CHECK(desk.ask(known).status == 304);

  const HttpResponse timeline = desk.ask("GET", path + "/timeline");
  REQUIRE(timeline.status == 200);
  const auto actions = parse_json(timeline.body);
  CHECK(timeline.body == to_text(*actions) + "\n");  // canonical, though not written out of a tree
  CHECK((*actions)["step_seconds"] == (*json)["estimate"]["step_seconds"]);
  double last = 0;
  for (const Json& action : (*actions)["actions"].array()) last = std::max(last, action["end_seconds"].number());
  CHECK(last <= (*actions)["step_seconds"].number());
  CHECK((*actions)["roles"].array().size() == (*json)["plan"]["roles"].array().size());

  const HttpResponse other = desk.ask("POST", "/v1/plans", [] {
    Json changed = *parse_json(kBody);
    changed["options"] = JsonObject{{"constrain", JsonArray{"data=1", "pipeline=2"}}};
    return to_text(changed);
  }());
  REQUIRE(other.status == 200);
  const std::string other_id = other.headers.at("Location").substr(std::string("/v1/plans/").size());
  const HttpResponse explained = desk.ask("GET", path + "/explain?against=" + other_id);
  REQUIRE(explained.status == 200);
  CHECK((*parse_json(explained.body))["against"].is_object());
  CHECK(desk.ask("GET", path + "/explain?against=none").status == 404);

  CHECK(desk.ask("DELETE", path).status == 204);
  CHECK(desk.ask("GET", path).status == 404);
  CHECK(desk.ask("GET", path + "/timeline").status == 404);
}

TEST_CASE("what cannot be planned says where and why", "[service]") {
  Desk desk;
  CHECK(desk.ask("POST", "/v1/plans", "{\"job\": ").status == 400);
  CHECK(desk.ask("POST", "/v1/plans", std::string(300, '[')).status == 400);  // nested deeper than is read
  const HttpResponse form = desk.ask("POST", "/v1/plans", "{}");
  CHECK(form.status == 422);
  CHECK((*parse_json(form.body))["errors"].array().size() == 2);
  Json large = *parse_json(kBody);
  large["job"].object()["model"].object()["config"].object()["n_embd"] = 65536;
  const HttpResponse unfit = desk.ask("POST", "/v1/plans", to_text(large));
  CHECK(unfit.status == 422);
  CHECK((*parse_json(unfit.body))["detail"].string().find("memory") != std::string::npos);
}

TEST_CASE("a model that is sent must be what its path says, and a model", "[service]") {
  Desk desk;
  auto request = desk.request("PUT", "/v1/models/" + sha256_hex("other"), "no archive");
  request.headers["content-type"] = "application/octet-stream";
  CHECK(desk.ask(request).status == 422);
  request.path = "/v1/models/" + sha256_hex("no archive");
  CHECK(desk.ask(request).status == 422);
  CHECK(desk.ask("GET", request.path).status == 404);
  CHECK(desk.ask("GET", "/v1/models/..%5Ctokens").status == 404);
  std::size_t left = 0;
  for (const auto& entry : std::filesystem::directory_iterator(desk.folder.path()))
    left += entry.is_regular_file() ? 1 : 0;
  CHECK(left == 1);  // the tokens
}

TEST_CASE("health, readiness, catalogue and figures", "[service]") {
  Desk desk;
  CHECK(desk.ask("GET", "/healthz").status == 200);
  CHECK(desk.ask("GET", "/readyz").status == 200);
  CHECK((*parse_json(desk.ask("GET", "/v1/catalogue").body))["devices"].array().size() > 10);
  const HttpResponse cluster = desk.ask("GET", "/v1/catalogue?cluster=16x8xh100-sxm,ib400");
  REQUIRE(cluster.status == 200);
  CHECK(cluster::num_devices(*cluster::resource_graph_from_json(*parse_json(cluster.body))) == 128);
  CHECK(desk.ask("GET", "/v1/catalogue?cluster=3xnothing").status == 422);
  const std::string figures = desk.ask("GET", "/metrics").body;
  CHECK(figures.find("coxswain_http_requests_total{path=\"/healthz\",status=\"200\"} 1") != std::string::npos);
  desk.service->drain();
  CHECK(desk.ask("GET", "/readyz").status == 503);
  CHECK(desk.ask("GET", "/healthz").status == 200);
}
