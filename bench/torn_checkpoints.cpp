// Damage to a real checkpoint, one fault at a time: a torn write, a flipped bit, a page of zeros, a file that is
// missing, empty, longer, an older one's or another rank's. Each has to be seen, by what `launch train --resume` looks
// with, and the older checkpoint taken in its place. Then runs whose disk for checkpoints is full (root, for a small
// file system of their own): they go on, and what they publish is whole.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <random>

#include "bench/support/train_runs.h"
#include "checkpoint/folder.h"
#include "common/bytes_io.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace fs = std::filesystem;

namespace {

using Random = std::mt19937_64;

std::string read_or_end(const fs::path& file) { return or_end(read_file(file)); }

void overwrite(const fs::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
}

std::string flip(std::string bytes, Random& random) {
  bytes[random() % bytes.size()] ^= static_cast<char>(1 << (random() % 8));
  return bytes;
}

/// As a power loss leaves a page that had not been written.
std::string zero_page(std::string bytes, Random& random) {
  constexpr std::size_t kPage = 4096;
  const std::size_t begin = random() % ((bytes.size() + kPage - 1) / kPage) * kPage;
  const std::size_t end = std::min(bytes.size(), begin + kPage);
  std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(begin), bytes.begin() + static_cast<std::ptrdiff_t>(end), '\0');
  return bytes;
}

/// The content of a file after a fault. `older`: of the file of that name in the checkpoint before; `other`: of another
/// file of this one.
struct Fault {
  const char* name;
  std::string (*damage)(const std::string& bytes, const std::string& older, const std::string& other, Random& random);
};
const Fault kFaults[] = {
    {"torn", [](const std::string& bytes, const std::string&, const std::string&,
                Random& random) { return bytes.substr(0, random() % bytes.size()); }},
    {"flipped bit", [](const std::string& bytes, const std::string&, const std::string&,
                       Random& random) { return flip(bytes, random); }},
    {"page of zeros", [](const std::string& bytes, const std::string&, const std::string&,
                         Random& random) { return zero_page(bytes, random); }},
    {"longer", [](const std::string& bytes, const std::string&, const std::string&,
                  Random& random) { return bytes + std::string(1 + random() % 5000, 'x'); }},
    {"empty", [](const std::string&, const std::string&, const std::string&, Random&) { return std::string(); }},
    {"an older one's", [](const std::string&, const std::string& older, const std::string&, Random&) { return older; }},
    {"another file's", [](const std::string&, const std::string&, const std::string& other, Random&) { return other; }},
};

std::vector<fs::path> files_of(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

fs::path write_torn_job(const fs::path& example, const fs::path& folder, const fs::path& checkpoints) {
  std::ofstream(folder / "job.yaml") << "name: torn\nmodel: {pt2: " << (example / "gpt.pt2").string()
                                     << "}\ndata: {text: " << (example / "kjv.txt").string()
                                     << ", sequence_length: 64, seed: 7}\nbatch: {global: 8}\n"
                                     << "train: {steps: 8, seed: 1}\noptimizer: {name: adamw, learning_rate: 1.0e-3}\n"
                                     << "checkpoint: {directory: " << checkpoints.string()
                                     << ", every_steps: 2, keep: 3}\nplan: {data: 2, pipeline: 2}\n";
  return folder / "job.yaml";
}

struct Tally {
  std::map<std::string, int> made;
  int unseen = 0, not_older = 0;
};

/// One fault into the newest of `directory`, looked at, and taken back.
void strike(const fs::path& directory, const fs::path& newest, const fs::path& older, Random& random, Tally& tally) {
  const std::vector<fs::path> files = files_of(newest);
  const fs::path file = files[random() % files.size()];
  const std::string bytes = read_or_end(file);
  constexpr std::size_t kKinds = std::size(kFaults);
  const std::size_t kind = random() % (kKinds + 1);
  std::string name = "missing";
  if (kind == kKinds) {
    fs::remove(file);
  } else {
    const fs::path other = files[random() % files.size()];
    const std::string damaged =
        kFaults[kind].damage(bytes, read_or_end(older / file.filename()), read_or_end(other), random);
    if (damaged == bytes) return;  // a page that held zeros, the file itself
    name = kFaults[kind].name;
    overwrite(file, damaged);
  }
  ++tally.made[name];
  const checkpoint::Search search = checkpoint::find_newest(directory);
  if (search.rejected.empty()) ++tally.unseen;
  if (!search.newest || search.newest->folder != older) ++tally.not_older;
  overwrite(file, bytes);
}

/// A run that saves onto a file system of `kibibytes`. What it left: whole checkpoints, failures that it told.
struct FullDisk {
  int exit_code = 0, saved = 0, failed = 0, damaged = 0;
};
FullDisk run_on_full_disk(const fs::path& example, const fs::path& plan, std::int64_t kibibytes) {
  const fs::path folder = make_scratch_folder("full");
  fs::create_directories(folder / "disk");
  const std::string run = (folder / "run").string();
  // The file system is seen by this run alone and ends with it; what was saved is looked at before that.
  const std::string script = "mount -t tmpfs -o size=" + std::to_string(kibibytes) + "k tmpfs " +
                             (folder / "disk").string() + " && " + (program_folder() / "launch").string() + " train " +
                             write_torn_job(example, folder, folder / "disk").string() + " --devices 4xcpu --run-dir " +
                             run + " --plan " + plan.string() + "; code=$?; cp -r " + (folder / "disk").string() + " " +
                             (folder / "kept").string() + "; exit $code";
  FullDisk result;
  const auto ended = run_process({"unshare", "--mount", "sh", "-c", script}, 120);
  result.exit_code = ended.exit_code;
  std::ifstream events(run + "/events.jsonl");
  for (std::string line; std::getline(events, line);) {
    if (line.find("\"checkpoint_saved\"") != std::string::npos) ++result.saved;
    if (line.find("\"checkpoint_failed\"") != std::string::npos) ++result.failed;
  }
  result.damaged = static_cast<int>(checkpoint::find_newest(folder / "kept").rejected.size());
  if (result.exit_code != 0) std::fprintf(stderr, "%s", ended.errors.c_str());
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv, "damage to checkpoints", {"--faults", "--disks"});
  const auto number = [&](const char* name, int otherwise) {
    return options.other.contains(name) ? std::atoi(options.other.at(name).c_str()) : otherwise;
  };
  Report report("torn_checkpoints", options);
  const fs::path example = make_example({.layers = 4, .width = 64, .heads = 4, .context = 64, .dropout = 0.1});
  const fs::path folder = make_scratch_folder("saved"), directory = folder / "checkpoints";
  const auto saved =
      run_process({(program_folder() / "launch").string(), "train", write_torn_job(example, folder, directory).string(),
                   "--devices", "4xcpu", "--run-dir", (folder / "run").string()},
                  300);
  if (saved.exit_code != 0) {
    std::fprintf(stderr, "the run failed:\n%s", saved.errors.c_str());
    return 1;
  }
  const fs::path newest = checkpoint::folder_of(directory, 8), older = checkpoint::folder_of(directory, 6);
  Random random(options.seed);
  Tally tally;
  const int wanted = number("--faults", options.quick ? 50 : 500);
  int made = 0;
  while (made < wanted) {
    strike(directory, newest, older, random, tally);
    made = 0;
    for (const auto& [name, count] : tally.made) made += count;
  }
  for (const auto& [name, count] : tally.made) std::printf("  %4d x %s\n", count, name.c_str());
  const auto after = checkpoint::find_newest(directory);
  report.add({"faults", 1.0 * made, 0, 0, "faults", ">= " + std::to_string(wanted), made >= wanted});
  report.add({"faults that were not seen", 1.0 * tally.unseen, 0, 0, "faults", "0", tally.unseen == 0});
  report.add({"faults after which the older one was not taken", 1.0 * tally.not_older, 0, 0, "faults", "0",
              tally.not_older == 0});
  const bool whole = after.newest && after.newest->folder == newest && after.rejected.empty();
  report.add({"undamaged again, the newest is taken", whole ? 1.0 : 0, 0, 0, "yes/no", "yes", whole});
  if (geteuid() != 0) {
    std::printf("full disks: not run, they need root for a file system of their own\n");
    return report.finish();
  }
  int failed = 0, ended_badly = 0, damaged = 0, saves = 0;
  const int disks = number("--disks", options.quick ? 1 : 6);
  for (int i = 0; i < disks; ++i) {
    // From less than one checkpoint to nearly two.
    const std::int64_t one = static_cast<std::int64_t>(fs::file_size(newest / "manifest.json"));
    std::int64_t bytes = one;
    for (const fs::path& file : files_of(newest)) bytes += static_cast<std::int64_t>(fs::file_size(file));
    const FullDisk disk =
        run_on_full_disk(example, folder / "run" / "plan-1.json", bytes * (2 + 3 * i) / (8 * 1024) + 64);
    std::printf("  disk %d: exit %d, %d saved, %d failed and told, %d damaged\n", i + 1, disk.exit_code, disk.saved,
                disk.failed, disk.damaged);
    ended_badly += disk.exit_code == 0 ? 0 : 1;
    failed += disk.failed;
    saves += disk.saved;
    damaged += disk.damaged;
  }
  report.add({"runs on a full disk that ended badly", 1.0 * ended_badly, 0, 0, "runs", "0", ended_badly == 0});
  report.add({"checkpoints that did not fit, and were told", 1.0 * failed, 1.0 * saves, 0, "saves", "> 0", failed > 0});
  report.add({"damaged checkpoints published on a full disk", 1.0 * damaged, 0, 0, "checkpoints", "0", damaged == 0});
  return report.finish();
}
