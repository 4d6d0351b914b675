// Profile: strict JSON, order, round trip.
#include "cluster/profile.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cluster;

namespace {

Profile make_profile() {
  Profile profile;
  profile.model_hash = "abc";
  profile.precision = "float16";
  profile.blocks = {{"s1", "cpu", 1, Seconds(0.1), Seconds(0.2), Bytes(10), Bytes(5)},
                    {"s1", "cpu", 4, Seconds(0.3), Seconds(0.6), Bytes(40), Bytes(20), 0.25},
                    {"s2", "cpu", 1, Seconds(1), Seconds(2), Bytes(3), Bytes(4)}};
  profile.devices = {{"cpu", Seconds(1e-9), Seconds(2e-9), Seconds(1e-3), Seconds(1e-6), Bytes(1 << 20)}};
  return profile;
}

}  // namespace

TEST_CASE("a profile comes back from its JSON", "[profile_test]") {
  const Json json = to_json(make_profile());
  const auto back = profile_from_json(json);
  REQUIRE(back.has_value());
  CHECK(to_text(to_json(*back)) == to_text(json));
  CHECK(back->blocks[1].backward.value == 0.6);
  CHECK(back->blocks[1].expert_load_cv == 0.25);
  CHECK(back->blocks[0].expert_load_cv < 0);  // not known
  CHECK(back->devices[0].base_memory.value == 1 << 20);
  CHECK(back->precision == "float16");
}

TEST_CASE("a profile of before precisions were written is read", "[profile_test]") {
  Json json = to_json(make_profile());
  json.object().erase("precision");
  const auto back = profile_from_json(json);
  REQUIRE(back.has_value());
  CHECK(back->precision.empty());
  CHECK(to_text(to_json(*back)) == to_text(json));
}

TEST_CASE("a profile out of order, with unknown or negative members is refused", "[profile_test]") {
  Json json = to_json(make_profile());
  std::swap(json["blocks"].array()[0], json["blocks"].array()[1]);
  json["blocks"].array()[2]["forward_seconds"] = -1.0;
  json["devices"].array()[0]["colour"] = 1;
  const auto result = profile_from_json(json);
  REQUIRE(!result.has_value());
  REQUIRE(result.error().details.size() == 3);
  CHECK(result.error().details[0].path == "blocks[2].forward_seconds");
  CHECK(result.error().details[1].path == "devices[0].colour");
  CHECK(result.error().details[2].path == "blocks[1]");
}
