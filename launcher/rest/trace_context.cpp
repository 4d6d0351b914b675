#include "launcher/rest/trace_context.h"

#include "common/hash.h"

namespace coxswain::launcher {
namespace {

constexpr std::size_t kTraceDigits = 32, kSpanDigits = 16;

bool is_id(const std::string& text, std::size_t digits) {
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == std::string::npos &&
         text.find_first_not_of('0') != std::string::npos;
}

/// "VERSION-TRACE-PARENT-FLAGS"; a later version may have more behind that. Empty: not to be read.
std::string trace_of(const std::string& text) {
  constexpr std::size_t kTrace = 3, kParent = kTrace + kTraceDigits + 1, kFlags = kParent + kSpanDigits + 1;
  constexpr std::size_t kSize = kFlags + 2;
  const bool later = text.substr(0, 2) != "00";
  if (text.size() < kSize || (text.size() > kSize && (!later || text[kSize] != '-'))) return "";
  if (text[kTrace - 1] != '-' || text[kParent - 1] != '-' || text[kFlags - 1] != '-') return "";
  const std::string digits = text.substr(0, 2) + text.substr(kFlags, 2);
  if (digits.find_first_not_of("0123456789abcdef") != std::string::npos || digits.starts_with("ff")) return "";
  std::string trace = text.substr(kTrace, kTraceDigits);
  return is_id(trace, kTraceDigits) && is_id(text.substr(kParent, kSpanDigits), kSpanDigits) ? trace : "";
}

}  // namespace

TraceContext continue_trace(const std::string& traceparent) {
  TraceContext trace{trace_of(traceparent), random_hex(kSpanDigits / 2), false};
  if (!trace.trace_id.empty())
    trace.sampled = ((traceparent[54] >= 'a' ? traceparent[54] - 'a' + 10 : traceparent[54] - '0') & 1) != 0;
  else
    trace.trace_id = random_hex(kTraceDigits / 2);
  return trace;
}

std::string to_text(const TraceContext& trace) {
  return "00-" + trace.trace_id + "-" + trace.span_id + (trace.sampled ? "-01" : "-00");
}

}  // namespace coxswain::launcher
