#pragma once
// A file that grows, from a place on: whole lines of what is new. Called by jobs and run_view. Threads: one owner.
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace coxswain::launcher {

class FileTail {
 public:
  /// From byte `offset` on, where a line begins.
  explicit FileTail(std::filesystem::path file, std::int64_t offset = 0) : file_(std::move(file)), offset_(offset) {}
  /// Whole lines that were not given before, at most about `most_bytes`; empty where there are none, or no such file
  /// yet. `rest`: what does not end in a line break too, since nothing more is written.
  [[nodiscard]] std::string next(std::size_t most_bytes, bool rest = false);
  /// Lines that were given.
  [[nodiscard]] std::int64_t lines() const { return lines_; }
  /// Where it goes on.
  [[nodiscard]] std::int64_t offset() const { return offset_; }

 private:
  std::filesystem::path file_;
  std::int64_t offset_, lines_ = 0;
};

/// The last whole line; empty where there is none. Reads at most the last `most_bytes`.
[[nodiscard]] std::string last_line(const std::filesystem::path& file, std::size_t most_bytes = std::size_t{1} << 20);
/// The last bytes of a file, from the beginning of a line where that is among them.
[[nodiscard]] std::string last_bytes(const std::filesystem::path& file, std::size_t most_bytes);

/// Without line breaks; a last one that has none too.
template <class Visit>
void for_each_line(std::string_view text, Visit visit) {
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    visit(text.substr(0, end));
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 1);
  }
}

}  // namespace coxswain::launcher
