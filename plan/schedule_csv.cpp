// PyTorch's schedule CSV, computation only: one line a stage, one cell a unit of time, "1B0" = part 1, backward,
// micro-batch 0. Without chunks a stage's part is its own number.
#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "common/ensure.h"
#include "plan/program.h"

namespace coxswain::plan {
namespace {

/// F and B (or I, W) of one stage in list order; a backward in parts counts once.
std::vector<Action> compute_order(const std::vector<Action>& actions) {
  std::vector<Action> order;
  std::set<std::tuple<ActionKind, int, int>> seen;
  for (const Action& action : actions) {
    if (!is_compute(action.kind) || action.micro_batch < 0) continue;
    if (seen.emplace(action.kind, action.micro_batch, action.chunk).second)
      order.push_back({action.kind, action.micro_batch, -1, -1, -1, action.chunk});
  }
  return order;
}

/// Gives every action the first unit of time after what it needs: its stage's previous action, and the same micro-batch
/// in the part before (forward) or after (backward).
class Timeline {
 public:
  Timeline(const Plan& plan, std::vector<std::vector<Action>> stages)
      : plan_(plan), stages_(std::move(stages)), next_(stages_.size(), 0), free_(stages_.size(), 0) {
    bool moved = true;
    while (moved) {
      moved = false;
      for (std::size_t s = 0; s < stages_.size(); ++s) {
        while (place_next(s)) moved = true;
      }
    }
    for (std::size_t s = 0; s < stages_.size(); ++s) COX_ENSURE(next_[s] == stages_[s].size(), s, next_[s]);
  }

  [[nodiscard]] int slot(std::size_t stage, const Action& action) const {
    return slots_.at({part_of(plan_, static_cast<int>(stage), action.chunk), action.kind, action.micro_batch});
  }

 private:
  bool place_next(std::size_t s) {
    if (next_[s] == stages_[s].size()) return false;
    const Action& action = stages_[s][next_[s]];
    int earliest = free_[s];
    const bool forward = action.kind == ActionKind::Forward;
    const int part = part_of(plan_, static_cast<int>(s), action.chunk);
    const bool has_neighbour =
        forward ? part > 0 : action.kind != ActionKind::BackwardWeight && part + 1 < num_parts(plan_);
    if (has_neighbour) {
      auto found = slots_.find({forward ? part - 1 : part + 1, action.kind, action.micro_batch});
      // A whole backward and the first half of a split one give the same gradient.
      if (found == slots_.end() && !forward) {
        const bool whole = action.kind == ActionKind::Backward;
        found = slots_.find({part + 1, whole ? ActionKind::BackwardInput : ActionKind::Backward, action.micro_batch});
      }
      if (found == slots_.end()) return false;
      earliest = std::max(earliest, found->second + 1);
    }
    slots_[{part, action.kind, action.micro_batch}] = earliest;
    free_[s] = earliest + 1;
    ++next_[s];
    return true;
  }

  const Plan& plan_;
  std::vector<std::vector<Action>> stages_;
  std::vector<std::size_t> next_;
  std::vector<int> free_;
  std::map<std::tuple<int, ActionKind, int>, int> slots_;  // by part
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

class CsvReader {
 public:
  CsvReader(int num_stages, int num_micro_batches, ScheduleKind kind, int num_chunks)
      : num_stages_(num_stages), num_micro_batches_(num_micro_batches), kind_(kind), num_chunks_(num_chunks) {}

  Result<std::vector<std::vector<Action>>> read(std::string_view csv) {
    std::vector<std::string_view> lines = split(csv, '\n');
    while (!lines.empty() && trim(lines.back()).empty()) lines.pop_back();
    if (static_cast<int>(lines.size()) != num_stages_) {
      problem("number of lines differs from the number of stages", "", std::to_string(num_stages_),
              std::to_string(lines.size()));
    }
    std::vector<std::vector<Action>> stages;
    for (std::size_t i = 0; i < lines.size(); ++i) {
      line_ = static_cast<int>(i);
      stages.push_back(read_line(lines[i]));
    }
    if (problems_.empty()) return stages;
    const std::string message = "schedule has " + std::to_string(problems_.size()) + " problems";
    return combine_errors(ErrorCode::InvalidArgument, message, std::move(problems_));
  }

 private:
  void problem(std::string message, std::string path, std::string expected, std::string got) {
    problems_.push_back(Error{ErrorCode::InvalidArgument, std::move(message), std::move(path), std::move(expected),
                              std::move(got), ""});
  }

  std::vector<Action> read_line(std::string_view line) {
    std::vector<Action> actions;
    const auto cells = split(line, ',');
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::string path = "line " + std::to_string(line_ + 1) + " cell " + std::to_string(i + 1);
      if (const auto action = read_cell(trim(cells[i]), path)) actions.push_back(*action);
    }
    check_complete(actions);
    return actions;
  }

  std::optional<Action> read_cell(std::string_view cell, const std::string& path) {
    if (cell.empty()) return std::nullopt;
    int part = -1;
    const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), part);
    const bool known = error == std::errc{} && part >= 0 && part < num_stages_ * num_chunks_;
    const PartPlace place = known ? place_of_part(kind_, part, num_stages_) : PartPlace{-1, 0};
    const std::string_view rest = cell.substr(static_cast<std::size_t>(end - cell.data()));
    // PyTorch adds its reduction to the list; ours are derived from the plan.
    if (place.stage == line_ && rest == "REDUCE_GRAD") return std::nullopt;
    auto action = error == std::errc{} ? parse_action(rest) : std::nullopt;
    if (!action || !is_compute(action->kind) || action->micro_batch < 0 || action->first_block >= 0 ||
        action->chunk > 0) {
      problem("not a cell of a schedule", path, "stage, then F, B, I or W, then micro-batch, for example 0F3",
              std::string(cell));
    } else if (place.stage != line_) {
      problem("cell belongs to another stage", path, "stage " + std::to_string(line_), std::string(cell));
    } else if (action->micro_batch >= num_micro_batches_) {
      problem("no such micro-batch", path, "0 to " + std::to_string(num_micro_batches_ - 1), std::string(cell));
    } else {
      action->chunk = place.chunk;
      return action;
    }
    return std::nullopt;
  }

  void check_complete(const std::vector<Action>& actions) {
    std::map<std::tuple<ActionKind, int, int>, int> times;
    for (const Action& action : actions) ++times[{action.kind, action.micro_batch, action.chunk}];
    const std::string path = "line " + std::to_string(line_ + 1);
    for (int i = 0; i < num_micro_batches_ * num_chunks_; ++i) {
      const int m = i % num_micro_batches_, chunk = i / num_micro_batches_;
      const auto count = [&](ActionKind kind) {
        const auto found = times.find({kind, m, chunk});
        return found == times.end() ? 0 : found->second;
      };
      const std::string micro_batch =
          " of micro-batch " + std::to_string(m) + (chunk > 0 ? " in chunk " + std::to_string(chunk) : "");
      if (count(ActionKind::Forward) != 1)
        problem("wrong number of forwards", path, "one" + micro_batch, std::to_string(count(ActionKind::Forward)));
      const int whole = count(ActionKind::Backward);
      const int input = count(ActionKind::BackwardInput);
      const int weight = count(ActionKind::BackwardWeight);
      if (whole + input != 1 || input != weight) {
        problem("wrong number of backwards", path, "one B, or one I and one W," + micro_batch,
                std::to_string(whole) + " B, " + std::to_string(input) + " I, " + std::to_string(weight) + " W");
      }
    }
  }

  int num_stages_, num_micro_batches_;
  ScheduleKind kind_;
  int num_chunks_;
  int line_ = 0;
  std::vector<Error> problems_;
};

}  // namespace

std::string to_schedule_csv(const Plan& plan) {
  std::vector<std::vector<Action>> stages(plan.stages.size());
  // Roles of one stage share the order; the first speaks for it.
  for (const Role& role : plan.roles) {
    auto& order = stages.at(static_cast<std::size_t>(role.stage));
    if (order.empty()) order = compute_order(role.actions);
  }
  const Timeline timeline(plan, stages);
  std::string csv;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    int column = 0;
    for (const Action& action : stages[s]) {
      const int slot = timeline.slot(s, action);
      for (; column < slot; ++column) csv += ',';
      csv += std::to_string(part_of(plan, static_cast<int>(s), action.chunk)) +
             to_text(Action{action.kind, action.micro_batch});
    }
    csv += '\n';
  }
  return csv;
}

Result<std::vector<std::vector<Action>>> parse_schedule_csv(std::string_view csv, int num_stages, int num_micro_batches,
                                                            ScheduleKind kind, int num_chunks) {
  return CsvReader(num_stages, num_micro_batches, kind, num_chunks).read(csv);
}

}  // namespace coxswain::plan
