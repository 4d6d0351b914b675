#include "cluster/nvml.h"

#include <dlfcn.h>

#include <memory>
#include <optional>

namespace coxswain::cluster {
namespace {

// The few declarations of NVML's stable interface that are used here; 0 is success.
using NvmlDevice = void*;
struct NvmlMemory {
  unsigned long long total, free, used;
};
constexpr unsigned kMaxNvlinks = 18;
constexpr unsigned kNameLength = 96;

struct CloseLibrary {
  void operator()(void* library) const { dlclose(library); }
};

class Nvml {
 public:
  /// The reason why it cannot be used, or nothing.
  std::optional<std::string> open(const std::string& library) {
    library_.reset(dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL));
    if (!library_) return "NVML not found: " + library;
    const bool complete = load(init_, "nvmlInit_v2") && load(shutdown_, "nvmlShutdown") &&
                          load(count_, "nvmlDeviceGetCount_v2") && load(handle_, "nvmlDeviceGetHandleByIndex_v2") &&
                          load(name_, "nvmlDeviceGetName") && load(memory_, "nvmlDeviceGetMemoryInfo");
    if (!complete) return "NVML is too old: " + library + " lacks " + missing_;
    (void)load(nvlink_, "nvmlDeviceGetNvLinkState");  // absent in old drivers: then every link counts as PCIe
    if (const int code = init_(); code != 0) return failure("nvmlInit_v2", code);
    initialized_ = true;
    return std::nullopt;
  }

  ~Nvml() {
    if (initialized_) shutdown_();
  }
  Nvml() = default;
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  NvmlDevices list() {
    NvmlDevices found;
    unsigned count = 0;
    if (const int code = count_(&count); code != 0) return {{}, failure("nvmlDeviceGetCount_v2", code)};
    for (unsigned i = 0; i < count; ++i) {
      NvmlDevice handle = nullptr;
      if (const int code = handle_(i, &handle); code != 0) return {{}, failure("nvmlDeviceGetHandleByIndex_v2", code)};
      char name[kNameLength] = {};
      if (const int code = name_(handle, name, kNameLength); code != 0) return {{}, failure("nvmlDeviceGetName", code)};
      NvmlMemory memory{};
      if (const int code = memory_(handle, &memory); code != 0) return {{}, failure("nvmlDeviceGetMemoryInfo", code)};
      found.devices.push_back({static_cast<int>(i), name, Bytes(static_cast<std::int64_t>(memory.total)),
                               has_nvlink(handle) ? "nvlink" : "pcie"});
    }
    if (count == 0) found.note = "NVML lists no device";
    return found;
  }

 private:
  template <class Function>
  bool load(Function*& function, const char* name) {
    function = reinterpret_cast<Function*>(dlsym(library_.get(), name));
    if (function == nullptr) missing_ = name;
    return function != nullptr;
  }

  static std::string failure(const char* call, int code) {
    return std::string(call) + " failed with code " + std::to_string(code) + " (driver not loaded?)";
  }

  [[nodiscard]] bool has_nvlink(NvmlDevice handle) const {
    if (nvlink_ == nullptr) return false;
    for (unsigned link = 0; link < kMaxNvlinks; ++link) {
      int active = 0;
      if (nvlink_(handle, link, &active) == 0 && active != 0) return true;
    }
    return false;
  }

  std::unique_ptr<void, CloseLibrary> library_;
  bool initialized_ = false;
  std::string missing_;
  int (*init_)() = nullptr;
  int (*shutdown_)() = nullptr;
  int (*count_)(unsigned*) = nullptr;
  int (*handle_)(unsigned, NvmlDevice*) = nullptr;
  int (*name_)(NvmlDevice, char*, unsigned) = nullptr;
  int (*memory_)(NvmlDevice, NvmlMemory*) = nullptr;
  int (*nvlink_)(NvmlDevice, unsigned, int*) = nullptr;
};

}  // namespace

NvmlDevices read_nvml(const std::string& library) {
  Nvml nvml;
  if (auto reason = nvml.open(library)) return {{}, std::move(*reason)};
  return nvml.list();
}

}  // namespace coxswain::cluster
