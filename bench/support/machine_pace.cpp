#include "bench/support/machine_pace.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>
#include <vector>

namespace coxswain::bench {
namespace {

constexpr int kSize = 192, kProducts = 60, kPasses = 12, kRounds = 15;
constexpr std::size_t kStreamed = std::size_t{12} << 20;  // floats: 48 MiB

using Matrix = std::array<float, std::size_t{kSize} * kSize>;

void multiply(const Matrix& a, const Matrix& b, Matrix& c) {
  for (std::size_t i = 0; i < kSize; ++i)
    for (std::size_t k = 0; k < kSize; ++k) {
      const float factor = a[i * kSize + k];
      for (std::size_t j = 0; j < kSize; ++j) c[i * kSize + j] += factor * b[k * kSize + j];
    }
}

struct Buffers {
  std::vector<Matrix> matrices = std::vector<Matrix>(3);
  std::vector<float> streamed = std::vector<float>(kStreamed, 1.0f);
};

void work(Buffers& buffers) {
  for (int i = 0; i < kProducts; ++i) multiply(buffers.matrices[0], buffers.matrices[1], buffers.matrices[2]);
  for (int i = 0; i < kPasses; ++i)
    for (float& value : buffers.streamed) value = value * 0.5f + 0.5f;
}

}  // namespace

double machine_pace() {
  std::vector<Buffers> buffers(std::max(1u, std::thread::hardware_concurrency()));
  const auto begin = std::chrono::steady_clock::now();
  for (int round = 0; round < kRounds; ++round) {
    std::vector<std::jthread> threads;
    for (Buffers& each : buffers) threads.emplace_back([&each] { work(each); });
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / kRounds;
}

}  // namespace coxswain::bench
