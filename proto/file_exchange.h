#pragma once
// Files of checkpoints between nodes that share no disk, over the authenticated streams of channel.h. One side serves:
// it reads and writes files in folders named step_..., which whoever holds the job's key may ask for. A file that
// arrives is verified, synced and then gets its name, so that a reader sees all of it or none. Called by agents (serve)
// and workers. Threads: each call on its own stream. Source: docs/checkpoint.md.
#include <filesystem>
#include <stop_token>
#include <string>

#include "common/units.h"
#include "proto/channel.h"

namespace coxswain::proto {

/// Answers one peer until it hangs up: the handler of a server for Service::Agent.
void serve_files(Stream& stream);

struct FilePlace {
  std::string address;           // of a server, "host:port"
  std::filesystem::path folder;  // there, absolute
  std::string file;
};

/// Copies `source` there. Errors: Unavailable, also where `stop` ends it (once it is connected), DeadlineExceeded, of
/// reading; FailedPrecondition (their disk).
[[nodiscard]] Result<void> put_file(const std::filesystem::path& source, const FilePlace& to, const Secret& secret,
                                    Deadline deadline, const std::stop_token& stop = {});
/// Fetches a file of `size` bytes to `target`, which takes the place of one that is there.
/// Errors: Unavailable, DeadlineExceeded, NotFound, DataLoss (not what `sha256` says), FailedPrecondition (the disk).
[[nodiscard]] Result<void> get_file(const FilePlace& from, Bytes size, const std::string& sha256,
                                    const std::filesystem::path& target, const Secret& secret, Deadline deadline);

struct LinkRate {
  Seconds latency{0};
  BytesPerSecond bandwidth{0};
};
/// How fast a server is reached: half of the shortest round trip, and the rate of up to 64 MiB. It takes some tenths of
/// a second. Frames are authenticated, which costs processor time: a link faster than some 500 MB/s looks like that.
/// Errors: Unavailable, also where `stop` ends it (once it is connected), DeadlineExceeded.
[[nodiscard]] Result<LinkRate> measure_link(const std::string& address, const Secret& secret,
                                            const std::stop_token& stop, Deadline deadline);

}  // namespace coxswain::proto
