#include "common/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <mutex>
#include <string>

#include "common/clock.h"
#include "common/env.h"
#include "common/json.h"

namespace coxswain {
namespace {

struct LogState {
  std::mutex mutex;
  std::string name;
  bool as_json = false;
  std::shared_ptr<spdlog::logger> logger;

  LogState() {
    // Not registered with spdlog: this process has one logger, owned here, whatever else uses the library.
    logger = std::make_shared<spdlog::logger>("coxswain", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    as_json = env("COX_LOG_FORMAT") == "json";
    logger->set_pattern(as_json ? "%v" : "%H:%M:%S.%e %^%l%$ %v");
    logger->flush_on(spdlog::level::trace);
  }
};

LogState& state() {
  // Never destroyed: threads may log while the process ends.
  static LogState* const kState = new LogState;
  return *kState;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::Debug: return spdlog::level::debug;
    case LogLevel::Info: return spdlog::level::info;
    case LogLevel::Warn: return spdlog::level::warn;
    case LogLevel::Error: return spdlog::level::err;
  }
  return spdlog::level::err;
}

const char* level_name(LogLevel level) {
  switch (level) {
    case LogLevel::Debug: return "debug";
    case LogLevel::Info: return "info";
    case LogLevel::Warn: return "warning";
    case LogLevel::Error: return "error";
  }
  return "error";
}

}  // namespace

void log(LogLevel level, std::string_view component, std::string_view text) {
  LogState& log_state = state();
  std::string name;
  {
    const std::lock_guard lock(log_state.mutex);
    name = log_state.name;
  }
  if (log_state.as_json) {
    const Json line = JsonObject{{"time", steady_clock().utc_text()},
                                 {"level", level_name(level)},
                                 {"process", name},
                                 {"component", component},
                                 {"message", text}};
    log_state.logger->log(to_spdlog(level), to_text(line));
    return;
  }
  std::string line = name.empty() ? "" : "[" + name + "] ";
  line.append(component).append(": ").append(text);
  log_state.logger->log(to_spdlog(level), line);
}

void set_log_level(LogLevel level) { state().logger->set_level(to_spdlog(level)); }

void set_log_name(std::string_view name) {
  LogState& log_state = state();
  const std::lock_guard lock(log_state.mutex);
  log_state.name = name;
}

}  // namespace coxswain
