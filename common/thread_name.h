#pragma once
// Names of threads, so that `top -H`, a debugger and /proc tell what a thread is for. Called first thing by each thread
// that lives beside the work. Threads: the one that is named.

namespace coxswain {

/// At most 15 characters; what is beyond is cut.
void name_thread(const char* name);

}  // namespace coxswain
