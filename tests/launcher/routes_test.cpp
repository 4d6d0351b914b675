#include "launcher/rest/routes.h"

#include <algorithm>

#include "common/json.h"
#include "launcher/rest/embedded.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

TEST_CASE("a call is found by method and path, with what stands in it", "[routes]") {
  const auto timeline = match_route("GET", "/v1/plans/ab12/timeline");
  REQUIRE(std::holds_alternative<Match>(timeline));
  CHECK(std::get<Match>(timeline).route->call == Call::Timeline);
  CHECK(std::get<Match>(timeline).parameters.at("id") == "ab12");
  CHECK(std::get<Match>(match_route("HEAD", "/healthz")).route->call == Call::Health);
}

TEST_CASE("a path that has other methods says which, one that is not there none", "[routes]") {
  CHECK(std::get<NoRoute>(match_route("PATCH", "/v1/plans/ab12")).allow == "GET, HEAD, DELETE");
  CHECK(std::get<NoRoute>(match_route("TRACE", "/v1/plans")).allow == "POST");
  for (const char* path :
       {"/page", "/v1", "/v1/plans/", "/v1/plans/a/b", "/v1/plans/a/timeline/", "/healthz/", "//healthz"})
    CHECK(std::get<NoRoute>(match_route("GET", path)).allow.empty());
}

TEST_CASE("Accept and Content-Type are read as RFC 9110 has them", "[routes]") {
  CHECK(accepts("", "application/json"));
  CHECK(accepts("text/html, application/*;q=0.8", "application/json"));
  CHECK(accepts("*/*", "text/plain"));
  CHECK(accepts("Application/JSON", "application/json"));
  CHECK_FALSE(accepts("text/html", "application/json"));
  CHECK_FALSE(accepts("application/jsonp", "application/json"));
  CHECK(is_of_type("application/json; charset=utf-8", "application/json"));
  CHECK_FALSE(is_of_type("", "application/json"));
  CHECK_FALSE(is_of_type("text/plain", "application/json"));
}

TEST_CASE("the document names every call, its scope, and no other", "[routes]") {
  const auto document = parse_json(openapi_document());
  REQUIRE(document);
  std::size_t documented = 0;
  for (const auto& [path, item] : (*document)["paths"].object())
    documented += item.object().size() - item.object().count("parameters");
  CHECK(documented == routes().size());
  for (const Route& route : routes()) {
    std::string method(route.method);
    std::transform(method.begin(), method.end(), method.begin(), [](unsigned char c) { return std::tolower(c); });
    const Json& operation = (*document)["paths"][route.pattern][method];
    INFO(method << " " << route.pattern);
    REQUIRE(operation.is_object());
    CHECK((operation["security"].is_array() && operation["security"].array().empty()) == (route.scope == Scope::None));
    CHECK(operation["requestBody"].is_object() == !route.consumes.empty());
    if (!route.consumes.empty()) CHECK(operation["requestBody"]["content"][route.consumes].is_object());
    CHECK(operation["responses"]["413"].is_object() == !route.consumes.empty());
    CHECK(operation["responses"]["401"].is_object() == (route.scope != Scope::None));
  }
}
