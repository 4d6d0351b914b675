#include "launcher/rest/access.h"

#include "common/bytes_io.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

using namespace coxswain;
using namespace coxswain::launcher;

TEST_CASE("tokens are made once, told once, and kept as hashes that others cannot read", "[access]") {
  TempDir folder;
  const auto file = folder / "tokens.json";
  std::vector<Tokens::NewToken> made;
  const auto first = Tokens::open(file, made);
  REQUIRE(first);
  REQUIRE(made.size() == 2);
  CHECK(made[0].scope == Scope::Plan);
  CHECK(made[1].scope == Scope::Run);
  CHECK(made[0].text != made[1].text);
  CHECK(std::filesystem::status(file).permissions() ==
        (std::filesystem::perms::owner_read | std::filesystem::perms::owner_write));
  const std::string text = *read_file(file);
  for (const auto& token : made) CHECK(text.find(token.text) == std::string::npos);

  std::vector<Tokens::NewToken> again;
  const auto second = Tokens::open(file, again);
  REQUIRE(second);
  CHECK(again.empty());
  CHECK(second->scope_of("Bearer " + made[0].text) == Scope::Plan);
  CHECK(second->scope_of("Bearer " + made[1].text) == Scope::Run);
  for (const std::string& other : {std::string(), std::string("Bearer "), made[0].text, "Basic " + made[0].text,
                                   "Bearer " + made[0].text + "0", "Bearer  " + made[0].text})
    CHECK(second->scope_of(other) == Scope::None);
}

TEST_CASE("a file of tokens that others may read, or that is not ours, is refused", "[access]") {
  TempDir folder;
  const auto file = folder / "tokens.json";
  std::vector<Tokens::NewToken> made;
  REQUIRE(Tokens::open(file, made));
  std::filesystem::permissions(file, std::filesystem::perms::others_read, std::filesystem::perm_options::add);
  CHECK(Tokens::open(file, made).error().code == ErrorCode::FailedPrecondition);
  for (const char* text : {"", "{}", "{\"tokens\": [{\"scope\": \"root\", \"sha256\": \"00\"}]}",
                           "{\"tokens\": [{\"scope\": \"plan\", \"sha256\": \"00\"}]}", "{\"tokens\": [3]}"}) {
    REQUIRE(write_file(file, text));
    CHECK(Tokens::open(file, made).error().code == ErrorCode::DataLoss);
  }
}

TEST_CASE("a page of another origin, or whose name was turned to this address, may not ask", "[access]") {
  const std::vector<std::string> hosts{"10.1.2.3:8080", "host.example:8080"};
  const auto with = [](const std::string& host, const std::string& origin) {
    HttpRequest request;
    request.headers["host"] = host;
    if (!origin.empty()) request.headers["origin"] = origin;
    return request;
  };
  CHECK_FALSE(foreign_host(with("10.1.2.3:8080", ""), hosts, false));
  CHECK_FALSE(foreign_host(with("HOST.EXAMPLE:8080", "http://host.example:8080"), hosts, false));
  CHECK_FALSE(foreign_host(with("host.example:8080", "https://host.example:8080"), hosts, true));
  CHECK(foreign_host(with("evil.example:8080", ""), hosts, false));
  CHECK(foreign_host(with("", ""), hosts, false));
  CHECK(foreign_host(with("10.1.2.3:8081", ""), hosts, false));
  CHECK(foreign_host(with("host.example:8080", "http://evil.example"), hosts, false));
  CHECK(foreign_host(with("host.example:8080", "null"), hosts, false));
  CHECK(foreign_host(with("host.example:8080", "http://10.1.2.3:8080"), hosts, false));
  CHECK(foreign_host(with("host.example:8080", "http://host.example:8080"), hosts, true));
}
