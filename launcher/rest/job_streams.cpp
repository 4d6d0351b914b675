#include "launcher/rest/job_streams.h"

#include <algorithm>
#include <map>
#include <memory>

#include "common/json.h"
#include "launcher/watching/file_tail.h"

namespace coxswain::launcher {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kPartBytes = std::size_t{1} << 20;  // longer than any line of ours

/// The files of a source in one attempt, in the order in which they are written.
std::vector<fs::path> files_of(const fs::path& job, int attempt, const LogSource& source) {
  if (!source.rank) return {source.errors ? errors_file(job, attempt) : console_file(job, attempt)};
  std::map<int, fs::path> generations;
  constexpr std::string_view kPrefix = "generation_";
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(run_folder(job, attempt) / "logs", code)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    const std::string number = name.substr(kPrefix.size());
    if (number.empty() || number.size() > 8 || number.find_first_not_of("0123456789") != std::string::npos) continue;
    generations[std::stoi(number)] =
        entry.path() / std::to_string(*source.rank) / (source.errors ? "stderr" : "stdout");
  }
  std::vector<fs::path> files;
  for (auto& [number, file] : generations) files.push_back(std::move(file));
  return files;
}

/// File after file; one is left for the next when that is there.
class LogStream {
 public:
  LogStream(const JobRunner& runner, std::string id, const LogSource& source, bool follow)
      : runner_(runner), id_(std::move(id)), source_(source), follow_(follow) {}

  std::optional<std::string> next() {
    // The state first: what is written after it is read the next time.
    const auto record = runner_.find(id_);
    const bool goes_on = follow_ && record && !has_ended(record->state);
    if (!record) return std::nullopt;
    const std::vector<fs::path> files = all_files(*record);
    while (at_ < files.size()) {
      if (!tail_) tail_.emplace(files[at_]);
      const bool is_last = at_ + 1 == files.size();
      std::string text = tail_->next(kPartBytes, !is_last || !goes_on);
      if (!text.empty()) return text;
      if (is_last) break;
      ++at_;
      tail_.reset();
    }
    return goes_on ? std::optional<std::string>("") : std::nullopt;
  }

 private:
  [[nodiscard]] std::vector<fs::path> all_files(const JobRecord& record) const {
    std::vector<fs::path> files;
    for (int attempt = 1; attempt <= record.attempts; ++attempt)
      for (fs::path& file : files_of(runner_.folder() / id_, attempt, source_)) files.push_back(std::move(file));
    return files;
  }

  const JobRunner& runner_;
  const std::string id_;
  const LogSource source_;
  const bool follow_;
  std::size_t at_ = 0;
  std::optional<FileTail> tail_;
};

class EventStream {
 public:
  EventStream(const JobRunner& runner, std::string id, EventPlace from)
      : runner_(runner), id_(std::move(id)), from_(from) {}

  std::optional<std::string> next() {
    const auto record = runner_.find(id_);
    if (!record || ended_) return std::nullopt;
    std::string text;
    for (; at_.attempt <= record->attempts; ++at_.attempt, at_.line = 0, tail_.reset()) {
      if (!tail_) tail_.emplace(run_folder(runner_.folder() / id_, at_.attempt) / "events.jsonl");
      // What a client knows already, or cannot be read, is passed over.
      bool more = true;
      while (more && text.empty()) {
        const std::string part = tail_->next(kPartBytes);
        more = !part.empty();
        for_each_line(part, [&](std::string_view line) { add(line, text); });
      }
      if (!text.empty() || at_.attempt == record->attempts) break;
    }
    if (!text.empty()) return text;
    if (state_ != record->state) {
      state_ = record->state;
      text = "event: state\ndata: " + to_text(Json(JsonObject{{"state", to_text(record->state)}})) + "\n\n";
    }
    ended_ = has_ended(record->state);
    return text;
  }

 private:
  void add(std::string_view line, std::string& text) {
    ++at_.line;
    const auto event = parse_json(line);
    const bool is_known = at_.attempt < from_.attempt || (at_.attempt == from_.attempt && at_.line <= from_.line);
    if (!event || is_known) return;
    const Json& type = (*event)["type"];
    text += "id: " + std::to_string(at_.attempt) + "-" + std::to_string(at_.line) +
            "\nevent: " + (type.is_string() ? type.string() : "event") + "\ndata: " + to_text(*event) + "\n\n";
  }

  const JobRunner& runner_;
  const std::string id_;
  const EventPlace from_;
  EventPlace at_;
  std::optional<FileTail> tail_;
  std::optional<JobState> state_;
  bool ended_ = false;
};

}  // namespace

ReadMore stream_logs(const JobRunner& runner, const std::string& id, const LogSource& source, bool follow) {
  return [stream = std::make_shared<LogStream>(runner, id, source, follow)] { return stream->next(); };
}

ReadMore stream_events(const JobRunner& runner, const std::string& id, EventPlace from) {
  return [stream = std::make_shared<EventStream>(runner, id, from)] { return stream->next(); };
}

std::optional<EventPlace> parse_event_id(const std::string& text) {
  EventPlace place;
  if (text.empty()) return place;
  const std::size_t dash = text.find('-');
  const auto is_number = [](const std::string& digits) {
    return !digits.empty() && digits.size() <= 9 && digits.find_first_not_of("0123456789") == std::string::npos;
  };
  if (dash == std::string::npos || !is_number(text.substr(0, dash)) || !is_number(text.substr(dash + 1)))
    return std::nullopt;
  place.attempt = std::stoi(text.substr(0, dash));
  place.line = std::stoi(text.substr(dash + 1));
  return place;
}

}  // namespace coxswain::launcher
