#include "common/env.h"

#include <catch2/catch.hpp>

namespace coxswain {
namespace {

TEST_CASE("an unset variable is told from an empty one") {
  CHECK_FALSE(env("COX_TEST_NOT_SET").has_value());
  set_env("COX_TEST_SET", "");
  CHECK(env("COX_TEST_SET") == "");
  set_env("COX_TEST_SET", "a=b");
  CHECK(env("COX_TEST_SET") == "a=b");
}

TEST_CASE("all variables are listed, with everything after the first equals sign") {
  set_env("COX_TEST_LISTED", "a=b");
  CHECK(all_env().at("COX_TEST_LISTED") == "a=b");
  CHECK_FALSE(all_env().contains("COX_TEST_NOT_SET"));
}

}  // namespace
}  // namespace coxswain
