#pragma once
// Dry runs that were asked for: under way, found, failed, stopped. Equal requests are one search, and its answer is
// kept for the next that asks. Whoever asks waits for a short time, then is told where to look. Called by the service.
// Threads: any; answers are given by the thread that found them. Source: INTERFACE section 5.
#include <condition_variable>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "common/clock.h"
#include "common/json.h"
#include "common/result.h"
#include "launcher/rest/http.h"
#include "launcher/rest/work_pool.h"

namespace coxswain::launcher {

/// A plan that was found, as it is sent.
struct FoundPlan {
  std::string text;       // INTERFACE section 4
  std::string plan_hash;  // its ETag
};

class PlanSearches {
 public:
  struct Limits {
    Seconds inline_budget{2};                 // for which whoever asks is kept waiting
    int threads = 1;                          // that search
    std::size_t most_waiting = 256;           // searches that have not begun
    Bytes most_kept{std::int64_t{64} << 20};  // of answers; the one that was asked for longest ago goes first
  };
  /// Answers one request, whose canonical JSON it is given. Called by threads of the pool.
  using Search = std::function<Result<FoundPlan>(const Json& request, std::stop_token stop)>;

  PlanSearches(const Clock& clock, Limits limits, Search search);
  ~PlanSearches();
  PlanSearches(const PlanSearches&) = delete;
  PlanSearches& operator=(const PlanSearches&) = delete;

  /// 200 with the plan, the problem where there is none, 202 where that takes longer than the inline budget, 429 where
  /// too many wait. The same request is searched once; one that could not be planned is searched again.
  void ask(const Json& request, Reply reply);
  /// The same of one that was asked for before, without waiting: 404 of an unknown one, 304 where `known_etags`
  /// (If-None-Match) has it.
  [[nodiscard]] HttpResponse look(const std::string& id, const std::string& known_etags);
  /// 204; the search ends soon, and whoever waits for it is told so. 404 of an unknown one.
  [[nodiscard]] HttpResponse cancel(const std::string& id);

  /// The request of a plan that was found, and its `plan`; nothing of any other.
  struct Kept {
    Json request;
    Json plan;
  };
  [[nodiscard]] std::optional<Kept> find(const std::string& id) const;

  struct Counts {
    std::int64_t asked = 0, answered_from_kept = 0, searched = 0, refused = 0;
    std::size_t kept = 0, waiting = 0;
    std::int64_t kept_bytes = 0;
  };
  [[nodiscard]] Counts counts() const;

 private:
  struct Waiter {
    TimePoint until;
    Reply reply;
  };
  struct Entry {
    std::string request;  // canonical text: a tenth of what it takes as a tree
    TimePoint began;
    std::stop_source stop = {};
    bool begun = false;
    std::optional<Result<FoundPlan>> answer = {};
    std::vector<Waiter> waiters = {};
    std::list<std::string>::iterator place = {};  // in the order of use; of answers alone
    std::int64_t bytes = 0;
  };

  using Entries = std::map<std::string, Entry>;
  void run(const std::string& id);
  void finish(const std::string& id, const std::stop_token& stop, Result<FoundPlan> answer);
  void forget(Entries::iterator entry);
  void drop_oldest();
  void tell_late(const std::stop_token& stop);
  [[nodiscard]] HttpResponse respond(const std::string& id, Entry& entry);
  [[nodiscard]] HttpResponse still_searching(const std::string& id, const Entry& entry) const;

  const Clock& clock_;
  const Limits limits_;
  const Search search_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  Entries entries_;
  std::list<std::string> order_;  // of answers: asked for longest ago first
  Counts counts_;
  bool ended_ = false;  // whoever waits is told so by the destructor
  std::unique_ptr<WorkPool> pool_;
  std::jthread late_;
};

/// Of a request's canonical text: 32 hex digits.
[[nodiscard]] std::string plan_id(const std::string& canonical);

}  // namespace coxswain::launcher
