#pragma once
// Measured times of each distinct block by device class and samples: made by `worker` (engine), read by cost_model/,
// where it overrides the roofline. One job, one machine. Threads: pure values.
#include <cstdint>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "common/units.h"

namespace coxswain::cluster {

struct BlockTiming {
  std::string signature;     // model::Block::signature
  std::string device_class;  // DeviceClass::name
  std::int64_t samples = 0;  // local samples of one micro-batch
  Seconds forward{0};
  Seconds backward{0};         // without recompute
  Bytes saved{0};              // allocator bytes kept between forward and backward
  Bytes transient{0};          // allocator peak above what was there before and is kept
  double expert_load_cv = -1;  // standard deviation over mean of its experts' rows; negative: no experts, not known
};

struct Profile {
  std::string model_hash;
  std::string precision;  // that blocks were timed in, as plans name it; empty in files of before it was written
  std::vector<BlockTiming> blocks;  // sorted by (signature, device class, samples)
  struct DeviceRates {
    std::string device_class;
    Seconds optimizer_per_parameter{0};  // one AdamW element, clipping included
    Seconds norm_per_parameter{0};
    Seconds step_overhead{0};    // per step, independent of the plan (data, metrics)
    Seconds action_overhead{0};  // per action
    Bytes base_memory{0};
  };
  std::vector<DeviceRates> devices;
};
[[nodiscard]] Json to_json(const Profile& profile);
[[nodiscard]] Result<Profile> profile_from_json(const Json& json);

}  // namespace coxswain::cluster
