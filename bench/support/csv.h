#pragma once
// Comma-separated tables as others write them: a header line, quotes around what holds commas, quotes or line ends.
// Called by bench programs that read published measurements. Threads: pure values.
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace coxswain::bench {

/// A line of the table; `problem` says why it cannot be read as the header tells.
struct CsvRow {
  std::size_t line = 0;  // of the file, from 1
  std::map<std::string, std::string> fields;
  std::string problem;

  /// The field, or nothing where the table has no such column.
  [[nodiscard]] const std::string& operator[](const std::string& column) const;
};

/// Rows in order, empty lines left out. A row with fewer or more fields than the header has a problem and what could be
/// read. An unclosed quote takes the rest of the text; its row has a problem.
[[nodiscard]] std::vector<CsvRow> parse_csv(std::string_view text);

}  // namespace coxswain::bench
