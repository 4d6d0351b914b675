#include "launcher/rest/trace_context.h"

#include <catch2/catch.hpp>

using namespace coxswain::launcher;

namespace {

// The example of the recommendation, section 3.2.2.
const std::string kTrace = "0af7651916cd43dd8448eb211c80319c", kParent = "b7ad6b7169203331";

}  // namespace

TEST_CASE("a caller's trace goes on, under a span of ours", "[trace_context]") {
  const TraceContext sampled = continue_trace("00-" + kTrace + "-" + kParent + "-01");
  CHECK(sampled.trace_id == kTrace);
  CHECK(sampled.sampled);
  CHECK(sampled.span_id.size() == 16);
  CHECK(sampled.span_id != kParent);
  CHECK(to_text(sampled) == "00-" + kTrace + "-" + sampled.span_id + "-01");
  CHECK_FALSE(continue_trace("00-" + kTrace + "-" + kParent + "-00").sampled);
  CHECK(continue_trace("cc-" + kTrace + "-" + kParent + "-01-more").trace_id == kTrace);  // of a later version
}

TEST_CASE("what is no trace begins one", "[trace_context]") {
  for (const std::string& text :
       {std::string(), std::string("00"), "00-" + kTrace + "-" + kParent, "ff-" + kTrace + "-" + kParent + "-01",
        "00-" + std::string(32, '0') + "-" + kParent + "-01", "00-" + kTrace + "-" + std::string(16, '0') + "-01",
        "00-" + kTrace + "-" + kParent + "-01-more", "00-" + kTrace + "-" + kParent + "-0g",
        "00_" + kTrace + "-" + kParent + "-01", "00-0AF7651916cd43dd8448eb211c80319c-" + kParent + "-01"}) {
    const TraceContext trace = continue_trace(text);
    INFO(text);
    CHECK(trace.trace_id != kTrace);
    CHECK(trace.trace_id.size() == 32);
    CHECK_FALSE(trace.sampled);
  }
  CHECK(continue_trace("").trace_id != continue_trace("").trace_id);
}
