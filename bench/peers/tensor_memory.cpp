// Our worker's allocator as a library for PyTorch's Python (ctypes): what bench/runtime measures a peer's memory by, so
// that bytes of tensors are counted on both sides by the same code. Private to bench.
#include <cstdint>

#include "worker/engine/caching_allocator.h"

extern "C" {
void cox_install() { coxswain::worker::install_caching_allocator(); }
void cox_reset_peak() { coxswain::worker::reset_memory_peak(); }
std::int64_t cox_peak() { return coxswain::worker::memory_peak().value; }
}
