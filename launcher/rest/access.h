#pragma once
// Who may ask: bearer tokens of two scopes, and pages of other origins that may not. Tokens are made at the first start
// and told once; the file keeps their SHA-256 alone, mode 0600. Called by the service. Threads: pure after open.
// Source: INTERFACE section 5.
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"
#include "launcher/rest/http.h"

namespace coxswain::launcher {

/// Ordered: who may run may plan.
enum class Scope { None, Plan, Run };
[[nodiscard]] std::string_view to_text(Scope scope);

class Tokens {
 public:
  struct NewToken {
    Scope scope;
    std::string text;
  };
  /// Reads `file`, or makes it with one token for each scope, which `made` then holds. Errors: FailedPrecondition
  /// (disk, a file that others may read), DataLoss (not what was written).
  [[nodiscard]] static Result<Tokens> open(const std::filesystem::path& file, std::vector<NewToken>& made);

  /// Of "Bearer TOKEN"; None: no token of ours. Takes the same time for any text of one length.
  [[nodiscard]] Scope scope_of(const std::string& authorization) const;

 private:
  struct Kept {
    Scope scope = Scope::None;
    std::string sha256;
  };
  std::vector<Kept> kept_;
};

/// May a request with these headers be meant for this server? Host must name an address that it listens on or a name
/// that it was told (a page elsewhere whose name was turned to this address sends its own), and a page's origin must be
/// the server's own. `hosts`: "127.0.0.1:8080", in lower case. What is wrong, else nothing.
[[nodiscard]] std::optional<std::string> foreign_host(const HttpRequest& request, const std::vector<std::string>& hosts,
                                                      bool tls);

}  // namespace coxswain::launcher
