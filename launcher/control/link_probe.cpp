#include "launcher/control/link_probe.h"

#include "common/clock.h"
#include "proto/control.pb.h"
#include "proto/error_json.h"
#include "proto/file_exchange.h"

namespace coxswain::launcher {

bool LinkProbe::take(std::string_view bytes) {
  constexpr double kLimitSeconds = 30;
  control::AgentCommand command;
  if (!command.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) || !command.has_measure_link())
    return false;
  thread_ = {};  // the one before ends
  thread_ = std::jthread([this, address = command.measure_link().files_address()](const std::stop_token& stop) {
    const auto rate = guard("launcher", [&] {
      return proto::measure_link(address, secret_, stop, Deadline::after(steady_clock(), Seconds(kLimitSeconds)));
    });
    if (stop.stop_requested()) return;  // nobody wants to know
    control::AgentReport report;
    control::LinkMeasured& link = *report.mutable_link();
    if (rate) {
      link.set_latency_seconds(rate->latency.value);
      link.set_bytes_per_second(rate->bandwidth.value);
    } else {
      link.set_error_json(proto::error_to_text(rate.error()));
    }
    report_(report.SerializeAsString());
  });
  return true;
}

}  // namespace coxswain::launcher
