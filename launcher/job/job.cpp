#include "launcher/job/job.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cmath>

#include "common/bytes_io.h"
#include "common/utf8.h"
#include "launcher/job/walk.h"
#include "proto/job.pb.h"

namespace coxswain::launcher {
namespace {

using google::protobuf::Value;

/// Of a name in a model's configuration, in bytes: YAML takes no name of more than 1,024, and JSON writes some bytes as
/// six.
constexpr std::size_t kMostNameBytes = 128;

std::size_t longest_name(const Json& json) {
  std::size_t longest = 0;
  if (json.is_array()) {
    for (const Json& member : json.array()) longest = std::max(longest, longest_name(member));
  } else if (json.is_object()) {
    for (const auto& [name, member] : json.object()) longest = std::max({longest, name.size(), longest_name(member)});
  }
  return longest;
}

class Converter {
 public:
  Converter(const std::filesystem::path& file, Walk& walk) : file_(file), walk_(walk) {}

  std::filesystem::path resolve(const std::string& text) const {
    const std::filesystem::path path(text);
    return path.is_absolute() ? path : (std::filesystem::absolute(file_).parent_path() / path).lexically_normal();
  }

  void problem(const std::string& path, const std::string& message, const std::string& expected, const std::string& got,
               const std::string& hint) {
    // What is missing stands where its section does.
    auto line = walk_.lines.find(path);
    if (line == walk_.lines.end()) line = walk_.lines.find(path.substr(0, path.rfind('.')));
    walk_.problems.push_back({ErrorCode::InvalidArgument, message,
                              place(file_.string(), line == walk_.lines.end() ? 1 : line->second, path), expected, got,
                              hint});
  }

  /// Whether the walk found one whose path begins so: a bad element needs no second problem about the list.
  bool has_problem(const std::string& path) const {
    return std::any_of(walk_.problems.begin(), walk_.problems.end(),
                       [&](const Error& e) { return e.path.find("  " + path) != std::string::npos; });
  }

  JobModel model(const job::Model& message) {
    JobModel model;
    const int num_given = int(message.has_pt2()) + int(message.has_huggingface()) + int(message.has_config());
    if (num_given != 1)
      problem("model", "one source of the model is needed", "exactly one of pt2, huggingface, config",
              std::to_string(num_given) + " of them", "keep one, for example `model: {pt2: model.pt2}`");
    if (message.has_pt2()) model.pt2 = resolve(message.pt2());
    if (message.has_huggingface()) model.huggingface_folder = resolve(message.huggingface());
    if (message.has_config()) {
      std::string text;
      if (google::protobuf::util::MessageToJsonString(message.config(), &text).ok())
        if (auto json = parse_json(text)) model.config = integers_restored(*json);
      if (const std::size_t bytes = model.config ? longest_name(*model.config) : 0; bytes > kMostNameBytes)
        problem("model.config", "a name is too long", "at most " + std::to_string(kMostNameBytes) + " bytes",
                std::to_string(bytes), "");
    }
    return model;
  }

  JobData data(const job::Data& message) {
    JobData data;
    if (message.has_text()) data.text = resolve(message.text());
    if (message.has_tensors()) data.tensors = resolve(message.tensors());
    if (message.has_text() && message.has_tensors())
      problem("data", "data given twice", "one of `text` and `tensors`", "both", "keep one");
    else if (!message.has_text() && !message.has_tensors() && !walk_.uses_missing_feature)
      problem("data", "no data given", "`text` or `tensors`", "nothing", "add `text: FILE`");
    if (!message.has_sequence_length() && !message.has_tensors() && !has_problem("data.sequence_length"))
      problem("data.sequence_length", "required key is missing", "an integer from 1 to 16777216", "nothing",
              "add `sequence_length:`");
    data.sequence_length = message.sequence_length();
    data.seed = message.seed();
    return data;
  }

  // A protobuf Struct knows only doubles; sizes in a model's configuration are integers.
  static Json integers_restored(const Json& json) {
    if (json.is_object()) {
      JsonObject object;
      for (const auto& [key, member] : json.object()) object[key] = integers_restored(member);
      return object;
    }
    if (json.is_array()) {
      JsonArray array;
      for (const auto& member : json.array()) array.push_back(integers_restored(member));
      return array;
    }
    if (json.is_number() && !json.is_integer() && std::nearbyint(json.number()) == json.number() &&
        std::fabs(json.number()) < 1e15)
      return static_cast<std::int64_t>(json.number());
    return json;
  }

  void micro_batch(const Value& value, Job& job) {
    if (value.kind_case() == Value::KIND_NOT_SET ||
        (value.kind_case() == Value::kStringValue && value.string_value() == "auto"))
      return;
    const double number = value.kind_case() == Value::kNumberValue ? value.number_value() : -1;
    if (number < 1 || number != std::floor(number) || number > 1e9)
      return problem("batch.micro", "wrong value", "auto or a positive integer", text_of(value), "");
    job.micro_batch = static_cast<std::int64_t>(number);
    if (job.global_batch > 0 && job.global_batch % job.micro_batch != 0)
      problem("batch.micro", "micro-batch does not divide the global batch",
              "a divisor of " + std::to_string(job.global_batch), std::to_string(job.micro_batch),
              "use a divisor, or `auto`");
  }

  void plan(const Value& value, Job& job) {
    switch (value.kind_case()) {
      case Value::KIND_NOT_SET: return;
      case Value::kStringValue:
        if (value.string_value() != "auto") job.plan_file = resolve(value.string_value());
        return;
      case Value::kStructValue: break;
      default: return problem("plan", "wrong type", "auto, a plan file, or constraints", text_of(value), "");
    }
    for (const auto& [key, member] : value.struct_value().fields()) {
      const std::string text = constraint_text(key, member);
      auto one = planner::parse_constraints({key + "=" + text});
      if (!one)
        problem("plan." + key, one.error().message, one.error().expected, text_of(member), one.error().hint);
      else
        texts_.push_back(key + "=" + text);
    }
    // The map of a protobuf Struct has no order; the texts must not depend on it.
    std::sort(texts_.begin(), texts_.end());
    if (auto all = planner::parse_constraints(texts_)) job.constraints = *all;
    job.constraint_texts = texts_;
  }

  static std::string text_of(const Value& value) {
    switch (value.kind_case()) {
      case Value::kStringValue: return value.string_value();
      case Value::kBoolValue: return value.bool_value() ? "true" : "false";
      case Value::kNumberValue: {
        const double number = value.number_value();
        return number == std::floor(number) && std::fabs(number) < 1e15
                   ? std::to_string(static_cast<std::int64_t>(number))
                   : std::to_string(number);
      }
      case Value::kListValue: {
        std::string text;
        for (const auto& item : value.list_value().values()) text += (text.empty() ? "" : ",") + text_of(item);
        return "[" + text + "]";
      }
      default: return "a mapping";
    }
  }

  // `cuts` and `samples` are lists as such; for every other key a list means alternatives.
  [[nodiscard]] std::string constraint_text(const std::string& key, const Value& value) const {
    const std::string text = text_of(value);
    // A file stands beside the job's.
    if (key == "schedule" && text.starts_with("csv:") && text.size() > 4)
      return "csv:" + resolve(text.substr(4)).string();
    const bool list_is_value = key == "cuts" || key == "samples" || key == "recompute";
    return value.kind_case() == Value::kListValue && !list_is_value ? text.substr(1, text.size() - 2) : text;
  }

 private:
  const std::filesystem::path& file_;
  Walk& walk_;
  std::vector<std::string> texts_;
};

void convert_optimizer(const job::Optimizer& message, Job& job, Converter& converter) {
  if (message.has_learning_rate()) job.optimizer.learning_rate = message.learning_rate();
  if (message.betas_size() == 2) {
    job.optimizer.beta1 = message.betas(0);
    job.optimizer.beta2 = message.betas(1);
  } else if (message.betas_size() != 0 && !converter.has_problem("optimizer.betas[")) {
    converter.problem("optimizer.betas", "wrong number of values", "two numbers from 0 to below 1",
                      std::to_string(message.betas_size()), "");
  }
  if (message.has_weight_decay()) job.optimizer.weight_decay = message.weight_decay();
  if (message.has_clip_grad_norm()) job.optimizer.clip_grad_norm = message.clip_grad_norm();
  if (message.has_warmup_steps()) job.optimizer.warmup_steps = message.warmup_steps();
  if (message.has_decay()) job.optimizer.decay = message.decay();
  if (message.has_min_ratio()) job.optimizer.min_ratio = message.min_ratio();
  job.optimizer.skip_non_finite = message.non_finite() == "skip";
}

}  // namespace

Result<Job> parse_job(const std::string& text, const std::filesystem::path& file) {
  return guard("launcher", [&]() -> Result<Job> {
    if (const std::size_t good = count_utf8_bytes(text); good < text.size())
      return Error{
          ErrorCode::InvalidArgument,
          "the job is no UTF-8 text",
          file.string() + ":" + std::to_string(1 + std::count(text.begin(), text.begin() + good, '\n')),
          "UTF-8",
          "byte " + std::to_string(static_cast<unsigned char>(text[good])) + " at offset " + std::to_string(good),
          "save it as UTF-8"};
    job::Job message;
    Walk walk = walk_yaml(text, file.string(), message);
    Converter converter(file, walk);
    Job job;
    job.file = file;
    job.name = message.name();
    if (!job.name.empty() &&
        job.name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") !=
            std::string::npos)
      converter.problem("name", "name is used in paths", "letters, digits, `-`, `_`, `.`", job.name, "");
    if (message.has_model()) job.model = converter.model(message.model());
    if (message.has_data()) job.data = converter.data(message.data());
    job.validation = {message.validation().fraction(), message.validation().every_steps(),
                      message.validation().steps()};
    job.global_batch = message.batch().global();
    converter.micro_batch(message.batch().micro(), job);
    job.precision = plan::parse_precision(message.precision()).value_or(plan::Precision::Float32);
    convert_optimizer(message.optimizer(), job, converter);
    job.steps = message.train().steps();
    job.seed = message.train().seed();
    if (message.train().has_log_every()) job.log_every = message.train().log_every();
    if (!message.checkpoint().directory().empty())
      job.checkpoint.directory = converter.resolve(message.checkpoint().directory());
    if (message.elastic().has_min_nodes()) job.min_nodes = static_cast<int>(message.elastic().min_nodes());
    if (message.elastic().has_max_nodes()) job.max_nodes = static_cast<int>(message.elastic().max_nodes());
    if (job.max_nodes > 0 && job.max_nodes < job.min_nodes)
      converter.problem("elastic.max_nodes", "fewer nodes than elastic.min_nodes",
                        std::to_string(job.min_nodes) + " or more", std::to_string(job.max_nodes), "");
    if (message.elastic().has_max_restarts()) job.max_restarts = static_cast<int>(message.elastic().max_restarts());
    job.checkpoint.every_steps = message.checkpoint().every_steps();
    if (message.checkpoint().has_keep()) job.checkpoint.keep = message.checkpoint().keep();
    if (message.has_cluster()) {
      const auto& cluster = message.cluster();
      if (cluster.kind_case() != Value::kStringValue)
        converter.problem("cluster", "wrong type", "auto or a cluster file", Converter::text_of(cluster), "");
      else if (cluster.string_value() != "auto")
        job.cluster_file = converter.resolve(cluster.string_value());
    }
    converter.plan(message.plan(), job);
    for (const auto& [key, value] : message.environment()) job.environment[key] = value;
    if (walk.problems.empty()) return job;
    const bool only_missing = std::all_of(walk.problems.begin(), walk.problems.end(),
                                          [](const Error& e) { return e.code == ErrorCode::Unimplemented; });
    const std::string title = std::to_string(walk.problems.size()) + " problems in the job file";
    return combine_errors(only_missing ? ErrorCode::Unimplemented : ErrorCode::InvalidArgument, title,
                          std::move(walk.problems));
  });
}

Result<Job> load_job(const std::filesystem::path& file) {
  if (file.extension() == ".py")
    return Error{ErrorCode::InvalidArgument,
                 "a Python script is no job file",
                 file.string(),
                 "a job file (YAML or JSON)",
                 file.filename().string(),
                 "export the model once in Python, `coxswain.export(module, example_inputs, \"model.pt2\")`, name it "
                 "in a job file "
                 "(`model: {pt2: model.pt2}`) and run `launch train job.yaml`; examples/gpt shows both"};
  COX_TRY(std::string text, read_file(file));
  return parse_job(text, file);
}

}  // namespace coxswain::launcher
