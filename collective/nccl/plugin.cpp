// What the plug-in exports; see collective/plugin.h.
#include "collective/plugin.h"

#include <cstring>

#include "collective/nccl/nccl_communicator.h"

namespace coxswain::collective {
namespace {

std::string to_hex(const ncclUniqueId& id) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char byte : id.internal) {
    text += kDigits[static_cast<unsigned char>(byte) >> 4];
    text += kDigits[static_cast<unsigned char>(byte) & 15];
  }
  return text;
}

Result<ncclUniqueId> parse_id(const std::string& text) {
  ncclUniqueId id = {};
  if (text.size() != 2 * sizeof(id.internal) || text.find_first_not_of("0123456789abcdef") != std::string::npos) {
    return Error{ErrorCode::InvalidArgument, "the address of rank 0 is no NCCL id", "", "256 hex digits", "", ""};
  }
  for (std::size_t i = 0; i < sizeof(id.internal); ++i)
    id.internal[i] = static_cast<char>(std::stoi(text.substr(2 * i, 2), nullptr, 16));
  return id;
}

/// Errors: FailedPrecondition without a driver or device.
Result<int> current_device() {
  int num_devices = 0;
  COX_TRY_VOID(check_cuda(cudaGetDeviceCount(&num_devices), "cudaGetDeviceCount"));
  if (num_devices == 0)
    return Error{ErrorCode::FailedPrecondition,
                 "nccl found no CUDA device",
                 "",
                 "",
                 "",
                 "nccl needs an NVIDIA driver and a CUDA device"};
  int device = 0;
  COX_TRY_VOID(check_cuda(cudaGetDevice(&device), "cudaGetDevice"));
  return device;
}

class NcclEndpoint final : public Endpoint {
 public:
  NcclEndpoint(EndpointOptions options, int device, std::string address)
      : options_(std::move(options)), device_(device), address_(std::move(address)) {}
  [[nodiscard]] std::string address() const override { return address_; }

  [[nodiscard]] Result<std::unique_ptr<Communicator>> connect(const std::vector<std::string>& addresses,
                                                              Deadline deadline) override {
    if (addresses.empty()) return Error{ErrorCode::InvalidArgument, "one address per rank is needed", "", "", "", ""};
    COX_TRY(const ncclUniqueId id, parse_id(addresses.front()));
    auto group = std::make_shared<NcclGroup>(device_, options_.rank, options_.size);
    COX_TRY_VOID(group->join(id, deadline));
    return std::unique_ptr<Communicator>(std::make_unique<NcclCommunicator>(std::move(group), options_.signal));
  }

 private:
  const EndpointOptions options_;
  const int device_;
  const std::string address_;
};

Result<std::unique_ptr<Endpoint>> open(const EndpointOptions& options) {
  COX_TRY(const int device, current_device());
  std::string address;
  if (options.rank == 0) {
    ncclUniqueId id = {};
    COX_TRY_VOID(check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId"));
    address = to_hex(id);
  }
  return std::unique_ptr<Endpoint>(std::make_unique<NcclEndpoint>(options, device, address));
}

}  // namespace
}  // namespace coxswain::collective

extern "C" {

__attribute__((visibility("default"))) int coxswain_plugin_version() { return coxswain::collective::kPluginVersion; }

__attribute__((visibility("default"))) bool coxswain_plugin_usable(coxswain::Error& error) {
  auto device = coxswain::collective::current_device();
  if (!device) error = std::move(device).error();
  return device.has_value();
}

__attribute__((visibility("default"))) void coxswain_plugin_open(
    const coxswain::collective::EndpointOptions& options, std::unique_ptr<coxswain::collective::Endpoint>& endpoint,
    coxswain::Error& error) {
  auto opened = coxswain::guard("collective/nccl", [&] { return coxswain::collective::open(options); });
  if (opened) {
    endpoint = std::move(*opened);
  } else {
    error = std::move(opened).error();
    error.message = "the nccl backend cannot be used: " + error.message;
  }
}

}  // extern "C"
