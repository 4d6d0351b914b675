#include "launcher/rest/plan_searches.h"

#include <algorithm>
#include <utility>

#include "common/hash.h"
#include "common/log.h"
#include "launcher/rest/problem.h"

namespace coxswain::launcher {
namespace {

constexpr std::size_t kIdDigits = 32;
/// What an answer takes beside its text.
constexpr std::int64_t kEntryBytes = 1024;

std::string path_of(const std::string& id) { return "/v1/plans/" + id; }

}  // namespace

std::string plan_id(const std::string& canonical) { return sha256_hex(canonical).substr(0, kIdDigits); }

PlanSearches::PlanSearches(const Clock& clock, Limits limits, Search search)
    : clock_(clock),
      limits_(limits),
      search_(std::move(search)),
      pool_(std::make_unique<WorkPool>(limits.threads, limits.most_waiting)),
      late_([this](const std::stop_token& stop) { tell_late(stop); }) {}

PlanSearches::~PlanSearches() {
  late_ = {};
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    for (auto& [id, entry] : entries_) entry.stop.request_stop();
  }
  pool_.reset();
  for (auto& [id, entry] : entries_) {
    for (Waiter& waiter : entry.waiters) waiter.reply(problem(503, "the service ends"));
  }
}

void PlanSearches::ask(const Json& request, Reply reply) {
  std::string text = to_text(request);
  const std::string id = plan_id(text);
  std::optional<HttpResponse> response;
  {
    const std::lock_guard lock(mutex_);
    ++counts_.asked;
    auto found = entries_.find(id);
    // What could not be planned may be by now: a model was sent, a disk has room.
    if (found != entries_.end() && found->second.answer && !*found->second.answer) {
      forget(found);
      found = entries_.end();
    }
    if (found == entries_.end()) {
      if (pool_->add([this, id] { run(id); })) {
        found = entries_.emplace(id, Entry{std::move(text), clock_.now()}).first;
      } else {
        ++counts_.refused;
        response = too_much("too many searches wait; ask again");
      }
    } else if (found->second.answer) {
      ++counts_.answered_from_kept;
      response = respond(id, found->second);
    }
    if (!response)
      found->second.waiters.push_back({Deadline::after(clock_, limits_.inline_budget).at, std::move(reply)});
  }
  if (response) return reply(std::move(*response));
  changed_.notify_all();
}

HttpResponse PlanSearches::look(const std::string& id, const std::string& known_etags) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(id);
  if (found == entries_.end()) return problem(404, "no plan of this id was asked for, or it was forgotten meanwhile");
  if (!found->second.answer) return still_searching(id, found->second);
  HttpResponse response = respond(id, found->second);
  const auto etag = response.headers.find("ETag");
  if (etag != response.headers.end() && (known_etags == "*" || known_etags.find(etag->second) != std::string::npos)) {
    response.status = 304;
    response.body.clear();
  }
  return response;
}

HttpResponse PlanSearches::cancel(const std::string& id) {
  std::vector<Waiter> waiters;
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end()) return problem(404, "no plan of this id was asked for, or it was forgotten meanwhile");
    found->second.stop.request_stop();
    waiters = std::move(found->second.waiters);
    forget(found);
  }
  for (Waiter& waiter : waiters) waiter.reply(problem(409, "the search was stopped on request"));
  HttpResponse response;
  response.status = 204;
  return response;
}

std::optional<PlanSearches::Kept> PlanSearches::find(const std::string& id) const {
  std::string request, answer;
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end() || !found->second.answer || !*found->second.answer) return std::nullopt;
    request = found->second.request;
    answer = (*found->second.answer)->text;
  }
  // Both are texts of our own.
  const Json found = parse_json(answer).value();
  return Kept{parse_json(request).value(), found["plan"]};
}

PlanSearches::Counts PlanSearches::counts() const {
  const std::lock_guard lock(mutex_);
  Counts counts = counts_;
  counts.kept = order_.size();
  counts.waiting = pool_->num_waiting();
  return counts;
}

void PlanSearches::run(const std::string& id) {
  std::string request;
  std::stop_token stop;
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(id);
    // Cancelled before it began, and perhaps asked for again.
    if (found == entries_.end() || std::exchange(found->second.begun, true)) return;
    request = found->second.request;
    stop = found->second.stop.get_token();
    ++counts_.searched;
  }
  auto answer = guard("launcher", [&] { return search_(parse_json(request).value(), stop); });
  if (!answer && answer.error().code == ErrorCode::Internal) {
    log(LogLevel::Error, "serve", to_text(answer.error()));
    answer = Error{ErrorCode::Internal, "this is our bug; the log tells what happened", "", "", "", ""};
  }
  finish(id, stop, std::move(answer));
}

void PlanSearches::forget(Entries::iterator entry) {
  if (entry->second.answer) {
    counts_.kept_bytes -= entry->second.bytes;
    order_.erase(entry->second.place);
  }
  entries_.erase(entry);
}

void PlanSearches::finish(const std::string& id, const std::stop_token& stop, Result<FoundPlan> answer) {
  std::vector<Waiter> waiters;
  HttpResponse response;
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(id);
    // One that was stopped may have been asked for again: that is another entry.
    if (ended_ || found == entries_.end() || !(found->second.stop.get_token() == stop)) return;
    Entry& entry = found->second;
    const std::size_t size = answer ? answer->text.size() : to_text(answer.error()).size();
    entry.answer.emplace(std::move(answer));
    entry.bytes = static_cast<std::int64_t>(size + entry.request.size()) + kEntryBytes;
    entry.place = order_.insert(order_.end(), id);
    counts_.kept_bytes += entry.bytes;
    waiters = std::move(entry.waiters);
    entry.waiters.clear();
    response = respond(id, entry);
    drop_oldest();
  }
  for (Waiter& waiter : waiters) waiter.reply(response);
}

/// The newest answer stays however large it is: somebody was told where to look for it.
void PlanSearches::drop_oldest() {
  while (counts_.kept_bytes > limits_.most_kept.value && order_.size() > 1) {
    forget(entries_.find(order_.front()));
  }
}

/// Whoever has waited for the inline budget is told where to look.
void PlanSearches::tell_late(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    const TimePoint now = clock_.now();
    TimePoint next = TimePoint::max();
    std::vector<std::pair<Reply, HttpResponse>> late;
    for (auto& [id, entry] : entries_) {
      for (Waiter& waiter : entry.waiters) {
        if (waiter.until > now)
          next = std::min(next, waiter.until);
        else
          late.emplace_back(std::move(waiter.reply), still_searching(id, entry));
      }
      std::erase_if(entry.waiters, [now](const Waiter& waiter) { return waiter.until <= now; });
    }
    if (!late.empty()) {
      lock.unlock();
      for (auto& [reply, response] : late) reply(std::move(response));
      lock.lock();
    } else if (next == TimePoint::max()) {
      changed_.wait(lock, stop, [this] {
        return std::any_of(entries_.begin(), entries_.end(),
                           [](const auto& entry) { return !entry.second.waiters.empty(); });
      });
    } else {
      changed_.wait_until(lock, stop, next, [] { return false; });
    }
  }
}

HttpResponse PlanSearches::respond(const std::string& id, Entry& entry) {
  order_.splice(order_.end(), order_, entry.place);
  const Result<FoundPlan>& answer = *entry.answer;
  if (!answer) {
    HttpResponse response = problem(answer.error());
    response.headers["Location"] = path_of(id);
    return response;
  }
  HttpResponse response;
  response.body = answer->text;
  response.headers = {{"ETag", "\"" + answer->plan_hash + "\""}, {"Location", path_of(id)}};
  return response;
}

HttpResponse PlanSearches::still_searching(const std::string& id, const Entry& entry) const {
  HttpResponse response;
  response.status = 202;
  response.body =
      to_text(Json(JsonObject{{"id", id},
                              {"state", "searching"},
                              {"seconds", std::chrono::duration<double>(clock_.now() - entry.began).count()}})) +
      "\n";
  response.headers = {{"Location", path_of(id)}, {"Retry-After", "1"}};
  return response;
}

}  // namespace coxswain::launcher
