// Rates of this rank's device by the operators that training uses: matmul per dtype and size, memory, launch overhead.
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <array>

#include "common/clock.h"
#include "worker/engine/caching_allocator.h"
#include "worker/engine/engine.h"
#include "worker/engine/libtorch_setup.h"
#include "worker/engine/tensor_types.h"

namespace coxswain::worker {
namespace {

constexpr std::array<std::int64_t, 6> kMatmulSizes = {64, 128, 256, 512, 1024, 2048};
constexpr std::int64_t kBandwidthElements = std::int64_t{1} << 24;  // 64 MiB a tensor: past every cache
constexpr int kOverheadBatch = 200;

double seconds_now() { return std::chrono::duration<double>(steady_clock().now().time_since_epoch()).count(); }

/// Mean seconds of `body` over `budget`, at least once after one warm-up; it is an average so that a share of a core
/// counts its pauses.
template <class Body>
double mean_seconds(double budget, Body&& body) {
  body();
  const double start = seconds_now();
  double elapsed = 0;
  int repetitions = 0;
  while (repetitions < 1 || elapsed < budget) {
    body();
    ++repetitions;
    elapsed = seconds_now() - start;
  }
  return elapsed / repetitions;
}

Result<MeasuredRates> measure(Seconds budget, const std::function<Result<void>()>& barrier) {
  const at::NoGradGuard no_grad;
  MeasuredRates rates;
  const double slot = budget.value / (2.0 * kMatmulSizes.size() + 2);
  for (const DType dtype : {DType::Float32, DType::BFloat16}) {
    // Sizes end where one product would take the whole budget. Every device still meets every barrier.
    bool too_slow = false;
    for (const std::int64_t size : kMatmulSizes) {
      COX_TRY_VOID(barrier());
      if (too_slow) continue;
      const at::Tensor a = at::full({size, size}, 0.5, options_of(dtype)),
                       b = at::full({size, size}, 0.25, options_of(dtype));
      at::Tensor out = at::empty({size, size}, options_of(dtype));
      const double seconds = mean_seconds(slot, [&] { at::mm_out(out, a, b); });
      const double flop = 2.0 * static_cast<double>(size) * static_cast<double>(size) * static_cast<double>(size);
      rates.matmul.push_back({dtype, size, {FlopPerSecond(flop / seconds), cluster::Source::Measured}});
      too_slow = seconds * 8 > budget.value / 2;
    }
  }
  COX_TRY_VOID(barrier());
  const at::Tensor a = at::full({kBandwidthElements}, 1.0, options_of(DType::Float32)),
                   b = at::full({kBandwidthElements}, 2.0, options_of(DType::Float32));
  at::Tensor out = at::empty({kBandwidthElements}, options_of(DType::Float32));
  const double copy = mean_seconds(slot, [&] { at::add_out(out, a, b); });
  rates.memory_bandwidth = BytesPerSecond(3.0 * 4.0 * static_cast<double>(kBandwidthElements) / copy);
  COX_TRY_VOID(barrier());
  const at::Tensor one = at::full({1}, 1.0, options_of(DType::Float32));
  const double launches = mean_seconds(slot, [&] {
    for (int i = 0; i < kOverheadBatch; ++i) static_cast<void>(at::add(one, one));
  });
  rates.launch_overhead = Seconds(launches / kOverheadBatch);
  return rates;
}

}  // namespace

Result<MeasuredRates> measure_rates(int threads, Seconds budget, const std::function<Result<void>()>& barrier) {
  set_up_libtorch(threads);
  return guard_torch("rates", [&] { return measure(budget, barrier); });
}

}  // namespace coxswain::worker
