#include "planner/problems/zero_bubble.h"

#include <cmath>
#include <string>

namespace coxswain::planner {
namespace {

constexpr std::int64_t kMaxDevices = 4096, kMaxMicroBatches = 1'000'000;

Error problem_at(std::string path, std::string expected, std::string got) {
  return {ErrorCode::InvalidArgument, "wrong value", std::move(path), std::move(expected), std::move(got), ""};
}

/// The times of one kind of work, one per device.
void read_seconds(JsonReader& reader, const std::string& key, Seconds plan::ZeroBubbleProblem::Device::* member,
                  std::vector<plan::ZeroBubbleProblem::Device>& devices) {
  const JsonArray& times = reader.array(key);
  if (times.size() != devices.size()) {
    if (reader.has(key))
      reader.problem(
          problem_at(key, std::to_string(devices.size()) + " numbers, one per device", std::to_string(times.size())));
    return;
  }
  for (std::size_t i = 0; i < times.size(); ++i) {
    if (times[i].is_number() && times[i].number() >= 0 && std::isfinite(times[i].number())) {
      devices[i].*member = Seconds(times[i].number());
    } else {
      reader.problem(problem_at(key + "[" + std::to_string(i) + "]", "a number, at least 0", to_text(times[i])));
    }
  }
}

std::string text_of(const plan::ZeroBubbleAction& action, bool with_chunk) {
  std::string text(1, action.kind == plan::ActionKind::Forward         ? 'F'
                      : action.kind == plan::ActionKind::BackwardInput ? 'B'
                                                                       : 'W');
  text += std::to_string(action.micro_batch);
  if (with_chunk) text += "." + std::to_string(action.chunk);
  return text;
}

void append(std::vector<Error>& problems, JsonReader& reader) {
  for (Error& problem : reader.take_problems()) problems.push_back(std::move(problem));
}

}  // namespace

Result<ZeroBubbleInstance> parse_zero_bubble(const Json& json, const std::filesystem::path&) {
  ZeroBubbleInstance instance;
  plan::ZeroBubbleProblem& problem = instance.problem;
  JsonReader reader(json, "instance");
  reader.any("id");
  problem.devices.resize(static_cast<std::size_t>(reader.integer("devices", 1, kMaxDevices)));
  problem.num_micro_batches = static_cast<int>(reader.integer("microbatches", 1, kMaxMicroBatches));
  problem.num_chunks = static_cast<int>(reader.integer("chunks_per_device", 1, 2));
  problem.communication = Seconds(reader.number("seconds_communication"));
  problem.memory_limit = reader.number("memory_limit");
  const Json& seconds = reader.object("seconds");
  const Json& memory = reader.object("memory");
  std::vector<Error> problems;
  append(problems, reader);
  if (seconds.is_object()) {
    JsonReader times(seconds, "instance.seconds");
    read_seconds(times, "F", &plan::ZeroBubbleProblem::Device::forward, problem.devices);
    read_seconds(times, "B", &plan::ZeroBubbleProblem::Device::input, problem.devices);
    read_seconds(times, "W", &plan::ZeroBubbleProblem::Device::weight, problem.devices);
    append(problems, times);
  }
  if (memory.is_object()) {
    JsonReader changes(memory, "instance.memory");
    problem.forward_memory = changes.number("F");
    problem.input_memory = changes.number("B");
    problem.weight_memory = changes.number("W");
    append(problems, changes);
  }
  if (!problems.empty())
    return combine_errors(ErrorCode::InvalidArgument, "the zero-bubble instance has problems", std::move(problems));
  return instance;
}

Result<ContestAnswer> solve_zero_bubble(const ZeroBubbleInstance& instance, const ContestOptions&) {
  COX_TRY(const plan::ZeroBubbleSchedule schedule, plan::make_zero_bubble_schedule(instance.problem));
  JsonArray devices;
  for (const auto& actions : schedule.order) {
    std::string text;
    for (const plan::ZeroBubbleAction& action : actions) {
      if (!text.empty()) text += ' ';
      text += text_of(action, instance.problem.num_chunks > 1);
    }
    devices.emplace_back(std::move(text));
  }
  ContestAnswer answer;
  answer.answer = JsonObject{{"devices", std::move(devices)}};
  answer.score = schedule.times.longest_span.value;
  answer.num_labels = schedule.num_candidates;
  return answer;
}

Result<ContestSolver> load_zero_bubble(const Json& instance, const std::filesystem::path& file) {
  COX_TRY(ZeroBubbleInstance parsed, parse_zero_bubble(instance, file));
  return ContestSolver(
      [parsed = std::move(parsed)](const ContestOptions& options) { return solve_zero_bubble(parsed, options); });
}

}  // namespace coxswain::planner
