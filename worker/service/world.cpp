#include "worker/service/world.h"

#include <algorithm>

#include "proto/control.pb.h"

namespace coxswain::worker {

Result<std::unique_ptr<World>> World::connect(AgentLink& link, const Assignment& assignment,
                                              const std::string& job_key) {
  std::unique_ptr<World> world(new World(link));
  collective::EndpointOptions options;
  options.backend = assignment.backend;
  options.rank = assignment.rank;
  options.size = assignment.world_size;
  options.node = assignment.node;
  options.local_addr = assignment.local_addr;
  options.job_key = job_key;
  options.run_id = assignment.run_id;
  options.generation = assignment.generation;
  options.scratch_dir = assignment.scratch_dir;
  options.signal = &world->signal_;
  COX_TRY(const auto endpoint, collective::open_endpoint(options));
  control::WorkerReport ready;
  ready.set_ready(endpoint->address());
  link.report(ready);
  const Deadline deadline = Deadline::after(steady_clock(), assignment.connect_timeout);
  COX_TRY(const auto addresses, link.wait_addresses(deadline));
  COX_TRY(world->all_, endpoint->connect(addresses, deadline));
  link.watch(world->all_.get());
  return world;
}

World::~World() {
  for (const auto& communicator : owned_) link_.forget(communicator.get());
  if (all_) link_.forget(all_.get());
  std::reverse(owned_.begin(), owned_.end());
  owned_.clear();
}

Result<void> World::make_groups(const std::vector<plan::Group>& groups, Deadline deadline) {
  for (const plan::Group& group : groups) {
    if (group.kind == plan::GroupKind::World) {
      communicators_.push_back(all_.get());
      continue;
    }
    const bool member = std::find(group.ranks.begin(), group.ranks.end(), all_->rank()) != group.ranks.end();
    COX_TRY(auto communicator, all_->split(member ? group.ranks : std::vector<int>{}, deadline));
    communicators_.push_back(communicator.get());
    if (communicator) {
      link_.watch(communicator.get());
      owned_.push_back(std::move(communicator));
    }
  }
  return {};
}

}  // namespace coxswain::worker
