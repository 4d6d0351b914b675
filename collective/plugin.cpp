#include "collective/plugin.h"

#include <dlfcn.h>

#include <filesystem>

namespace coxswain::collective {
namespace {

Result<std::filesystem::path> find_plugin(const std::string& name, const std::string& hint) {
  std::error_code failure;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", failure);
  const std::string file = "coxswain_" + name + ".so";
  const std::filesystem::path folder = program.parent_path();
  for (const auto& candidate : {folder / file, folder.parent_path() / "lib" / file}) {
    if (std::filesystem::exists(candidate, failure)) return candidate;
  }
  return Error{ErrorCode::FailedPrecondition,
               "the " + name + " backend is not installed",
               file,
               "in the folder of the program or its ../lib",
               "no such file",
               hint};
}

template <class Function>
Function symbol(void* library, const char* name) {
  return reinterpret_cast<Function>(::dlsym(library, name));
}

}  // namespace

Result<Plugin> load_plugin(const std::string& name, const std::string& hint) {
  COX_TRY(const std::filesystem::path path, find_plugin(name, hint));
  // Never closed: an MPI or NCCL that has started threads cannot be unloaded.
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = ::dlerror();
    return Error{ErrorCode::FailedPrecondition,
                 "the " + name + " backend cannot be loaded",
                 path.string(),
                 "",
                 reason == nullptr ? "" : reason,
                 hint};
  }
  const auto version = symbol<Plugin::Version>(library, "coxswain_plugin_version");
  const Plugin plugin{symbol<Plugin::Open>(library, "coxswain_plugin_open"),
                      symbol<Plugin::Usable>(library, "coxswain_plugin_usable")};
  if (version == nullptr || version() != kPluginVersion || plugin.open == nullptr || plugin.usable == nullptr) {
    return Error{ErrorCode::FailedPrecondition,
                 "the " + name + " backend is of another build",
                 path.string(),
                 "version " + std::to_string(kPluginVersion),
                 version == nullptr ? "none" : std::to_string(version()),
                 "build and install all programs together"};
  }
  return plugin;
}

}  // namespace coxswain::collective
