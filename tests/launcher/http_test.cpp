#include "launcher/rest/http.h"

#include <catch2/catch.hpp>

using namespace coxswain::launcher;

TEST_CASE("a target is a path and a query, decoded", "[http]") {
  const auto target = parse_target("/v1/plans/a%20b?against=x%2Fy&top=1+2&flag");
  REQUIRE(target);
  CHECK(target->path == "/v1/plans/a b");
  CHECK(target->query == std::map<std::string, std::string>{{"against", "x/y"}, {"top", "1 2"}, {"flag", ""}});
  CHECK(parse_target("/")->path == "/");
  CHECK(parse_target("/a%25b")->path == "/a%b");
}

TEST_CASE("no handler sees a path that leads elsewhere", "[http]") {
  for (const char* target :
       {"", "*", "v1/plans", "http://other/v1", "/a/../b", "/a/./b", "/..", "/a/%2e%2e/b", "/a%2Fb", "/a%00b", "/a%",
        "/a%4", "/a%zz", "/a?b=%00", "/a?b=%g1", "/a b", "/a\xc3\xa4", "/a\x7f"})
    CHECK_FALSE(parse_target(target));
  CHECK_FALSE(parse_target(std::string_view("/a\0b", 4)));
  CHECK(parse_target("/a/..b/c."));
}
