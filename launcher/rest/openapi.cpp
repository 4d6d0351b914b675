#include "launcher/rest/openapi.h"

#include "common/ensure.h"
#include "common/json.h"
#include "launcher/job/job_schema.h"
#include "launcher/rest/embedded.h"

namespace coxswain::launcher {

const std::string& openapi_text() {
  static const std::string text = [] {
    auto document = parse_json(openapi_document());
    COX_ENSURE(document.has_value());
    Json schema = job_schema();
    schema.object()["description"] =
        "a job file as JSON, as docs/job.md has it. In a request to plan, a model is a configuration in the job, one "
        "that was sent (`{\"pt2\": \"sha256:HEX\"}`), or a file beneath the service's --root; in a request to run, "
        "checkpoint.directory and environment are left out";
    document->object()["components"].object()["schemas"].object()["JobFile"] = std::move(schema);
    return to_text(*document);
  }();
  return text;
}

}  // namespace coxswain::launcher
