#include "launcher/control/agent_lines.h"

#include <algorithm>
#include <memory>

#include "common/exit_code.h"
#include "launcher/control/liveness.h"
#include "proto/control.pb.h"
#include "proto/time_limits.h"

namespace coxswain::launcher {
namespace {

/// 0: it is no report of a step.
std::int64_t step_of(const std::string& body) {
  control::AgentReport report;
  return report.ParseFromString(body) ? report.worker().report().step().step() : 0;
}

std::string taken_for_lost() {
  control::AgentCommand command;
  const Error error{ErrorCode::Unavailable,
                    "this node was taken for lost while it could not be heard",
                    "",
                    "a heartbeat at least every 2 s",
                    "silence",
                    "see the output of node 0; start it again"};
  command.mutable_over()->set_exit_code(static_cast<int>(exit_code_for(error.code)));
  command.mutable_over()->set_text(to_text(error));
  return command.SerializeAsString();
}

}  // namespace

int AgentLines::open(proto::Stream& stream) {
  const std::lock_guard lock(mutex_);
  streams_[next_line_] = &stream;
  return next_line_++;
}

void AgentLines::close(int line) {
  const std::lock_guard lock(mutex_);
  streams_.erase(line);
}

void AgentLines::post(int line, std::string envelope) {
  const std::lock_guard lock(mutex_);
  if (const auto found = streams_.find(line); found != streams_.end()) found->second->send(std::move(envelope));
}

void AgentLines::post_all(int number) {
  Agent& agent = agents_.at(number);
  if (agent.line < 0) return;
  while (auto envelope = agent.mailbox.next()) post(agent.line, std::move(*envelope));
}

std::vector<Input> AgentLines::greet(int line, std::string_view envelope, TimePoint now) {
  Mailbox unknown;
  const auto letters = unknown.open(envelope);
  control::AgentReport report;
  if (letters.empty() || letters[0].number != 0 || !report.ParseFromString(letters[0].body) || !report.has_hello())
    return {};
  const auto found = known_.find(report.hello().agent_id());
  const int number = found != known_.end() ? found->second : next_agent_++;
  Agent& agent = agents_[number];
  if (agent.gone) {
    post(line, agent.mailbox.notice(taken_for_lost()));
    return {};
  }
  if (!pause_.looked()) pause_.look(now);
  agent.line = line;
  agent.back_by.reset();
  agent.doubts = false;
  agent.expected = false;
  lines_.insert_or_assign(line, Line{number, Silence(silence_seconds_, now)});
  if (found == known_.end()) {
    known_[report.hello().agent_id()] = number;
    return {Input{InputKind::AgentReport, now, number, 0, 0, letters[0].body}};
  }
  agent.mailbox.open(envelope);  // says what the agent took
  agent.mailbox.send_again();
  post_all(number);
  return {};
}

std::vector<Input> AgentLines::receive(int line, std::string_view envelope, TimePoint now) {
  const auto found = lines_.find(line);
  if (found == lines_.end()) return greet(line, envelope, now);
  found->second.silence.heard(now);
  const int number = found->second.agent;
  Agent& agent = agents_.at(number);
  if (agent.line != line) return {};  // an older connection of an agent that has a newer one
  auto letters = agent.mailbox.open(envelope);
  post_all(number);  // what it took makes room for more
  std::vector<Input> inputs;
  for (Mailbox::Letter& letter : letters) {
    if (letter.number == 0) agent.doubts = letter.body == agent_doubts();
    if (letter.number <= agent.heard) continue;
    agent.heard = letter.number;
    const std::int64_t step = step_of(letter.body);
    inputs.push_back({InputKind::AgentReport, now, number, letter.number, step, std::move(letter.body)});
  }
  return inputs;
}

void AgentLines::ended(int line, TimePoint now) {
  const auto found = lines_.find(line);
  if (found == lines_.end()) return;
  const Line was = found->second;
  lines_.erase(found);
  Agent& agent = agents_.at(was.agent);
  if (agent.line != line) return;  // it has a newer one
  // Who was not heard while this process stood still may have hung up for that, and comes back.
  const bool silent = was.silence.too_long(now) && !pause_.stood_still(now);
  agent.line = -1;
  agent.why = silent ? "its agent fell silent" : "its agent died";
  agent.back_by = silent ? now : after(now, agent.doubts ? limits::kHungUpBack : limits::kAgentBack);
  look_at_ = std::min(look_at_, *agent.back_by);
}

void AgentLines::took(const Input& input) {
  if (input.kind == InputKind::AgentGone) took_gone(agents_[input.agent]);
  if (input.kind != InputKind::AgentReport) return;
  if (input.number > 0) return took_report(input.agent, input.number);
  control::AgentReport report;
  if (!report.ParseFromString(input.body)) return;
  known_[report.hello().agent_id()] = input.agent;
  agents_[input.agent];
  next_agent_ = std::max(next_agent_, input.agent + 1);
}

/// One that came back just after it was given up is told so, as it would be on the next connection.
void AgentLines::took_gone(Agent& agent) {
  agent.gone = true;
  agent.back_by.reset();
  if (agent.line < 0) return;
  post(agent.line, agent.mailbox.notice(taken_for_lost()));
  lines_.erase(agent.line);
  agent.line = -1;
}

void AgentLines::send(const std::vector<int>& agents, std::string body) {
  const auto shared = std::make_shared<const std::string>(std::move(body));
  for (const int agent : agents) {
    agents_[agent].mailbox.add(shared);
    post_all(agent);
  }
}

void AgentLines::beat(TimePoint now) {
  const bool paused = pause_.stood_still(now);
  pause_.look(now);
  if (paused)
    for (auto& [number, agent] : agents_) {
      if (agent.back_by) agent.back_by = std::max(*agent.back_by, after(now, limits::kAgentBack));
    }
  for (auto& [line, held] : lines_) {
    if (paused) held.silence.heard(now);
    post(line, agents_.at(held.agent).mailbox.notice(coordinator_heartbeat()));
    if (!held.silence.too_long(now)) continue;
    const std::lock_guard lock(mutex_);
    if (const auto found = streams_.find(line); found != streams_.end()) found->second->cancel();
  }
}

void AgentLines::expect_back(TimePoint at) {
  for (auto& [number, agent] : agents_) {
    if (agent.gone) continue;
    agent.back_by = at;
    agent.expected = true;
    agent.why = "its agent did not come back after the coordinator did";
  }
  look_at_ = std::min(look_at_, at);
}

std::vector<Input> AgentLines::not_back(TimePoint now) {
  std::vector<Input> inputs;
  if (now < look_at_) return inputs;  // asked for after each message
  look_at_ = TimePoint::max();
  for (auto& [number, agent] : agents_) {
    if (!agent.back_by) continue;
    if (now < *agent.back_by) {
      look_at_ = std::min(look_at_, *agent.back_by);
      continue;
    }
    agent.back_by.reset();
    inputs.push_back({InputKind::AgentGone, now, number, 0, 0, agent.why});
  }
  return inputs;
}

std::map<int, std::uint64_t> AgentLines::taken() const {
  std::map<int, std::uint64_t> numbers;
  for (const auto& [number, agent] : agents_) numbers[number] = agent.mailbox.taken();
  return numbers;
}

void AgentLines::took(const StepsTaken& taken) {
  for (const auto& [number, report] : taken.taken) took_report(number, report);
}

void AgentLines::took_report(int number, std::uint64_t report) {
  Agent& agent = agents_[number];
  agent.mailbox.took(std::max(report, agent.mailbox.taken()));
  agent.heard = std::max(agent.heard, report);
}

std::size_t AgentLines::num_agents() const {
  return static_cast<std::size_t>(
      std::count_if(agents_.begin(), agents_.end(), [](const auto& entry) { return !entry.second.gone; }));
}

bool AgentLines::all_hung_up() {
  const std::lock_guard lock(mutex_);
  return streams_.empty() && std::none_of(agents_.begin(), agents_.end(), [](const auto& entry) {
           return entry.second.expected && !entry.second.gone;
         });
}

}  // namespace coxswain::launcher
