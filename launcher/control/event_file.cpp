#include "launcher/control/event_file.h"

#include <boost/crc.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "common/ensure.h"
#include "proto/tensorboard.pb.h"

namespace coxswain::launcher {
namespace {

std::uint32_t masked_crc(const std::string& data) {
  boost::crc_optimal<32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, true, true> crc;  // Castagnoli
  crc.process_bytes(data.data(), data.size());
  const std::uint32_t value = crc.checksum();
  return ((value >> 15) | (value << 17)) + 0xa282ead8U;
}

/// The machine is little-endian, as everything else here requires.
template <class Number>
std::string bytes_of(Number number) {
  return {reinterpret_cast<const char*>(&number), sizeof number};
}

}  // namespace

double seconds_since_1970(const std::string& utc) {
  int year = 0, month = 0, day = 0, hour = 0, minute = 0;
  double second = 0;
  const int read = std::sscanf(utc.c_str(), "%d-%d-%dT%d:%d:%lfZ", &year, &month, &day, &hour, &minute, &second);
  COX_ENSURE(read == 6, utc);
  const std::chrono::sys_days date{std::chrono::year(year) / month / day};
  return static_cast<double>(date.time_since_epoch().count()) * 86400 + hour * 3600 + minute * 60 + second;
}

std::string event_record(const std::string& data) {
  const std::string length = bytes_of(static_cast<std::uint64_t>(data.size()));
  return length + bytes_of(masked_crc(length)) + data + bytes_of(masked_crc(data));
}

EventFile::EventFile(std::filesystem::path folder, const std::string& utc) {
  const double now = seconds_since_1970(utc);
  const std::string name = "events.out.tfevents." + std::to_string(static_cast<std::int64_t>(now)) + ".coxswain.";
  int number = 0;
  do file_ = folder / (name + std::to_string(number++));
  while (std::filesystem::exists(file_));
  tensorboard::Event event;
  event.set_wall_time(now);
  event.set_file_version("brain.Event:2");
  first_ = event_record(event.SerializeAsString());
}

Result<void> EventFile::add(std::int64_t step, const std::string& utc, const std::map<std::string, double>& values) {
  tensorboard::Event event;
  event.set_wall_time(seconds_since_1970(utc));
  event.set_step(step);
  for (const auto& [tag, value] : values) {
    auto& scalar = *event.mutable_summary()->add_value();
    scalar.set_tag(tag);
    scalar.set_simple_value(static_cast<float>(value));
  }
  return append(event_record(event.SerializeAsString()));
}

Result<void> EventFile::append(const std::string& event) {
  std::error_code code;
  if (!first_.empty()) std::filesystem::create_directories(file_.parent_path(), code);
  std::ofstream out(file_, std::ios::app | std::ios::binary);
  out << first_ << event;
  out.flush();
  if (!out)
    return Error{ErrorCode::FailedPrecondition, "cannot write TensorBoard's event file", file_.string(), "", "", ""};
  first_.clear();
  return {};
}

}  // namespace coxswain::launcher
