#pragma once
// W3C trace context: which trace of the caller's a request belongs to, so that its line in our log is found from there.
// Called by the service. Threads: pure but for random numbers. Source: https://www.w3.org/TR/trace-context/ (level 1:
// traceparent; level 2: traceresponse).
#include <string>

namespace coxswain::launcher {

struct TraceContext {
  std::string trace_id;  // 32 hex digits
  std::string span_id;   // 16 hex digits, of our part
  bool sampled = false;
};
/// Of a `traceparent` header; a trace of its own where there is none, or none that can be read.
[[nodiscard]] TraceContext continue_trace(const std::string& traceparent);
/// "00-TRACE-SPAN-01", as `traceresponse` has it.
[[nodiscard]] std::string to_text(const TraceContext& trace);

}  // namespace coxswain::launcher
