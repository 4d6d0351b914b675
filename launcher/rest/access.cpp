#include "launcher/rest/access.h"

#include <algorithm>
#include <cctype>

#include "common/bytes_io.h"
#include "common/hash.h"
#include "common/json.h"

namespace coxswain::launcher {
namespace {

constexpr int kTokenBytes = 32;
constexpr std::string_view kBearer = "Bearer ";

Error unreadable(const std::filesystem::path& file, const std::string& got) {
  return {ErrorCode::DataLoss,
          "the file of tokens is not what was written",
          file.string(),
          "{\"tokens\": [{\"scope\": \"plan\" or \"run\", \"sha256\": 64 hex digits}]}",
          got,
          "move it away: the next start makes new tokens"};
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

}  // namespace

std::string_view to_text(Scope scope) {
  switch (scope) {
    case Scope::None: return "none";
    case Scope::Plan: return "plan";
    case Scope::Run: return "run";
  }
  return "none";
}

Result<Tokens> Tokens::open(const std::filesystem::path& file, std::vector<NewToken>& made) {
  Tokens tokens;
  std::error_code code;
  if (!std::filesystem::exists(file, code)) {
    JsonArray list;
    for (const Scope scope : {Scope::Plan, Scope::Run}) {
      made.push_back({scope, "cox-" + std::string(to_text(scope)) + "-" + random_hex(kTokenBytes)});
      tokens.kept_.push_back({scope, sha256_hex(made.back().text)});
      list.push_back(JsonObject{{"scope", to_text(scope)}, {"sha256", tokens.kept_.back().sha256}});
    }
    COX_TRY_VOID(write_file(file, coxswain::to_text(Json(JsonObject{{"tokens", std::move(list)}}), 2) + "\n"));
    return tokens;
  }
  using std::filesystem::perms;
  if ((std::filesystem::status(file, code).permissions() & (perms::group_all | perms::others_all)) != perms::none)
    return Error{ErrorCode::FailedPrecondition, "others may read the file of tokens", file.string(), "mode 0600", "",
                 "chmod 600 " + file.string()};
  COX_TRY(const std::string text, read_file(file));
  const auto json = parse_json(text);
  if (!json || !(*json)["tokens"].is_array()) return unreadable(file, "no list `tokens`");
  for (const Json& one : (*json)["tokens"].array()) {
    const bool whole = one["scope"].is_string() && one["sha256"].is_string() && one["sha256"].string().size() == 64;
    const Scope scope = whole && one["scope"] == Json("plan")  ? Scope::Plan
                        : whole && one["scope"] == Json("run") ? Scope::Run
                                                               : Scope::None;
    if (scope == Scope::None) return unreadable(file, coxswain::to_text(one));
    tokens.kept_.push_back({scope, one["sha256"].string()});
  }
  return tokens;
}

Scope Tokens::scope_of(const std::string& authorization) const {
  if (!authorization.starts_with(kBearer)) return Scope::None;
  const std::string sha256 = sha256_hex(std::string_view(authorization).substr(kBearer.size()));
  Scope scope = Scope::None;
  for (const Kept& one : kept_) {
    if (equal_constant_time(one.sha256, sha256)) scope = std::max(scope, one.scope);
  }
  return scope;
}

std::optional<std::string> foreign_host(const HttpRequest& request, const std::vector<std::string>& hosts, bool tls) {
  const std::string host = lower(request.header("host"));
  if (std::find(hosts.begin(), hosts.end(), host) == hosts.end())
    return "the Host header names no address of this server: `" + host + "`";
  const std::string origin = lower(request.header("origin"));
  if (origin.empty() || origin == (tls ? "https://" : "http://") + host) return std::nullopt;
  return "pages of another origin may not ask: `" + origin + "`";
}

}  // namespace coxswain::launcher
