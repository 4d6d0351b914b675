#pragma once
// Private to cost_model/: the words that the traces of a plan and of a run share. Chrome's trace-event format, which
// Perfetto reads. Threads: pure.
#include <string>

#include "common/json.h"
#include "plan/program.h"

namespace coxswain::cost_model {

/// "activations in", ... : the name of a stream's thread.
[[nodiscard]] std::string_view stream_name(plan::Stream stream);
/// How many of the streams the plan can use: those that lead back only where a stage has chunks.
[[nodiscard]] bool shows_stream(const plan::Plan& plan, plan::Stream stream);
/// "blocks 0-3 8-11"
[[nodiscard]] std::string blocks_text(const plan::Stage& stage);
/// `kind`: "process_name", "thread_name".
[[nodiscard]] Json name_event(const char* kind, int process, int thread, std::string name);

}  // namespace coxswain::cost_model
