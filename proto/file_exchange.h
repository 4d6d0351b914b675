#pragma once
// Files between nodes that share no disk, over the authenticated streams of channel.h. One side serves, whoever holds
// the job's key may ask: an agent reads and writes files in folders named step_..., a coordinator gives the files that
// a run reads. A file that arrives is verified, synced and then gets its name, so that a reader sees all of it or none.
// Called by agents, coordinators and workers. Threads: each call on its own stream. Source: docs/checkpoint.md,
// DESIGN 3.8 (files).
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "common/units.h"
#include "proto/channel.h"

namespace coxswain::proto {

/// Answers one peer until it hangs up: the handler of a server for Service::Agent.
void serve_files(Stream& stream);

struct SharedFile {
  std::filesystem::path path;  // absolute, where it is served
  Bytes size{0};
  std::string sha256;
};
/// The same, for reading these files alone. `files` is called from the threads of several peers.
void serve_inputs(Stream& stream, const std::function<Result<std::vector<SharedFile>>()>& files);
/// What serve_inputs has there. Errors: Unavailable, DeadlineExceeded, Unauthenticated, of `files`.
[[nodiscard]] Result<std::vector<SharedFile>> list_inputs(const std::string& address, const Secret& secret,
                                                          Deadline deadline);

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
/// Errors: Unavailable, also where `stop` ends it (once it is connected), DeadlineExceeded, NotFound, DataLoss (not
/// what `sha256` says), FailedPrecondition (the disk).
[[nodiscard]] Result<void> get_file(const FilePlace& from, Bytes size, const std::string& sha256,
                                    const std::filesystem::path& target, const Secret& secret, Deadline deadline,
                                    const std::stop_token& stop = {});

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
