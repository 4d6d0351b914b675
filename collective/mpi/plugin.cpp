// What the plug-in exports; see collective/plugin.h.
#include "collective/plugin.h"

#include "collective/mpi/mpi_communicator.h"

namespace coxswain::collective {
namespace {

/// The world is there as soon as MPI is: there is no address to pass round.
class MpiEndpoint final : public Endpoint {
 public:
  MpiEndpoint(MpiDriver& driver, CompletionSignal* signal) : driver_(driver), signal_(signal) {}
  [[nodiscard]] std::string address() const override { return ""; }

  [[nodiscard]] Result<std::unique_ptr<Communicator>> connect(const std::vector<std::string>&,
                                                              Deadline deadline) override {
    // A copy of the world, so that our messages meet nobody else's.
    auto world = std::make_shared<MpiGroup>(MPI_COMM_WORLD, driver_.world_rank(), driver_.world_size());
    auto copy = std::make_shared<MPI_Comm>(MPI_COMM_NULL);
    auto operation =
        std::make_shared<Operation>("connect", nullptr, [world](const Error& error) { world->fail(error); });
    driver_.submit({operation, world, deadline, [copy](std::vector<MPI_Request>& requests) {
                      return check_mpi(MPI_Comm_idup(MPI_COMM_WORLD, copy.get(), &requests.emplace_back()),
                                       "MPI_Comm_idup");
                    }});
    COX_TRY_VOID(operation->wait(deadline));
    auto group = std::make_shared<MpiGroup>(*copy, driver_.world_rank(), driver_.world_size());
    return std::unique_ptr<Communicator>(std::make_unique<MpiCommunicator>(driver_, std::move(group), signal_));
  }

 private:
  MpiDriver& driver_;
  CompletionSignal* const signal_;
};

Result<std::unique_ptr<Endpoint>> open(const EndpointOptions& options) {
  COX_TRY(MpiDriver* const driver, MpiDriver::instance());
  if (options.rank != driver->world_rank() || options.size != driver->world_size()) {
    return Error{ErrorCode::FailedPrecondition,
                 "this process is not the rank that MPI says it is",
                 "",
                 "rank " + std::to_string(options.rank) + " of " + std::to_string(options.size),
                 "rank " + std::to_string(driver->world_rank()) + " of " + std::to_string(driver->world_size()),
                 "start the ranks with mpirun or srun"};
  }
  return std::unique_ptr<Endpoint>(std::make_unique<MpiEndpoint>(*driver, options.signal));
}

}  // namespace
}  // namespace coxswain::collective

extern "C" {

__attribute__((visibility("default"))) int coxswain_plugin_version() { return coxswain::collective::kPluginVersion; }

__attribute__((visibility("default"))) bool coxswain_plugin_usable(coxswain::Error&) { return true; }

__attribute__((visibility("default"))) void coxswain_plugin_open(
    const coxswain::collective::EndpointOptions& options, std::unique_ptr<coxswain::collective::Endpoint>& endpoint,
    coxswain::Error& error) {
  auto opened = coxswain::guard("collective/mpi", [&] { return coxswain::collective::open(options); });
  if (opened) {
    endpoint = std::move(*opened);
  } else {
    error = std::move(opened).error();
  }
}

}  // extern "C"
