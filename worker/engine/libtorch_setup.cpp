#include "worker/engine/libtorch_setup.h"

#include <ATen/Parallel.h>

#include "worker/engine/caching_allocator.h"
#include "worker/engine/products.h"

namespace coxswain::worker {

void set_up_libtorch(int threads) {
  install_caching_allocator();
  install_products();
  at::set_num_threads(threads);
}

}  // namespace coxswain::worker
