#include "launcher/control/haste.h"

#include "launcher/control/liveness.h"
#include "proto/control.pb.h"

namespace coxswain::launcher {

Haste ReportHaste::of(std::string_view body, TimePoint now) {
  control::WorkerReport report;
  if (!report.ParseFromArray(body.data(), static_cast<int>(body.size()))) return Haste::AtOnce;
  if (report.has_parked()) old_from_.reset();  // the process goes on in another generation
  if (!report.has_step()) return Haste::AtOnce;
  if (!old_from_) old_from_ = after(now, kYoungSeconds);
  return now < *old_from_ ? Haste::AtOnce : Haste::WithNextBeat;
}

}  // namespace coxswain::launcher
