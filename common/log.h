#pragma once
// Logging to stderr without fmt or spdlog in the header (spdlog in log.cpp). Threads: any.
#include <string_view>

namespace coxswain {

enum class LogLevel { Debug, Info, Warn, Error };

/// A line for people, or with COX_LOG_FORMAT=json an object of time, level, process, component and message.
/// `component` is a folder or process ("agent", "worker 3"). Lines are whole; no secrets.
void log(LogLevel level, std::string_view component, std::string_view text);
void set_log_level(LogLevel level);
/// A prefix for every line of this process ("rank 3").
void set_log_name(std::string_view name);

}  // namespace coxswain
