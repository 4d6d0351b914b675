// Chrome's trace-event format, which Perfetto reads: one process a role, one thread a stream.
#include <algorithm>

#include "cost_model/cost_model.h"
#include "cost_model/trace_events.h"
#include "plan/program.h"

namespace coxswain::cost_model {

std::string_view stream_name(plan::Stream stream) {
  switch (stream) {
    case plan::Stream::Compute: return "compute";
    case plan::Stream::ActivationIn: return "activations in";
    case plan::Stream::ActivationOut: return "activations out";
    case plan::Stream::GradientIn: return "gradients in";
    case plan::Stream::GradientOut: return "gradients out";
    case plan::Stream::Reduce: return "reduce";
    case plan::Stream::BackActivationIn: return "activations in, back";
    case plan::Stream::BackActivationOut: return "activations out, back";
    case plan::Stream::BackGradientIn: return "gradients in, back";
    case plan::Stream::BackGradientOut: return "gradients out, back";
    case plan::Stream::Gather: return "gather";
  }
  return "";
}

bool shows_stream(const plan::Plan& plan, plan::Stream stream) {
  switch (stream) {
    case plan::Stream::BackActivationIn:
    case plan::Stream::BackActivationOut:
    case plan::Stream::BackGradientIn:
    case plan::Stream::BackGradientOut: return plan::num_parts(plan) > static_cast<int>(plan.stages.size());
    case plan::Stream::Gather:
      return std::any_of(plan.stages.begin(), plan.stages.end(),
                         [](const plan::Stage& stage) { return stage.zero_stage > 0; });
    default: return true;
  }
}

std::string blocks_text(const plan::Stage& stage) {
  std::string blocks = "blocks";
  for (const plan::BlockRun& run : plan::runs_of(stage))
    blocks += " " + std::to_string(run.first_block) + "-" + std::to_string(run.end_block - 1);
  return blocks;
}

Json name_event(const char* kind, int process, int thread, std::string name) {
  return JsonObject{
      {"args", JsonObject{{"name", std::move(name)}}}, {"name", kind}, {"ph", "M"}, {"pid", process}, {"tid", thread}};
}

namespace {

Json span_event(std::string name, int process, int thread, double start, double end) {
  constexpr double kMicroseconds = 1e6;
  return JsonObject{
      {"dur", (end - start) * kMicroseconds}, {"name", std::move(name)}, {"ph", "X"}, {"pid", process}, {"tid", thread},
      {"ts", start * kMicroseconds}};
}

}  // namespace

std::string to_chrome_trace(const plan::Plan& plan, const Simulation& simulation) {
  JsonArray events;
  for (std::size_t role = 0; role < plan.roles.size(); ++role) {
    const plan::Role& shape = plan.roles[role];
    const plan::Stage& stage = plan.stages[static_cast<std::size_t>(shape.stage)];
    const std::string name = "stage " + std::to_string(shape.stage) + " " + blocks_text(stage) + ", " +
                             std::to_string(shape.replicas.size()) + " x " +
                             std::to_string(stage.replicas[static_cast<std::size_t>(shape.replicas.front())].samples) +
                             " samples";
    events.push_back(name_event("process_name", static_cast<int>(role), 0, name));
    for (int stream = 0; stream < plan::kNumStreams; ++stream) {
      if (!shows_stream(plan, static_cast<plan::Stream>(stream))) continue;
      events.push_back(name_event("thread_name", static_cast<int>(role), stream,
                                  std::string(stream_name(static_cast<plan::Stream>(stream)))));
    }
  }
  for (const SimulatedAction& at : simulation.actions) {
    const plan::Action& action =
        plan.roles[static_cast<std::size_t>(at.role)].actions[static_cast<std::size_t>(at.action)];
    const int stage = plan.roles[static_cast<std::size_t>(at.role)].stage;
    const int stream = static_cast<int>(plan::stream_of(plan, stage, action));
    if (at.transfer_start > at.start)
      events.push_back(span_event("wait " + plan::to_text(action), at.role, stream, at.start, at.transfer_start));
    events.push_back(span_event(plan::to_text(action), at.role, stream, at.transfer_start, at.end));
  }
  return to_text(JsonObject{{"displayTimeUnit", "ms"}, {"traceEvents", std::move(events)}});
}

}  // namespace coxswain::cost_model
