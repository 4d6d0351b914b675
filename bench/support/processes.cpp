#include "bench/support/processes.h"

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>

namespace coxswain::bench {
namespace {

namespace fs = std::filesystem;

std::string text_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

/// Name, user and system time of a `stat` file. The name stands in parentheses and may hold anything.
ThreadTime read_stat(const fs::path& file) {
  const std::string text = text_of(file);
  const auto open = text.find('('), close = text.rfind(')');
  if (open == std::string::npos || close == std::string::npos) return {};
  ThreadTime time{text.substr(open + 1, close - open - 1)};
  std::istringstream fields(text.substr(close + 1));
  std::string skipped;
  for (int field = 3; field < 14; ++field) fields >> skipped;
  double user = 0, system = 0;
  fields >> user >> system;
  time.seconds = (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  return time;
}

fs::path folder_of(int pid) { return fs::path("/proc") / std::to_string(pid); }

/// Of a process that ends meanwhile those that were still there.
std::vector<fs::path> thread_folders(int pid) {
  std::vector<fs::path> folders;
  std::error_code ended;
  for (fs::directory_iterator at(folder_of(pid) / "task", ended), end; !ended && at != end; at.increment(ended))
    folders.push_back(at->path());
  return folders;
}

}  // namespace

std::vector<int> family_of(int root) {
  std::vector<int> all{root};
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (const fs::path& thread : thread_folders(all[i])) {
      std::ifstream children(thread / "children");
      for (int child = 0; children >> child;) all.push_back(child);
    }
  }
  return all;
}

bool catches(int pid, int signal) {
  constexpr std::string_view kMask = "SigCgt:\t";
  const std::string status = text_of(folder_of(pid) / "status");
  const auto found = status.find(kMask);
  if (found == std::string::npos) return false;
  const std::uint64_t mask = std::strtoull(status.c_str() + found + kMask.size(), nullptr, 16);
  return ((mask >> (signal - 1)) & 1) != 0;
}

std::string role_of(int pid) {
  std::istringstream words(text_of(folder_of(pid) / "cmdline"));
  std::string program, verb;
  std::getline(words, program, '\0');
  std::getline(words, verb, '\0');
  program = fs::path(program).filename();
  if (program != "launch") return program;
  if (verb == "local-agent") return "agent";
  return verb == "coordinator" ? verb : program;
}

double processor_seconds(int pid) { return read_stat(folder_of(pid) / "stat").seconds; }

std::string waits_of(int pid) {
  const auto first_line = [](const fs::path& file) {
    std::ifstream in(file);
    std::string line;
    std::getline(in, line);
    return line;
  };
  std::string text = std::to_string(pid) + " " + role_of(pid) + "\n";
  for (const fs::path& thread : thread_folders(pid)) {
    const std::string stat = first_line(thread / "stat");
    if (stat.empty()) continue;  // it ended
    text += "  " + first_line(thread / "comm") + ": " + stat.substr(stat.rfind(')') + 2, 1) + ", " +
            first_line(thread / "wchan") + ", " + first_line(thread / "syscall") + "\n";
  }
  return text;
}

std::map<int, ThreadTime> threads_of(int pid) {
  std::map<int, ThreadTime> threads;
  for (const fs::path& thread : thread_folders(pid)) threads[std::stoi(thread.filename())] = read_stat(thread / "stat");
  return threads;
}

}  // namespace coxswain::bench
