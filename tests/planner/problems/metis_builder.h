#pragma once
// Small problems of metis.h from a few numbers.
#include <random>

#include "planner/problems/metis_model.h"

namespace coxswain::planner {

/// Two types: FAST with two hosts of two devices, SLOW with one host of two. Three layers.
inline MetisInstance make_metis() {
  MetisInstance instance;
  instance.num_layers = 3;
  instance.global_batch = 8;
  instance.sequence = 10;
  instance.hidden = 4;
  instance.vocabulary = 50;
  instance.types = {{"FAST", 1000, {2, 2}, 100, 10}, {"SLOW", 500, {2}, 100, 5}};
  instance.parameter_bytes = {1000, 2000, 3000};
  instance.optimizer_ms = {6, 12};
  instance.generator_ms = 0.25;
  return instance;
}

inline MetisPoint make_point(std::vector<double> layer_ms, std::vector<double> layer_mb, double sync_ms) {
  return {std::move(layer_ms), std::move(layer_mb), sync_ms};
}

/// Points of random times and sizes that grow with the batch; memory so that some stages fit and some do not.
inline MetisInstance make_random_metis(unsigned seed) {
  std::mt19937 random(seed);
  const auto draw = [&random](int low, int high) {
    return low + static_cast<int>(random() % static_cast<unsigned>(high - low + 1));
  };
  MetisInstance instance = make_metis();
  instance.num_layers = draw(1, 3);
  instance.global_batch = draw(0, 1) == 0 ? 4 : 6;
  instance.optimizer_ms = {draw(0, 6) * 1.0, draw(0, 6) * 1.0};
  instance.hidden = draw(1, 4);
  instance.vocabulary = draw(1, 50);
  instance.parameter_bytes.clear();
  for (int l = 0; l < instance.num_layers; ++l) instance.parameter_bytes.push_back(draw(0, 40));
  for (int type = 0; type < 2; ++type) {
    instance.types[static_cast<std::size_t>(type)].memory_mb = draw(100, 400);
    for (const int tp : {1, 2}) {
      if (draw(0, 3) == 0) continue;
      for (const std::int64_t batch : {1, 2, 4, 6}) {
        if (draw(0, 4) == 0) continue;
        MetisPoint point;
        for (int l = 0; l < instance.num_layers; ++l) {
          point.layer_ms.push_back(draw(5, 15) * static_cast<double>(batch) / tp * (type + 1));
          point.layer_mb.push_back((draw(40, 120) + 10.0 * static_cast<double>(batch)) / tp);
        }
        point.sync_ms = draw(0, 3);
        instance.points[{type, tp}][batch] = point;
      }
    }
  }
  return instance;
}

}  // namespace coxswain::planner
