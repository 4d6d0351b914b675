// Reads PyTorch's schedule CSV, computation only: stages, chunks and where they are come from the file itself.
#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <set>
#include <tuple>

#include "plan/program.h"

namespace coxswain::plan {
namespace {

constexpr std::size_t kMaxProblems = 100;
constexpr std::size_t kMaxLines = 1 << 16;
constexpr int kMaxNumber = 1 << 30;  // of parts and micro-batches, so that one more is a number too
constexpr std::string_view kOverlap = "OVERLAP_F_B";

struct Cell {
  int part = 0;
  ActionKind kind = ActionKind::Forward;
  int micro_batch = 0;
  std::size_t number = 0;  // in its line, from 1
};

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\r')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\r')) text.remove_suffix(1);
  return text;
}

std::string to_text(const Cell& cell) {
  return std::to_string(cell.part) + to_text(Action{cell.kind, cell.micro_batch});
}

class CsvReader {
 public:
  Result<CsvSchedule> read(std::string_view csv) {
    std::vector<std::string_view> lines = split(csv, '\n');
    while (!lines.empty() && trim(lines.back()).empty()) lines.pop_back();
    if (lines.empty() || lines.size() > kMaxLines)
      problem("no schedule", "", "a line of cells for each stage", std::to_string(lines.size()) + " lines");
    lines_.resize(std::min(lines.size(), kMaxLines));
    for (std::size_t i = 0; i < lines_.size(); ++i) read_line(i, lines[i]);
    if (problems_.empty()) find_places();
    if (problems_.empty()) check_complete();
    if (problems_.empty()) check_order();
    if (!problems_.empty()) {
      const std::string message =
          "schedule has " + std::to_string(problems_.size()) + (problems_.size() == 1 ? " problem" : " problems");
      return combine_errors(ErrorCode::InvalidArgument, message, std::move(problems_));
    }
    return make();
  }

 private:
  void problem(std::string message, std::string path, std::string expected, std::string got, std::string hint = "") {
    if (problems_.size() >= kMaxProblems) return;
    problems_.push_back(Error{ErrorCode::InvalidArgument, std::move(message), std::move(path), std::move(expected),
                              std::move(got), std::move(hint)});
  }

  static std::string path_of(std::size_t line, std::size_t cell) {
    return "line " + std::to_string(line + 1) + " cell " + std::to_string(cell);
  }
  static std::string path_of(std::size_t line) { return "line " + std::to_string(line + 1); }

  void read_line(std::size_t line, std::string_view text) {
    const auto cells = split(text, ',');
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::string_view cell = trim(cells[i]);
      if (cell.empty()) continue;
      const std::size_t close = cell.front() == '(' ? cell.find(')') : std::string_view::npos;
      if (close == std::string_view::npos) {
        read_cell(line, i + 1, cell, cell);
      } else if (cell.substr(close + 1) != kOverlap) {
        problem("not a cell of a schedule", path_of(line, i + 1), "(0F3;1B0)" + std::string(kOverlap),
                std::string(cell));
      } else {
        for (const std::string_view part : split(cell.substr(1, close - 1), ';'))
          read_cell(line, i + 1, trim(part), cell);
      }
    }
  }

  void read_cell(std::size_t line, std::size_t number, std::string_view text, std::string_view whole) {
    int part = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), part);
    const bool has_part = error == std::errc{} && part >= 0 && part < kMaxNumber;
    const std::string_view rest = text.substr(static_cast<std::size_t>(end - text.data()));
    const auto action = has_part ? parse_action(rest) : std::nullopt;
    // What follows from the order of computing and the plan.
    constexpr std::array<std::string_view, 3> kDerived{"REDUCE_GRAD", "UNSHARD", "RESHARD"};
    if (has_part && std::find(kDerived.begin(), kDerived.end(), rest) != kDerived.end()) return;
    if (action && is_edge(action->kind) && action->micro_batch >= 0 && action->chunk == 0) return;
    if (!action || !is_compute(action->kind) || action->micro_batch < 0 || action->micro_batch >= kMaxNumber ||
        action->first_block >= 0 || action->chunk > 0) {
      return problem("not a cell of a schedule", path_of(line, number),
                     "part, then F, B, I or W, then micro-batch, for example 0F3", std::string(whole));
    }
    lines_[line].push_back({part, action->kind, action->micro_batch, number});
    num_micro_batches_ = std::max(num_micro_batches_, action->micro_batch + 1);
    num_parts_ = std::max(num_parts_, part + 1);
  }

  /// Parts go around the stages in a loop, or down them and back up.
  void find_places() {
    const int stages = static_cast<int>(lines_.size());
    num_chunks_ = (num_parts_ + stages - 1) / stages;
    std::vector<std::set<int>> held(lines_.size());
    std::size_t num_cells = 0;
    for (std::size_t s = 0; s < lines_.size(); ++s) {
      num_cells += lines_[s].size();
      for (const Cell& cell : lines_[s]) held[s].insert(cell.part);
    }
    // Bounds what is made from numbers that a file names.
    if (static_cast<std::size_t>(num_parts_) * 2 > num_cells ||
        static_cast<std::size_t>(num_micro_batches_) > num_cells)
      return problem("parts or micro-batches are missing", "",
                     "a forward and a backward of every micro-batch in every part",
                     std::to_string(num_cells) + " cells for " + std::to_string(num_parts_) + " parts and " +
                         std::to_string(num_micro_batches_) + " micro-batches");
    const auto fits = [&](ScheduleKind kind, std::size_t s) {
      for (const int part : held[s])
        if (place_of_part(kind, part, stages).stage != static_cast<int>(s)) return false;
      return static_cast<int>(held[s].size()) == num_chunks_;
    };
    const auto all_fit = [&](ScheduleKind kind) {
      for (std::size_t s = 0; s < held.size(); ++s)
        if (!fits(kind, s)) return false;
      return true;
    };
    if (all_fit(ScheduleKind::Custom)) return;
    kind_ = ScheduleKind::CustomV;
    const bool may_be_v = num_chunks_ == 2 && stages > 1;
    if (may_be_v && all_fit(kind_)) return;
    for (std::size_t s = 0; s < held.size(); ++s) {
      if (fits(ScheduleKind::Custom, s) || (may_be_v && fits(ScheduleKind::CustomV, s))) continue;
      std::string loop, got;
      for (int chunk = 0; chunk < num_chunks_; ++chunk)
        loop += (chunk == 0 ? "" : ", ") + std::to_string(chunk * stages + static_cast<int>(s));
      for (const int part : held[s]) got += (got.empty() ? "" : ", ") + std::to_string(part);
      problem("parts are not where a loop or a V puts them", path_of(s),
              "parts " + loop +
                  (may_be_v ? ", or " + std::to_string(s) + ", " + std::to_string(num_parts_ - 1 - static_cast<int>(s))
                            : ""),
              got.empty() ? "none" : got);
    }
    if (problems_.empty())
      problem("parts are not where a loop or a V puts them", "", "all lines in a loop, or all in a V", "some of each");
  }

  void check_complete() {
    for (std::size_t s = 0; s < lines_.size(); ++s) {
      std::map<std::tuple<int, int, ActionKind>, int> times;
      for (const Cell& cell : lines_[s]) ++times[{cell.part, cell.micro_batch, cell.kind}];
      for (int chunk = 0; chunk < num_chunks_; ++chunk) {
        const int part = part_of(kind_, static_cast<int>(s), static_cast<int>(lines_.size()), chunk);
        for (int m = 0; m < num_micro_batches_; ++m) {
          const auto count = [&](ActionKind kind) {
            const auto found = times.find({part, m, kind});
            return found == times.end() ? 0 : found->second;
          };
          const std::string name = " of micro-batch " + std::to_string(m) + " in part " + std::to_string(part);
          if (const int forwards = count(ActionKind::Forward); forwards != 1)
            problem("wrong number of forwards", path_of(s), "one" + name, std::to_string(forwards));
          const int whole = count(ActionKind::Backward), input = count(ActionKind::BackwardInput),
                    weight = count(ActionKind::BackwardWeight);
          if (whole + input != 1 || input != weight)
            problem("wrong number of backwards", path_of(s), "one B, or one I and one W," + name,
                    std::to_string(whole) + " B, " + std::to_string(input) + " I, " + std::to_string(weight) + " W");
        }
      }
    }
  }

  using Key = std::tuple<int, int, bool>;  // part, micro-batch, of the backward

  /// What must be there before `cell`, in words; nothing once it is.
  [[nodiscard]] std::string missing_for(const Cell& cell) const {
    const bool forward = cell.kind == ActionKind::Forward;
    const auto name = [&](int part, char letter) {
      return std::to_string(part) + letter + std::to_string(cell.micro_batch);
    };
    if (cell.kind == ActionKind::BackwardWeight)
      return done_.count({cell.part, cell.micro_batch, true}) > 0 ? "" : name(cell.part, 'I');
    if (forward)
      return cell.part == 0 || done_.count({cell.part - 1, cell.micro_batch, false}) > 0 ? ""
                                                                                         : name(cell.part - 1, 'F');
    if (done_.count({cell.part, cell.micro_batch, false}) == 0) return name(cell.part, 'F');
    const bool last = cell.part + 1 == num_parts_;
    return last || done_.count({cell.part + 1, cell.micro_batch, true}) > 0
               ? ""
               : "the backward of micro-batch " + std::to_string(cell.micro_batch) + " in part " +
                     std::to_string(cell.part + 1);
  }

  /// Runs all lines with as many buffers as they want: what is stuck then has no order at all.
  void check_order() {
    std::vector<std::size_t> next(lines_.size(), 0);
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t s = 0; s < lines_.size(); ++s) {
        for (; next[s] < lines_[s].size() && missing_for(lines_[s][next[s]]).empty(); ++next[s]) {
          const Cell& cell = lines_[s][next[s]];
          if (cell.kind != ActionKind::BackwardWeight)
            done_.emplace(cell.part, cell.micro_batch, cell.kind != ActionKind::Forward);
          moved = true;
        }
      }
    }
    for (std::size_t s = 0; s < lines_.size(); ++s) {
      if (next[s] == lines_[s].size()) continue;
      const Cell& cell = lines_[s][next[s]];
      problem("cell can never begin", path_of(s, cell.number), missing_for(cell) + " before it", to_text(cell),
              "the lines wait for each other in a circle; move what is waited for forward");
    }
  }

  CsvSchedule make() const {
    CsvSchedule schedule{kind_, static_cast<int>(lines_.size()), num_chunks_, num_micro_batches_, {}};
    for (const std::vector<Cell>& line : lines_) {
      auto& stage = schedule.stages.emplace_back();
      for (const Cell& cell : line)
        stage.push_back(
            {cell.kind, cell.micro_batch, -1, -1, -1, place_of_part(kind_, cell.part, schedule.num_stages).chunk});
    }
    for (int i = 0; i <= static_cast<int>(ScheduleKind::ZeroBubbleV); ++i)
      if (is_order_of(static_cast<ScheduleKind>(i), schedule)) schedule.kind = static_cast<ScheduleKind>(i);
    return schedule;
  }

  static bool is_order_of(ScheduleKind kind, const CsvSchedule& schedule) {
    if (is_v_shaped(kind) != is_v_shaped(schedule.kind) || has_chunks(kind) != (schedule.num_chunks > 1)) return false;
    for (int s = 0; s < schedule.num_stages; ++s)
      if (make_schedule(kind, s, schedule.num_stages, schedule.num_micro_batches, schedule.num_chunks) !=
          schedule.stages[static_cast<std::size_t>(s)])
        return false;
    return true;
  }

  std::vector<std::vector<Cell>> lines_;
  ScheduleKind kind_ = ScheduleKind::Custom;
  int num_parts_ = 0, num_micro_batches_ = 0, num_chunks_ = 1;
  std::set<Key> done_;
  std::vector<Error> problems_;
};

}  // namespace

Result<CsvSchedule> read_schedule_csv(std::string_view csv) { return CsvReader().read(csv); }

}  // namespace coxswain::plan
