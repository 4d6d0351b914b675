// "KEY=VALUE[,VALUE...]" into Constraints (INTERFACE section 1).
#include <algorithm>
#include <charconv>
#include <map>
#include <string_view>

#include "planner/planner.h"

namespace coxswain::planner {
namespace {

constexpr const char* kKeys =
    "data tensor pipeline context expert (or dp tp pp cp ep), zero, micro, samples, recompute, schedule, offload, cuts";

/// Splits at commas outside brackets.
std::vector<std::string> split_alternatives(const std::string& text) {
  std::vector<std::string> parts(1);
  int depth = 0;
  for (const char c : text) {
    depth += c == '[' ? 1 : c == ']' ? -1 : 0;
    if (c == ',' && depth == 0)
      parts.emplace_back();
    else if (c != ' ')
      parts.back() += c;
  }
  return parts;
}

/// `tensor=4,data=1,2` as `tensor=4` and `data=1,2`. What follows csv: is a file's name, whatever is in it.
std::vector<std::string> split_constraints(const std::string& text) {
  if (text.find("=csv:") != std::string::npos) return {text};
  std::vector<std::string> constraints;
  for (const std::string& part : split_alternatives(text)) {
    if (constraints.empty() || part.find('=') != std::string::npos)
      constraints.push_back(part);
    else
      constraints.back() += "," + part;
  }
  return constraints;
}

class Parser {
 public:
  void read(const std::string& text) {
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos) return add("constraint has no value", text, "KEY=VALUE", text);
    std::string key = text.substr(0, equals);
    static const std::map<std::string, std::string> kAliases{
        {"dp", "data"}, {"tp", "tensor"}, {"pp", "pipeline"}, {"cp", "context"}, {"ep", "expert"}};
    if (const auto alias = kAliases.find(key); alias != kAliases.end()) key = alias->second;
    const std::string value = text.substr(equals + 1);
    if (constexpr std::string_view kFile = "csv:"; key == "schedule" && value.starts_with(kFile)) {
      result_.schedule_file = value.substr(kFile.size());
      if (result_.schedule_file.empty()) add("no file", key, "csv:FILE", value);
      return;
    }
    const std::vector<std::string> values = split_alternatives(value);
    if (key == "data") return read_integers(key, values, 1, result_.data);
    if (key == "tensor") return read_integers(key, values, 1, result_.tensor);
    if (key == "pipeline") return read_integers(key, values, 1, result_.pipeline);
    if (key == "context") return read_integers(key, values, 1, result_.context);
    if (key == "expert") return read_integers(key, values, 1, result_.expert);
    if (key == "zero") return read_zero(values);
    if (key == "micro") return read_integers(key, values, 1, result_.micro);
    if (key == "samples") return read_samples(value);
    if (key == "recompute") return read_recompute(value);
    if (key == "schedule") return read_schedule(values);
    if (key == "offload") return read_word(key, value, {"none", "optimizer", "activations"}, result_.offload);
    if (key == "cuts") return read_cuts(value);
    add("unknown constraint", key, kKeys, key);
  }

  Result<Constraints> finish() {
    if (problems_.empty()) return std::move(result_);
    return combine_errors(ErrorCode::InvalidArgument, "the constraints have problems", std::move(problems_));
  }

 private:
  void add(std::string message, std::string path, std::string expected, std::string got) {
    problems_.push_back(
        Error{ErrorCode::InvalidArgument, std::move(message), "plan." + path, std::move(expected), std::move(got), ""});
  }

  template <class Integer>
  void read_integers(const std::string& key, const std::vector<std::string>& values, Integer min,
                     std::vector<Integer>& into) {
    for (const std::string& value : values) {
      Integer number{};
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
      if (error != std::errc() || end != value.data() + value.size() || number < min)
        add("not a number of the kind", key, "an integer of at least " + std::to_string(min), value);
      else
        into.push_back(number);
    }
  }
  void read_integers(const std::string& key, const std::vector<std::string>& values, int min,
                     std::vector<std::int64_t>& into) {
    read_integers<std::int64_t>(key, values, min, into);
  }

  void read_zero(const std::vector<std::string>& values) {
    std::vector<int> stages;
    read_integers("zero", values, 0, stages);
    for (const int stage : stages) {
      if (stage > 3)
        add("not a ZeRO stage", "zero", "0, 1, 2, 3", std::to_string(stage));
      else
        result_.zero.push_back(stage);
    }
  }

  /// A list in brackets, ascending or not.
  std::optional<std::vector<std::int64_t>> read_list(const std::string& key, const std::string& value,
                                                     std::int64_t min) {
    const auto json = parse_json(value);
    if (!json || !json->is_array() || json->array().empty()) {
      add("not a list", key, "numbers in brackets, such as [6,10]", value);
      return std::nullopt;
    }
    std::vector<std::int64_t> list;
    for (const Json& entry : json->array()) {
      if (!entry.is_integer() || entry.integer() < min) {
        add("not a list of the kind", key, "integers of at least " + std::to_string(min), value);
        return std::nullopt;
      }
      list.push_back(entry.integer());
    }
    return list;
  }

  void read_samples(const std::string& value) { result_.samples = read_list("samples", value, 1); }

  void read_recompute(const std::string& value) {
    if (value == "none" || value == "full" || value == "selective" ||
        (!value.empty() && value.front() == '[' && read_list("recompute", value, 0)))
      result_.recompute = value;
    else if (value.empty() || value.front() != '[')
      add("unknown value", "recompute", "none, full, selective, or block numbers in brackets", value);
  }

  void read_cuts(const std::string& value) {
    if (value == "even") {
      result_.cuts = value;
    } else if (const auto list = read_list("cuts", value, 1)) {
      if (!std::is_sorted(list->begin(), list->end(), std::less_equal<>()))
        add("cuts must ascend", "cuts", "each more than the one before", value);
      else
        result_.cuts = value;
    }
  }

  void read_word(const std::string& key, const std::string& value, const std::vector<std::string>& words,
                 std::optional<std::string>& into) {
    std::string expected;
    for (const std::string& word : words) expected += (expected.empty() ? "" : ", ") + word;
    if (std::find(words.begin(), words.end(), value) == words.end())
      add("unknown value", key, expected, value);
    else
      into = value;
  }

  void read_schedule(const std::vector<std::string>& values) {
    using plan::ScheduleKind;
    constexpr ScheduleKind kKinds[] = {ScheduleKind::GPipe,        ScheduleKind::OneForwardOneBackward,
                                       ScheduleKind::Interleaved,  ScheduleKind::ZeroBubbleH1,
                                       ScheduleKind::ZeroBubbleH2, ScheduleKind::ZeroBubbleV};
    for (const std::string& value : values) {
      const auto found = std::find_if(std::begin(kKinds), std::end(kKinds),
                                      [&](ScheduleKind kind) { return plan::to_text(kind) == value; });
      if (found == std::end(kKinds))
        add("unknown value", "schedule", "gpipe, 1f1b, interleaved, zbh1, zbh2, zbv, csv:FILE", value);
      else
        result_.schedule.push_back(*found);
    }
  }

  Constraints result_;
  std::vector<Error> problems_;
};

}  // namespace

Result<Constraints> parse_constraints(const std::vector<std::string>& texts) {
  Parser parser;
  for (const std::string& text : texts)
    for (const std::string& constraint : split_constraints(text)) parser.read(constraint);
  return parser.finish();
}

plan::Capabilities searched_capabilities(const Constraints& constraints) {
  plan::Capabilities searched = plan::kUnasked;
  if (!constraints.tensor.empty()) searched.max_tensor = plan::kRunnable.max_tensor;
  if (!constraints.context.empty()) searched.max_context = plan::kRunnable.max_context;
  if (!constraints.expert.empty()) searched.max_expert = plan::kRunnable.max_expert;
  if (!constraints.zero.empty()) searched.max_zero_stage = plan::kRunnable.max_zero_stage;
  if (constraints.offload) searched.offload = plan::kRunnable.offload;
  if (constraints.recompute == "selective") searched.selective_recompute = plan::kRunnable.selective_recompute;
  return searched;
}

}  // namespace coxswain::planner
