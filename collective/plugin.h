#pragma once
// Backends in shared libraries beside the program: loaded when first asked for, kept until the process ends.
// A plug-in `coxswain_NAME.so` exports the two C symbols below and is built with the program, from one source tree.
// Threads: any.
#include <memory>
#include <string>

#include "collective/backend.h"

namespace coxswain::collective {

/// Raised whenever a type that crosses the border changes.
inline constexpr int kPluginVersion = 1;

struct Plugin {
  /// `coxswain_plugin_version`
  using Version = int (*)();
  /// `coxswain_plugin_open`: fills `endpoint` or `error`.
  using Open = void (*)(const EndpointOptions& options, std::unique_ptr<Endpoint>& endpoint, Error& error);
  /// `coxswain_plugin_usable`: false, and why, when this machine or process cannot use it.
  using Usable = bool (*)(Error& error);

  Open open = nullptr;
  Usable usable = nullptr;
};

/// From the folder of the running program or its ../lib. Errors: FailedPrecondition with `hint` (how to get it).
[[nodiscard]] Result<Plugin> load_plugin(const std::string& name, const std::string& hint);

}  // namespace coxswain::collective
