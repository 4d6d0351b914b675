// One process a rank; for each stream a thread with what was measured and below it one with what was predicted.
#include "cost_model/measured_trace.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "common/ensure.h"
#include "cost_model/trace_events.h"

namespace coxswain::cost_model {
namespace {

constexpr int kPredictedThreads = plan::kNumStreams;  // the predicted thread of stream s is s + this
constexpr int kStepThread = 2 * plan::kNumStreams;
constexpr double kNanosecond = 1e-9;

/// Nanoseconds, so that what follows on one thread still does after rounding.
std::int64_t to_ticks(double seconds) { return std::llround(seconds / kNanosecond); }
double to_milliseconds(double seconds) { return static_cast<double>(to_ticks(seconds)) / 1e6; }

/// Where a rank's list stands among the roles, and how it communicates.
struct RankView {
  plan::RankPlace place;
  std::size_t role = 0, first_simulated = 0;
  const std::vector<plan::Action>* actions = nullptr;
  std::vector<int> group;                      // of each action, or -1
  std::vector<std::size_t> turn;               // of each action: how many of its group came before
  std::map<int, std::vector<std::size_t>> of;  // group -> its actions in order
};

std::size_t role_of(const plan::Plan& plan, const plan::RankPlace& place) {
  for (std::size_t role = 0; role < plan.roles.size(); ++role) {
    const std::vector<int>& replicas = plan.roles[role].replicas;
    if (plan.roles[role].stage == place.stage &&
        std::find(replicas.begin(), replicas.end(), place.replica) != replicas.end())
      return role;
  }
  COX_ENSURE(false, place.stage, place.replica);
  return 0;
}

std::vector<RankView> view_ranks(const plan::Plan& plan, const std::vector<plan::Group>& groups) {
  std::vector<std::size_t> first(plan.roles.size() + 1, 0);
  for (std::size_t role = 0; role < plan.roles.size(); ++role)
    first[role + 1] = first[role] + plan.roles[role].actions.size();
  std::vector<RankView> views(static_cast<std::size_t>(plan::num_ranks(plan)));
  for (std::size_t rank = 0; rank < views.size(); ++rank) {
    RankView& view = views[rank];
    view.place = plan::place_of(plan, static_cast<int>(rank));
    view.role = role_of(plan, view.place);
    view.first_simulated = first[view.role];
    view.actions = &plan.roles[view.role].actions;
    for (std::size_t i = 0; i < view.actions->size(); ++i) {
      const plan::Action& action = (*view.actions)[i];
      const int group = plan::group_of(plan, groups, view.place.stage, action, view.place.position);
      view.group.push_back(group);
      view.turn.push_back(group < 0 ? 0 : view.of[group].size());
      if (group >= 0) view.of[group].push_back(i);
    }
  }
  return views;
}

/// Both sides of an edge, and all ranks of a collective, use their group in one order: the n-th use of one is the n-th
/// of the others. Collectives wait for every rank of the group, edges for those that the samples come from or go to.
class Partners {
 public:
  Partners(const plan::Plan& plan, const std::vector<RankView>& views, const TracedStep& step)
      : plan_(plan), views_(views), step_(step) {
    for (std::size_t rank = 0; rank < views.size(); ++rank) {
      for (std::size_t i = 0; i < views[rank].group.size(); ++i) {
        if (views[rank].group[i] < 0) continue;
        double& last = last_of_group_.try_emplace(key(views[rank], i), started(rank, i)).first->second;
        last = std::max(last, started(rank, i));
      }
    }
  }

  /// On the clock of rank 0's node.
  [[nodiscard]] double last_start(std::size_t rank, std::size_t action) const {
    const RankView& view = views_[rank];
    if (!plan::is_edge((*view.actions)[action].kind)) return last_of_group_.at(key(view, action));
    double last = started(rank, action);
    for (const plan::Transfer& transfer : plan::transfers_of(plan_, static_cast<int>(rank), (*view.actions)[action])) {
      const auto peer = static_cast<std::size_t>(transfer.peer);
      const auto found = views_[peer].of.find(view.group[action]);
      if (found == views_[peer].of.end() || found->second.size() <= view.turn[action]) continue;
      last = std::max(last, started(peer, found->second[view.turn[action]]));
    }
    return last;
  }

 private:
  [[nodiscard]] static std::pair<int, std::size_t> key(const RankView& view, std::size_t action) {
    return {view.group[action], view.turn[action]};
  }
  [[nodiscard]] double started(std::size_t rank, std::size_t action) const {
    return step_.ranks[rank].begin + step_.ranks[rank].start[action];
  }

  const plan::Plan& plan_;
  const std::vector<RankView>& views_;
  const TracedStep& step_;
  std::map<std::pair<int, std::size_t>, double> last_of_group_;
};

/// When the partners of each action had all come, by rank and action, in seconds since the rank's begin; its own start
/// for computations, and for what ended before a partner came (a message that was buffered).
std::vector<std::vector<double>> moving_starts(const plan::Plan& plan, const std::vector<RankView>& views,
                                               const TracedStep& step) {
  COX_ENSURE(step.ranks.size() == views.size(), step.ranks.size());
  for (std::size_t rank = 0; rank < views.size(); ++rank) {
    const std::size_t expected = views[rank].actions->size();
    COX_ENSURE(step.ranks[rank].start.size() == expected && step.ranks[rank].end.size() == expected, rank);
  }
  const Partners partners(plan, views, step);
  std::vector<std::vector<double>> starts(views.size());
  for (std::size_t rank = 0; rank < views.size(); ++rank) {
    const MeasuredStep& measured = step.ranks[rank];
    starts[rank] = measured.start;
    for (std::size_t i = 0; i < measured.start.size(); ++i) {
      if (views[rank].group[i] < 0) continue;
      const double last = partners.last_start(rank, i) - measured.begin;
      if (last <= measured.end[i]) starts[rank][i] = std::max(measured.start[i], last);
    }
  }
  return starts;
}

double first_begin(const TracedStep& step) {
  double first = step.ranks.front().begin;
  for (const MeasuredStep& rank : step.ranks) first = std::min(first, rank.begin);
  return first;
}

/// Members of a JSON object as text, written straight: there are many, and the coordinator has other things to do.
/// Requires: names and texts that need no escape (an action's text needs none), finite numbers.
class Fields {
 public:
  Fields& number(std::string_view name, double value) {
    char digits[32];
    const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
    return raw(name, std::string_view(digits, static_cast<std::size_t>(end - digits)));
  }
  Fields& integer(std::string_view name, std::int64_t value) { return raw(name, std::to_string(value)); }
  Fields& string(std::string_view name, std::string_view value) { return raw(name, "\"" + std::string(value) + "\""); }
  Fields& raw(std::string_view name, std::string_view value) {
    text_ += text_.empty() ? "\"" : ",\"";
    text_.append(name).append("\":").append(value);
    return *this;
  }
  /// What was measured, what was predicted, and the first over the second (null where nothing was predicted).
  Fields& pair(double measured, double predicted) {
    number("measured_ms", to_milliseconds(measured)).number("predicted_ms", to_milliseconds(predicted));
    return to_ticks(predicted) > 0 ? number("ratio", measured / predicted) : raw("ratio", "null");
  }
  [[nodiscard]] std::string object() const { return "{" + text_ + "}"; }

 private:
  std::string text_;
};

}  // namespace

/// The text of a trace, event by event.
class MeasuredTrace::Writer {
 public:
  explicit Writer(TraceBasis basis) : run_(std::move(basis)), views_(view_ranks(run_.plan, run_.groups)) {
    for (std::size_t rank = 0; rank < views_.size(); ++rank) add_names(static_cast<int>(rank), views_[rank]);
  }

  [[nodiscard]] std::string text(JsonObject about) const {
    JsonObject rest{{"displayTimeUnit", "ms"}, {"otherData", std::move(about)}};
    std::string head = to_text(Json(std::move(rest)));
    head.pop_back();
    return head + ",\"traceEvents\":[\n" + events_ + "\n]}\n";
  }

  void add_step(const TracedStep& step) {
    const auto starts = moving_starts(run_.plan, views_, step);
    const double first = first_begin(step);
    if (!begun_) origin_ = first;
    begun_ = true;
    for (std::size_t rank = 0; rank < views_.size(); ++rank) {
      const MeasuredStep& measured = step.ranks[rank];
      Fields args;
      args.integer("step", step.step).pair(measured.seconds, run_.predicted.estimate.step.value);
      add_span("step " + std::to_string(step.step), "measured", static_cast<int>(rank), kStepThread, measured.begin,
               measured.begin + measured.seconds, args);
      for (std::size_t i = 0; i < measured.start.size(); ++i)
        add_action(step, first, static_cast<int>(rank), i, starts[rank][i]);
    }
  }

 private:
  void add(std::string_view event) { events_.append(events_.empty() ? "" : ",\n").append(event); }

  void add_span(const std::string& name, const char* category, int rank, int thread, double start, double end,
                const Fields& args) {
    const std::int64_t from = to_ticks(start - origin_), to = to_ticks(end - origin_);
    Fields event;
    event.raw("args", args.object()).string("cat", category).number("dur", static_cast<double>(to - from) / 1e3);
    event.string("name", name).string("ph", "X").integer("pid", rank).integer("tid", thread);
    add(event.number("ts", static_cast<double>(from) / 1e3).object());
  }

  void add_thread(int rank, int thread, int order, std::string name) {
    add(to_text(name_event("thread_name", rank, thread, std::move(name))));
    add(to_text(JsonObject{{"args", JsonObject{{"sort_index", order}}},
                           {"name", "thread_sort_index"},
                           {"ph", "M"},
                           {"pid", rank},
                           {"tid", thread}}));
  }

  void add_names(int rank, const RankView& view) {
    const plan::Stage& stage = run_.plan.stages[static_cast<std::size_t>(view.place.stage)];
    const plan::Replica& replica = stage.replicas[static_cast<std::size_t>(view.place.replica)];
    const std::string name = "rank " + std::to_string(rank) + ", stage " + std::to_string(view.place.stage) + " " +
                             blocks_text(stage) + ", " + std::to_string(replica.samples) + " samples, " +
                             run_.nodes[static_cast<std::size_t>(rank)];
    add(to_text(name_event("process_name", rank, 0, name)));
    add_thread(rank, kStepThread, 0, "step");
    for (int stream = 0; stream < plan::kNumStreams; ++stream) {
      if (!shows_stream(run_.plan, static_cast<plan::Stream>(stream))) continue;
      const std::string thread(stream_name(static_cast<plan::Stream>(stream)));
      add_thread(rank, stream, 2 * stream + 1, thread);
      add_thread(rank, kPredictedThreads + stream, 2 * stream + 2, thread + ", predicted");
    }
  }

  void add_action(const TracedStep& step, double first, int rank, std::size_t index, double moving) {
    const RankView& view = views_[static_cast<std::size_t>(rank)];
    const MeasuredStep& measured = step.ranks[static_cast<std::size_t>(rank)];
    const plan::Action& action = (*view.actions)[index];
    const SimulatedAction& predicted = run_.predicted.actions[view.first_simulated + index];
    const int stream = static_cast<int>(plan::stream_of(run_.plan, view.place.stage, action));
    const std::string name = plan::to_text(action);
    Fields about;
    about.integer("action", static_cast<std::int64_t>(index)).integer("step", step.step);
    const double waited = moving - measured.start[index], wait = predicted.transfer_start - predicted.start;

    Fields args = about;
    args.pair(measured.end[index] - moving, predicted.end - predicted.transfer_start)
        .number("measured_start_ms", to_milliseconds(measured.begin - first + moving))
        .number("predicted_start_ms", to_milliseconds(predicted.transfer_start));
    if (!plan::is_compute(action.kind))
      args.number("measured_wait_ms", to_milliseconds(waited)).number("predicted_wait_ms", to_milliseconds(wait));
    if (to_ticks(waited) > 0) {
      Fields of_wait = about;
      add_span("wait " + name, "measured", rank, stream, measured.begin + measured.start[index],
               measured.begin + moving, of_wait.pair(waited, wait));
    }
    add_span(name, "measured", rank, stream, measured.begin + moving, measured.begin + measured.end[index], args);
    const int beside = kPredictedThreads + stream;
    if (to_ticks(wait) > 0)
      add_span("wait " + name, "predicted", rank, beside, first + predicted.start, first + predicted.transfer_start,
               about);
    add_span(name, "predicted", rank, beside, first + predicted.transfer_start, first + predicted.end, about);
  }

  TraceBasis run_;
  std::vector<RankView> views_;  // of run_.plan
  double origin_ = 0;
  bool begun_ = false;
  std::string events_;
};

std::vector<std::vector<double>> moving_seconds(const TraceBasis& basis, const TracedStep& step) {
  std::vector<std::vector<double>> seconds = moving_starts(basis.plan, view_ranks(basis.plan, basis.groups), step);
  for (std::size_t rank = 0; rank < seconds.size(); ++rank) {
    for (std::size_t i = 0; i < seconds[rank].size(); ++i)
      seconds[rank][i] = step.ranks[rank].end[i] - seconds[rank][i];
  }
  return seconds;
}

std::vector<std::vector<double>> moving_seconds(const plan::Plan& plan, const Simulation& predicted) {
  std::vector<std::size_t> first(plan.roles.size() + 1, 0);
  for (std::size_t role = 0; role < plan.roles.size(); ++role)
    first[role + 1] = first[role] + plan.roles[role].actions.size();
  COX_ENSURE(predicted.actions.size() == first.back(), predicted.actions.size(), first.back());
  std::vector<std::vector<double>> seconds(static_cast<std::size_t>(plan::num_ranks(plan)));
  for (std::size_t rank = 0; rank < seconds.size(); ++rank) {
    const std::size_t role = role_of(plan, plan::place_of(plan, static_cast<int>(rank)));
    for (std::size_t at = first[role]; at < first[role + 1]; ++at)
      seconds[rank].push_back(predicted.actions[at].end - predicted.actions[at].transfer_start);
  }
  return seconds;
}

std::vector<std::size_t> num_actions_by_rank(const plan::Plan& plan) {
  std::vector<std::size_t> counts;
  for (int rank = 0; rank < plan::num_ranks(plan); ++rank)
    counts.push_back(plan.roles[role_of(plan, plan::place_of(plan, rank))].actions.size());
  return counts;
}

MeasuredTrace::MeasuredTrace(TraceBasis basis) : writer_(std::make_unique<Writer>(std::move(basis))) {}
MeasuredTrace::MeasuredTrace(MeasuredTrace&&) noexcept = default;
MeasuredTrace::~MeasuredTrace() = default;

void MeasuredTrace::add(const TracedStep& step) { writer_->add_step(step); }

std::string MeasuredTrace::text(JsonObject about) const { return writer_->text(std::move(about)); }

}  // namespace coxswain::cost_model
