// The text form of a change: what --lost, --slower and --added take.
#include <algorithm>
#include <charconv>
#include <string_view>

#include "cluster/change.h"

namespace coxswain::cluster {
namespace {

constexpr std::int64_t kMaxIndex = std::int64_t{1} << 40;

std::vector<std::string> split_list(const std::vector<std::string>& texts) {
  std::vector<std::string> parts;
  for (const std::string& text : texts) {
    std::size_t begin = 0;
    while (begin <= text.size()) {
      const std::size_t end = std::min(text.find(',', begin), text.size());
      parts.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return parts;
}

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value{};
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

struct Range {
  std::string name;
  std::int64_t first = 0, last = 0;
};

/// NAME:INDEX[-INDEX], ascending.
std::optional<Range> parse_range(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return std::nullopt;
  const std::string_view numbers = std::string_view(text).substr(colon + 1);
  const std::size_t dash = numbers.find('-');
  const auto first = parse_number<std::int64_t>(numbers.substr(0, dash));
  const auto last = dash == std::string_view::npos ? first : parse_number<std::int64_t>(numbers.substr(dash + 1));
  if (!first || !last || *first < 0 || *last < *first || *last > kMaxIndex) return std::nullopt;
  return Range{text.substr(0, colon), *first, *last};
}

class Parser {
 public:
  void lost(const std::string& text) {
    if (const auto range = parse_range(text))
      change.lost.push_back({range->name, range->first, range->last});
    else
      problem("--lost", "devices cannot be read", "CLASS:INDEX, CLASS:FIRST-LAST or node:INDEX, indices from 0", text);
  }

  void slower(const std::string& text) {
    const std::size_t equals = text.rfind('=');
    const auto range = parse_range(text.substr(0, equals));
    const auto fraction =
        equals == std::string::npos ? std::nullopt : parse_number<double>(std::string_view(text).substr(equals + 1));
    if (range && fraction && *fraction > 0 && *fraction < 1)
      change.slower.push_back({range->name, range->first, range->last, *fraction});
    else
      problem("--slower", "slower devices cannot be read",
              "CLASS:INDEX=FRACTION or CLASS:FIRST-LAST=FRACTION, a fraction of the class's rates between 0 and 1",
              text);
  }

  void added(const std::string& text) {
    const std::size_t equals = text.rfind('=');
    const auto count = equals == std::string::npos
                           ? std::nullopt
                           : parse_number<std::int64_t>(std::string_view(text).substr(equals + 1));
    if (equals != 0 && count && *count > 0 && *count <= kMaxIndex)
      change.added.push_back({text.substr(0, equals), *count});
    else
      problem("--added", "added nodes cannot be read", "NODE_CLASS=COUNT, at least 1", text);
  }

  ClusterChange change;
  std::vector<Error> problems;

 private:
  void problem(const char* flag, const char* message, const char* expected, const std::string& text) {
    problems.push_back(Error{ErrorCode::InvalidArgument, message, flag, expected, text.empty() ? "nothing" : text, ""});
  }
};

}  // namespace

Result<ClusterChange> parse_change(const std::vector<std::string>& lost, const std::vector<std::string>& slower,
                                   const std::vector<std::string>& added) {
  Parser parser;
  for (const std::string& text : split_list(lost)) parser.lost(text);
  for (const std::string& text : split_list(slower)) parser.slower(text);
  for (const std::string& text : split_list(added)) parser.added(text);
  if (!parser.problems.empty())
    return combine_errors(ErrorCode::InvalidArgument, "the change of the cluster has problems",
                          std::move(parser.problems));
  return std::move(parser.change);
}

}  // namespace coxswain::cluster
