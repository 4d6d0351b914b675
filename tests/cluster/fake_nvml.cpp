// Stands in for libnvidia-ml.so.1 where there is none: two devices, NVLink (its last link only) on the first.
#include <cstdio>

extern "C" {

struct FakeMemory {
  unsigned long long total, free, used;
};

int nvmlInit_v2() { return 0; }
int nvmlShutdown() { return 0; }
int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 2;
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  static char devices[2];
  *device = devices + index;
  return 0;
}
int nvmlDeviceGetName(void*, char* name, unsigned length) {
  std::snprintf(name, length, "Fake H100");
  return 0;
}
int nvmlDeviceGetMemoryInfo(void*, FakeMemory* memory) {
  *memory = {80'000'000'000ULL, 1, 1};
  return 0;
}
int nvmlDeviceGetNvLinkState(void* device, unsigned link, int* active) {
  void* first = nullptr;
  nvmlDeviceGetHandleByIndex_v2(0, &first);
  if (device != first) return 3;  // not supported
  *active = link == 17 ? 1 : 0;
  return 0;
}
}
