#include "launcher/control/liveness.h"

#include "proto/control.pb.h"
#include "proto/error_json.h"

namespace coxswain::launcher {

std::string agent_heartbeat() {
  control::AgentReport report;
  report.mutable_heartbeat();
  return report.SerializeAsString();
}

std::string agent_doubts() {
  control::AgentReport report;
  report.mutable_doubts();
  return report.SerializeAsString();
}

std::string coordinator_heartbeat() {
  control::AgentCommand command;
  command.mutable_heartbeat();
  return command.SerializeAsString();
}

std::string agent_error_report(const Error& error) {
  control::AgentReport report;
  report.set_error_json(proto::error_to_text(error));
  return report.SerializeAsString();
}

}  // namespace coxswain::launcher
