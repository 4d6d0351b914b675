#include "plan/layout/local_graph.h"

#include <algorithm>

namespace coxswain::plan {

std::vector<MeshAxis> mesh_axes(const Replica& replica) {
  std::vector<MeshAxis> axes;
  if (replica.context > 1) axes.push_back({AxisKind::Context, replica.context, replica.tensor});
  int rest = replica.tensor;
  for (int prime = 2; rest > 1; ++prime)
    for (; rest % prime == 0; rest /= prime) axes.push_back({AxisKind::Tensor, prime, rest / prime});
  return axes;
}

std::vector<int> members_of(std::span<const MeshAxis> axes, AxisSet set, int position) {
  std::vector<int> members{position};
  for (std::size_t a = 0; a < axes.size(); ++a) {
    if ((set >> a & 1U) == 0) continue;
    std::vector<int> wider;
    for (const int member : members) {
      const int own = member / axes[a].stride % axes[a].size;
      for (int i = 0; i < axes[a].size; ++i) wider.push_back(member + (i - own) * axes[a].stride);
    }
    members = std::move(wider);
  }
  std::sort(members.begin(), members.end());
  return members;
}

}  // namespace coxswain::plan
