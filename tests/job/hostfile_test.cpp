// Hostfiles: order, slots, every bad line.
#include "launcher/cli/hostfile.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

TEST_CASE("a hostfile gives hosts in order with their slots") {
  const auto hosts = parse_hostfile("# nodes\nalpha slots=4\n\nbeta   # no slots\ngamma slots=16\n", "hosts");
  REQUIRE(hosts.has_value());
  CHECK(*hosts == std::vector<Host>{{"alpha", 4}, {"beta", 0}, {"gamma", 16}});
}

TEST_CASE("every bad line of a hostfile is named") {
  const auto hosts = parse_hostfile("alpha slots=x\nalpha\nbeta gpus=3\n", "hosts");
  REQUIRE_FALSE(hosts.has_value());
  REQUIRE(hosts.error().details.size() == 3);
  CHECK(hosts.error().details[0].path == "hosts:1");
  CHECK(hosts.error().details[1].message == "host named twice");
  CHECK(hosts.error().details[2].path == "hosts:3");
}

TEST_CASE("a hostfile without hosts is refused") { CHECK_FALSE(parse_hostfile("# nothing\n", "hosts").has_value()); }
