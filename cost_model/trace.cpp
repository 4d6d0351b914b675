// Chrome's trace-event format, which Perfetto reads: one process a role, one thread a stream.
#include "cost_model/cost_model.h"
#include "plan/program.h"

namespace coxswain::cost_model {
namespace {

std::string_view stream_name(plan::Stream stream) {
  switch (stream) {
    case plan::Stream::Compute: return "compute";
    case plan::Stream::ActivationIn: return "activations in";
    case plan::Stream::ActivationOut: return "activations out";
    case plan::Stream::GradientIn: return "gradients in";
    case plan::Stream::GradientOut: return "gradients out";
    case plan::Stream::Reduce: return "reduce";
  }
  return "";
}

Json name_event(const char* kind, int process, int thread, std::string name) {
  return JsonObject{
      {"args", JsonObject{{"name", std::move(name)}}}, {"name", kind}, {"ph", "M"}, {"pid", process}, {"tid", thread}};
}

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
    const std::string name =
        "stage " + std::to_string(shape.stage) + " blocks " + std::to_string(stage.first_block) + "-" +
        std::to_string(stage.end_block - 1) + ", " + std::to_string(shape.replicas.size()) + " x " +
        std::to_string(stage.replicas[static_cast<std::size_t>(shape.replicas.front())].samples) + " samples";
    events.push_back(name_event("process_name", static_cast<int>(role), 0, name));
    for (int stream = 0; stream < plan::kNumStreams; ++stream) {
      events.push_back(name_event("thread_name", static_cast<int>(role), stream,
                                  std::string(stream_name(static_cast<plan::Stream>(stream)))));
    }
  }
  for (const SimulatedAction& at : simulation.actions) {
    const plan::Action& action =
        plan.roles[static_cast<std::size_t>(at.role)].actions[static_cast<std::size_t>(at.action)];
    const int stream = static_cast<int>(plan::stream_of(action.kind));
    if (at.transfer_start > at.start)
      events.push_back(span_event("wait " + plan::to_text(action), at.role, stream, at.start, at.transfer_start));
    events.push_back(span_event(plan::to_text(action), at.role, stream, at.transfer_start, at.end));
  }
  return to_text(JsonObject{{"displayTimeUnit", "ms"}, {"traceEvents", std::move(events)}});
}

}  // namespace coxswain::cost_model
