#include "bench/support/disturber.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <sstream>
#include <thread>

#include "bench/support/bench.h"
#include "bench/support/processes.h"
#include "bench/support/rank_faults.h"
#include "bench/support/waits.h"
#include "common/bytes_io.h"

namespace coxswain::bench {
namespace {

constexpr double kSignSeconds = 60;    // a run that does not go on within this is at fault
constexpr double kAloneSeconds = 150;  // and is given up after this: by then it has said itself what it waited for
constexpr double kUsedSeconds = 10;    // a node that is back is used within this, if it helps
constexpr double kTrainsLookSeconds = 0.1;
constexpr double kMostThenSeconds = 1.5;  // between two faults of one kind

/// One of the words that '|' divides.
bool names_one_of(const std::string& text, const std::string& words) {
  std::stringstream in(words);
  for (std::string word; std::getline(in, word, '|');)
    if (text.find(word) != std::string::npos) return true;
  return false;
}

/// The thread that has worked most: of a rank the one that computes.
int busiest_thread(int pid) {
  int busiest = pid;
  double most = -1;
  for (const auto& [id, thread] : threads_of(pid)) {
    if (thread.seconds <= most) continue;
    most = thread.seconds;
    busiest = id;
  }
  return busiest;
}

}  // namespace

Disturber::Disturber(const RunSettings& settings, const FaultPlan& plan, std::vector<FaultKind>& deck,
                     std::mt19937_64& random, NodeRun& run)
    : settings_(settings), plan_(plan), deck_(deck), random_(random), run_(run), struck_(steady_clock().now()) {}

bool Disturber::still_lives() const { return lives(run_.launches.front()); }

bool Disturber::disturb() {
  wait_for_turn();
  if (!still_lives()) return false;
  const FaultKind kind = next_kind();
  // What needs a generation waits for one that steps. Before there is a plan a run writes nothing, so that what it
  // makes of a fault then cannot be timed.
  const bool trains = count_events(run_.run(), "generation_started") > 0;
  if (!trains && kind.victim != Victim::Coordinator) {
    wait(kTrainsLookSeconds);
    return still_lives();
  }
  deck_.pop_back();
  struck_ = steady_clock().now();
  damaged_step_ = -1;
  const bool goes_on = make(kind) && still_lives();
  std::printf("  %-22s over after %5.2f s, step %d\n", kind.name, seconds_since(struck_), count_steps(run_.run()));
  std::fflush(stdout);
  return goes_on;
}

void Disturber::wait_for_turn() {
  if (plan_.every_seconds <= 0) return wait(std::exponential_distribution<double>(1 / plan_.pause_seconds)(random_));
  const double turn = plan_.every_seconds * std::uniform_real_distribution<double>(0.5, 1.5)(random_);
  while (still_lives() && seconds_since(struck_) < turn) wait(kLookSeconds);
}

const FaultKind& Disturber::next_kind() {
  if (deck_.empty()) {
    deck_ = plan_.kinds;
    std::shuffle(deck_.begin(), deck_.end(), random_);
  }
  return deck_.back();
}

bool Disturber::make(const FaultKind& kind) {
  switch (kind.act) {
    case Act::FullDisk: return fill_disk(kind);
    case Act::SlowRank:
    case Act::SlowLink: return slow_down(kind);
    case Act::JumpClock: return jump_clock(kind);
    case Act::Stop: return stop_run(kind);
    case Act::TakenPort:
    case Act::DuplicateAgent: return intrude(kind);
    case Act::FlipCheckpoint:
    case Act::TearCheckpoint: return !damage_checkpoint(kind.act) || fail(kind);
    default: return fail(kind);
  }
}

/// A rank, a node or the coordinator fails, and the run goes on without an act of ours.
bool Disturber::fail(const FaultKind& kind) {
  const std::string sign = kind.sign;
  const int before = count_events(run_.run(), sign);
  const bool trains = count_events(run_.run(), "generation_started") > 0;
  if (!strike(kind.victim, kind.act, kind.signal)) return still_lives();
  struck_ = steady_clock().now();
  if (kind.then != Victim::None) {
    wait(std::uniform_real_distribution<double>(0, kMostThenSeconds)(random_));
    const int rank = struck_rank_;
    strike(kind.then, Act::Signal, SIGKILL);
    struck_rank_ = rank;
  }
  const bool went_on = await(sign, before, kind);
  ++result_.made[kind.name];
  if (went_on && trains) result_.seconds[kind.name].push_back(seconds_since(struck_));
  // A fault in a run's last steps has nothing to go on with.
  if (went_on && kind.cause != nullptr) check_cause(kind);
  if (cut_ > 0) end_lost_network();
  if (!still_lives()) return false;
  if (kind.returns || (plan_.nodes_return && (loses_node(kind) || kind.then == Victim::Node))) return_node();
  return still_lives();
}

/// False: the run ended, or does not go on and was ended.
bool Disturber::await(const std::string& event, int before, const FaultKind& kind) {
  bool late = false;
  while (count_events(run_.run(), event) == before) {
    if (!still_lives()) return false;
    if (!late && seconds_since(struck_) > kSignSeconds) {
      late = true;
      judge(kind, false, "no " + event + " within 60 s");
      write_waits();
    }
    if (seconds_since(struck_) > kAloneSeconds) {
      kill(run_.launches.front(), SIGKILL);
      return false;
    }
    wait(kLookSeconds);
  }
  return true;
}

/// What every thread of the run waits for, beside its files.
void Disturber::write_waits() const {
  std::string text;
  for (const int launch : run_.launches)
    if (lives(launch))
      for (const int pid : family_of(launch)) text += waits_of(pid);
  static_cast<void>(write_file(run_.folder / "waits.txt", text));
}

bool Disturber::strike(Victim victim, Act act, int signal) {
  if (act == Act::CutNetwork || act == Act::HalfOpen) return lose_network(act);
  const bool whole_node = victim == Victim::Node || victim == Victim::Agent;
  std::vector<int> pids;
  const bool from_within = act == Act::Exit || act == Act::Throw || act == Act::LimitMemory;
  for (std::size_t node = 0; node < run_.launches.size(); ++node) {
    if (whole_node && node == 0) continue;  // not yet: the first node's own end
    if (!lives(run_.launches[node])) continue;
    for (const int pid : victims_of(run_.launches[node], victim))
      // One that only begins would end by the signal itself.
      if (!from_within || catches(pid, rank_fault_signals().throws)) pids.push_back(pid);
  }
  if (pids.empty()) return false;
  const int pid = pids[random_() % pids.size()];
  result_.lost_nodes = result_.lost_nodes || whole_node;
  struck_rank_ = victim == Victim::Rank ? rank_of(pid) : -1;
  if (!whole_node) return strike_process(act, pid, signal);
  result_.killed_nodes.insert(pid);
  const std::vector<int> all = victim == Victim::Node ? family_of(pid) : std::vector<int>{pid};
  for (const int one : all) kill(one, signal);
  return true;
}

bool Disturber::strike_process(Act act, int pid, int signal) const {
  const RankFaultSignals own = rank_fault_signals();
  if (act == Act::Exit) return kill(pid, own.exit) == 0;
  if (act == Act::Throw) return syscall(SYS_tgkill, pid, busiest_thread(pid), own.throws) == 0;
  if (act != Act::LimitMemory) return kill(pid, signal) == 0;
  rlimit limit{};
  if (prlimit(pid, RLIMIT_AS, nullptr, &limit) != 0) return false;
  limit.rlim_cur = 1 << 20;  // far less than it has: nothing more is mapped
  return prlimit(pid, RLIMIT_AS, &limit, nullptr) == 0 && syscall(SYS_tgkill, pid, busiest_thread(pid), own.grows) == 0;
}

void Disturber::judge(const FaultKind& kind, bool right, const std::string& what) {
  ++result_.judged[kind.name];
  result_.right[kind.name] += right ? 1 : 0;
  if (right) return;
  result_.wrong.push_back(std::string(kind.name) + ": " + what);
  std::printf("  %s: %s\n", kind.name, what.c_str());
}

void Disturber::check_cause(const FaultKind& kind) {
  const Json failure = last_event(run_.run(), {"worker_failed", "node_lost"});
  const std::string cause = failure.is_object() && failure["cause"].is_string() ? failure["cause"].string() : "";
  const bool who = failure.is_object() && (struck_rank_ < 0 ? failure["type"] == Json("node_lost")
                                                            : failure["type"] == Json("worker_failed") &&
                                                                  failure["rank"] == Json(struck_rank_));
  // Where others hold a copy of what was damaged, on a disk or in memory, that one is taken.
  const Json generation = last_event(run_.run(), {"generation_started"});
  const bool silent = settings_.apart == nullptr && damaged_step_ >= 0 &&
                      generation["after_step"] == Json(damaged_step_) && generation["from"] != Json("memory") &&
                      count_events(run_.run(), "checkpoint_rejected") == 0;
  judge(kind, who && names_one_of(cause, kind.cause) && !silent,
        silent ? "a damaged checkpoint was taken"
               : "rank " + std::to_string(struck_rank_) + " (-1: the node) was named " + to_text(failure));
}

/// Not the first, which the others are told by; 0: none.
int Disturber::living_node() {
  std::vector<int> nodes;
  for (int node = 1; node < settings_.nodes; ++node)
    if (lives(run_.launches[static_cast<std::size_t>(node)])) nodes.push_back(node);
  return nodes.empty() ? 0 : nodes[random_() % nodes.size()];
}

/// A node that nobody reaches ends its ranks by itself; it goes on as a killed one would.
bool Disturber::lose_network(Act act) {
  const int node = settings_.apart == nullptr ? 0 : living_node();
  if (node == 0) return false;
  struck_rank_ = -1;
  cut_ = node;
  if (act == Act::CutNetwork)
    settings_.apart->cut(node);
  else
    settings_.apart->deafen(node);
  result_.lost_nodes = true;
  return true;
}

/// Once the others go on it is ended, so that the next run finds the network whole.
void Disturber::end_lost_network() {
  const int launch = run_.launches[static_cast<std::size_t>(cut_)];
  result_.killed_nodes.insert(launch);
  kill(launch, SIGKILL);
  settings_.apart->join(cut_);
  settings_.apart->mend(cut_);
  cut_ = 0;
  while (lives(launch)) wait(kLookSeconds);
}

/// The node that was killed last starts again, and the run moves to a plan with it, unless it ends before.
void Disturber::return_node() {
  std::vector<int>& launches = run_.launches;
  const std::string sign = "generation_started";
  const auto killed = std::find_if(launches.begin() + 1, launches.end(), [](int launch) { return !lives(launch); });
  if (killed == launches.end()) return;
  static_cast<void>(wait_process(*killed, 10));
  const auto node = static_cast<int>(killed - launches.begin());
  std::error_code ignored;
  // Of the one that was killed, which took its temporary files with it.
  std::filesystem::remove_all(temporary_of(run_.folder, std::to_string(node)), ignored);
  const int before = count_events(run_.run(), sign);
  const TimePoint began = steady_clock().now();
  *killed = start_node(settings_, run_, node);
  while (still_lives() && seconds_since(began) < kUsedSeconds && count_events(run_.run(), sign) == before)
    wait(kLookSeconds);
  if (count_events(run_.run(), sign) > before) result_.used_again.push_back(seconds_since(began));
  if (still_lives()) return;
  result_.killed_nodes.insert(*killed);  // it came too late
  kill(*killed, SIGKILL);
}

}  // namespace coxswain::bench
