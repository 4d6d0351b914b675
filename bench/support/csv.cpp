#include "bench/support/csv.h"

namespace coxswain::bench {
namespace {

struct Record {
  std::size_t line = 1;
  std::vector<std::string> fields;
  bool open_quote = false;

  [[nodiscard]] bool empty() const { return fields.size() == 1 && fields[0].empty(); }
};

std::vector<Record> split_records(std::string_view text) {
  std::vector<Record> records;
  Record record{1, {""}, false};
  std::size_t line = 1;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n') ++line;
    if (quoted && c == '"' && i + 1 < text.size() && text[i + 1] == '"') {
      record.fields.back() += '"';
      ++i;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      record.fields.emplace_back();
    } else if (c == '\n' && !quoted) {
      records.push_back(std::move(record));
      record = Record{line, {""}, false};
    } else if (c != '\r') {
      record.fields.back() += c;
    }
  }
  record.open_quote = quoted;
  if (!record.empty()) records.push_back(std::move(record));
  return records;
}

}  // namespace

const std::string& CsvRow::operator[](const std::string& column) const {
  static const std::string kNothing;
  const auto found = fields.find(column);
  return found == fields.end() ? kNothing : found->second;
}

std::vector<CsvRow> parse_csv(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // a byte order mark
  const std::vector<Record> records = split_records(text);
  std::vector<CsvRow> rows;
  for (std::size_t i = 1; i < records.size(); ++i) {
    const Record& record = records[i];
    if (record.empty()) continue;
    const std::vector<std::string>& header = records[0].fields;
    CsvRow row{record.line, {}, ""};
    for (std::size_t column = 0; column < std::min(header.size(), record.fields.size()); ++column)
      row.fields[header[column]] = record.fields[column];
    if (record.fields.size() != header.size())
      row.problem = std::to_string(record.fields.size()) + " fields, the header has " + std::to_string(header.size());
    if (record.open_quote) row.problem = "a quote is not closed";
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace coxswain::bench
