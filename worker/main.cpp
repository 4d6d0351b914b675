// `worker`: the data plane of one rank, started by an agent. Not for people: `launch train` is.
#include <cstdio>
#include <cstring>

#include "worker/service/run.h"

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "--agent") == 0) return static_cast<int>(coxswain::worker::run_worker(argv[2]));
  std::fprintf(stderr,
               "usage: worker --agent unix:/path\nA worker is started by an agent; you want `launch train JOB`.\n");
  return static_cast<int>(coxswain::ExitCode::Usage);
}
