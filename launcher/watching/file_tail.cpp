#include "launcher/watching/file_tail.h"

#include <algorithm>
#include <fstream>

namespace coxswain::launcher {

std::string FileTail::next(std::size_t most_bytes, bool rest) {
  std::ifstream file(file_, std::ios::binary);
  if (!file) return "";
  file.seekg(offset_);
  std::string text(most_bytes, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  // A line that is longer than all that may be given is given in parts.
  const std::size_t end = text.rfind('\n');
  if (end != std::string::npos)
    text.resize(end + 1);
  else if (!rest && text.size() < most_bytes)
    text.clear();
  offset_ += static_cast<std::int64_t>(text.size());
  lines_ += std::count(text.begin(), text.end(), '\n');
  return text;
}

std::string last_bytes(const std::filesystem::path& file, std::size_t most_bytes) {
  std::ifstream stream(file, std::ios::binary | std::ios::ate);
  if (!stream) return "";
  const auto size = static_cast<std::size_t>(stream.tellg());
  const std::size_t from = size > most_bytes ? size - most_bytes : 0;
  stream.seekg(static_cast<std::streamoff>(from));
  std::string text(size - from, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(std::max<std::streamsize>(stream.gcount(), 0)));
  const std::size_t line = from > 0 ? text.find('\n') : std::string::npos;
  return line != std::string::npos && line + 1 < text.size() ? text.substr(line + 1) : text;
}

std::string last_line(const std::filesystem::path& file, std::size_t most_bytes) {
  std::string text = last_bytes(file, most_bytes);
  const std::size_t end = text.rfind('\n');
  if (end == std::string::npos) return "";
  text.resize(end);
  const std::size_t before = text.rfind('\n');
  return before == std::string::npos ? text : text.substr(before + 1);
}

}  // namespace coxswain::launcher
