#include "launcher/rest/plan_searches.h"

#include <algorithm>
#include <atomic>
#include <semaphore>

#include "launcher/control/event_queue.h"
#include "launcher/control/liveness.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

constexpr double kLong = 60;

Json request_of(int number) { return JsonObject{{"number", number}}; }

FoundPlan plan_of(const Json& request) {
  const std::string number = std::to_string(request["number"].integer());
  return {"{\"plan\": " + number + "}\n", "hash-" + number};
}

/// Searches that end when they are let go.
struct Desk {
  std::counting_semaphore<64> go{0};
  std::atomic<int> searched = 0;
  EventQueue<HttpResponse> answers;
  PlanSearches searches;

  explicit Desk(PlanSearches::Limits limits)
      : searches(steady_clock(), limits, [this](const Json& request, const std::stop_token& stop) -> Result<FoundPlan> {
          ++searched;
          const std::stop_callback stopped(stop, [this] { go.release(); });
          go.acquire();
          if (request["number"].integer() < 0)
            return Error{ErrorCode::ResourceExhausted, "no plan fits", "", "", "", "more devices"};
          return plan_of(request);
        }) {}
  ~Desk() { go.release(16); }

  void ask(int number) {
    searches.ask(request_of(number), [this](HttpResponse response) { answers.push(std::move(response)); });
  }
  HttpResponse next() {
    auto answer = answers.pop(after(steady_clock().now(), kLong));
    REQUIRE(answer);
    return std::move(*answer);
  }
};

PlanSearches::Limits patient() {
  PlanSearches::Limits limits;
  limits.inline_budget = Seconds(kLong);
  return limits;
}

std::string id_of(int number) { return plan_id(to_text(request_of(number))); }

}  // namespace

TEST_CASE("equal requests are one search, and its answer is kept", "[plan_searches]") {
  Desk desk(patient());
  desk.ask(1);
  desk.ask(1);
  desk.go.release();
  for (int i = 0; i < 2; ++i) {
    const HttpResponse response = desk.next();
    CHECK(response.status == 200);
    CHECK(response.body == "{\"plan\": 1}\n");
    CHECK(response.headers.at("ETag") == "\"hash-1\"");
    CHECK(response.headers.at("Location") == "/v1/plans/" + id_of(1));
  }
  desk.ask(1);
  CHECK(desk.next().status == 200);
  CHECK(desk.searched == 1);
  CHECK(desk.searches.counts().answered_from_kept == 1);
  CHECK(desk.searches.find(id_of(1))->plan == Json(1));
  CHECK(desk.searches.look(id_of(1), "").status == 200);
  const HttpResponse same = desk.searches.look(id_of(1), "\"hash-1\"");
  CHECK(same.status == 304);
  CHECK(same.body.empty());
  CHECK(desk.searches.look(id_of(2), "").status == 404);
}

TEST_CASE("who has waited for the inline budget is told where to look", "[plan_searches]") {
  PlanSearches::Limits limits;
  limits.inline_budget = Seconds(0);
  Desk desk(limits);
  desk.ask(1);
  const HttpResponse response = desk.next();
  CHECK(response.status == 202);
  CHECK(response.headers.at("Location") == "/v1/plans/" + id_of(1));
  CHECK(response.headers.at("Retry-After") == "1");
  CHECK((*parse_json(response.body))["state"] == Json("searching"));
  CHECK(desk.searches.look(id_of(1), "").status == 202);
  CHECK_FALSE(desk.searches.find(id_of(1)));
}

TEST_CASE("what does not fit is a problem, to be looked at, and searched again when it is asked for again",
          "[plan_searches]") {
  Desk desk(patient());
  desk.ask(-1);
  desk.go.release();
  CHECK(desk.next().status == 422);
  CHECK(desk.searches.look(id_of(-1), "").status == 422);
  desk.ask(-1);
  desk.go.release();
  CHECK(desk.next().status == 422);
  CHECK(desk.searched == 2);
  CHECK(desk.searches.counts().kept == 1);
  CHECK_FALSE(desk.searches.find(id_of(-1)));
}

TEST_CASE("a search that is stopped tells whoever waits, and is forgotten", "[plan_searches]") {
  Desk desk(patient());
  desk.ask(1);
  CHECK(desk.searches.cancel(id_of(1)).status == 204);
  CHECK(desk.next().status == 409);
  CHECK(desk.searches.look(id_of(1), "").status == 404);
  CHECK(desk.searches.cancel(id_of(1)).status == 404);
  // Asked for again it is searched again; the search that was stopped answers nobody.
  desk.ask(1);
  desk.go.release();
  CHECK(desk.next().status == 200);
}

TEST_CASE("one more than may wait is refused, and asked for again later", "[plan_searches]") {
  PlanSearches::Limits limits = patient();
  limits.most_waiting = 2;
  Desk desk(limits);
  for (int number = 1; number <= 8; ++number)
    desk.ask(number);  // one searched, two wait, the thread may not have begun
  int refused = 0;
  for (int i = 0; i < 5; ++i) {
    const HttpResponse response = desk.next();
    CHECK(response.status == 429);
    CHECK(response.headers.at("Retry-After") == "1");
    ++refused;
  }
  desk.go.release(3);
  std::vector<int> rest;
  for (int i = 0; i < 3; ++i) rest.push_back(desk.next().status);
  CHECK(std::count(rest.begin(), rest.end(), 200) >= 2);
  CHECK(desk.searches.counts().refused >= refused);
}

TEST_CASE("answers are kept up to a size, and the one that was asked for longest ago goes first", "[plan_searches]") {
  PlanSearches::Limits limits = patient();
  limits.most_kept = Bytes(2500);  // two of them
  Desk desk(limits);
  desk.go.release(3);
  for (int number : {1, 2}) {
    desk.ask(number);
    CHECK(desk.next().status == 200);
  }
  CHECK(desk.searches.look(id_of(1), "").status == 200);  // now 2 is the older one
  desk.ask(3);
  CHECK(desk.next().status == 200);
  CHECK(desk.searches.look(id_of(2), "").status == 404);
  CHECK(desk.searches.look(id_of(1), "").status == 200);
  CHECK(desk.searches.look(id_of(3), "").status == 200);
  CHECK(desk.searches.counts().kept == 2);
}

TEST_CASE("who waits when the service ends is told so", "[plan_searches]") {
  EventQueue<HttpResponse> answers;
  {
    PlanSearches searches(steady_clock(), patient(), [](const Json&, const std::stop_token& stop) -> Result<FoundPlan> {
      std::binary_semaphore stopped(0);
      const std::stop_callback tell(stop, [&stopped] { stopped.release(); });
      stopped.acquire();
      return Error{ErrorCode::Cancelled, "stopped", "", "", "", ""};
    });
    searches.ask(request_of(1), [&answers](HttpResponse response) { answers.push(std::move(response)); });
  }
  const auto answer = answers.pop(after(steady_clock().now(), kLong));
  REQUIRE(answer);
  CHECK(answer->status == 503);
}
