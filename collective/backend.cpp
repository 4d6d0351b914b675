#include "collective/backend.h"

#include <array>

#include "collective/host/host_endpoint.h"
#include "collective/plugin.h"

namespace coxswain::collective {
namespace {

/// In order of preference for CUDA devices; without them `host` comes first.
struct Backend {
  const char* name;
  bool is_plugin;
  bool for_cuda;
  const char* hint;
};

constexpr std::array<Backend, 3> kBackends{{
    {"nccl", true, true, "install the CUDA toolkit and NCCL (libnccl-dev) and build again; it needs an NVIDIA driver"},
    {"host", false, false, ""},
    {"mpi", true, false, "install an MPI (Debian: libopenmpi-dev openmpi-bin) and build again"},
}};

bool can_open(const Backend& backend) {
  if (!backend.is_plugin) return true;
  const auto plugin = load_plugin(backend.name, backend.hint);
  Error reason;
  return plugin && plugin->usable(reason);
}

Result<std::unique_ptr<Endpoint>> open_plugin(const Backend& backend, const EndpointOptions& options) {
  COX_TRY(const Plugin plugin, load_plugin(backend.name, backend.hint));
  std::unique_ptr<Endpoint> endpoint;
  Error error;
  plugin.open(options, endpoint, error);
  if (!endpoint) return error;
  return endpoint;
}

}  // namespace

Result<std::unique_ptr<Endpoint>> open_endpoint(const EndpointOptions& options) {
  // What kind of memory the buffers are in is not known here; host memory is what every caller can give.
  const std::string wanted = options.backend == "auto" ? "host" : options.backend;
  for (const Backend& backend : kBackends) {
    if (wanted != backend.name) continue;
    if (backend.is_plugin) return open_plugin(backend, options);
    COX_TRY(auto endpoint, HostEndpoint::open(options, {}));
    return std::unique_ptr<Endpoint>(std::move(endpoint));
  }
  return Error{
      ErrorCode::InvalidArgument, "no such communication backend", "", "auto, host, mpi or nccl", options.backend, ""};
}

std::vector<std::string> available_backends(bool devices_are_cuda) {
  std::vector<std::string> names;
  for (const Backend& backend : kBackends) {
    if (backend.for_cuda && !devices_are_cuda) continue;
    if (can_open(backend)) names.emplace_back(backend.name);
  }
  return names;
}

}  // namespace coxswain::collective
