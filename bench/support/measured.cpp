#include "bench/support/measured.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <regex>

#include "bench/support/csv.h"
#include "common/bytes_io.h"

namespace coxswain::bench {
namespace {

using namespace cost_model;

constexpr double kUsualVocabulary = 51200;  // GPT-2's, padded: what the papers without a number used

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

/// The number that `pattern`'s only group finds in `text`.
std::optional<double> number_in(const std::string& text, const char* pattern) {
  std::smatch match;
  if (!std::regex_search(text, match, std::regex(pattern))) return std::nullopt;
  return std::stod(match[1]);
}

/// Reads one row; the first thing that is missing or makes no sense is kept as the reason.
class RowReader {
 public:
  RowReader(const CsvRow& row, const Json& devices) : row_(row), devices_(devices) {}

  std::optional<MeasuredRow> read() {
    if (!row_.problem.empty()) fail(row_.problem);
    result_.group = row_["group"].empty() ? row_["source"] : row_["group"];
    result_.id = row_["id"];
    result_.machine = result_.group.substr(0, result_.group.find('-')) + " on " + row_["gpu"];
    read_shape();
    read_recipe();
    read_software();
    read_time();
    if (reason_.empty()) read_machine();
    if (!reason_.empty()) return std::nullopt;
    result_.experts = shape().experts > 0;
    result_.narrow = recipe().format != NumberFormat::Bits16;
    result_.sharded = recipe().zero_stage >= 3 || fully_sharded();
    return result_;
  }
  [[nodiscard]] const std::string& reason() const { return reason_; }
  [[nodiscard]] const MeasuredRow& result() const { return result_; }

 private:
  TransformerShape& shape() { return result_.measured.shape; }
  Recipe& recipe() { return result_.measured.recipe; }
  [[nodiscard]] const std::string& notes() const { return row_["notes"]; }

  void fail(const std::string& reason) {
    if (reason_.empty()) reason_ = reason;
  }

  std::optional<double> parse(const std::string& column) {
    const std::string& text = row_[column];
    if (text.empty()) return std::nullopt;
    double value = 0;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (failed != std::errc{} || end != text.data() + text.size() || !std::isfinite(value)) {
      fail(column + " is not a number: " + text);
      return std::nullopt;
    }
    return value;
  }
  double need(const std::string& column) {
    const auto value = parse(column);
    if (!value) fail(column + " is missing");
    if (value && !(*value > 0)) fail(column + " is not positive: " + row_[column]);
    return value.value_or(1);
  }
  double take(const std::string& column, double otherwise) {
    const auto value = parse(column);
    if (value && !(*value > 0)) fail(column + " is not positive: " + row_[column]);
    return value.value_or(otherwise);
  }

  void read_shape() {
    TransformerShape& s = shape();
    s.num_blocks = need("layers");
    s.hidden = need("hidden");
    s.heads = take("heads", std::max(1.0, std::round(s.hidden / (s.hidden < 2048 ? 64 : 128))));
    s.kv_heads = take("kv_heads", s.heads);
    s.ffn_hidden = take("ffn_hidden", 4 * s.hidden);
    s.mlp_matrices = row_["mlp"] == "swiglu" ? 3 : 2;
    s.vocabulary = take("vocab", kUsualVocabulary);
    s.sequence = need("seq_len");
    if (!row_["experts"].empty() && row_["experts"] != "0" && row_["experts"] != "1") {
      s.experts = need("experts");
      s.experts_per_token = need("topk");
    }
    if (contains(notes(), "MLA")) {
      s.query_rank = number_in(notes(), "q_lora ([0-9]+)").value_or(1536);
      s.kv_rank = number_in(notes(), "kv_lora ([0-9]+)").value_or(512);
      s.head_size = 128;
    }
    s.head_size = number_in(notes(), "head_dim ([0-9]+)").value_or(s.head_size);
    s.shared_experts = number_in(notes(), "([0-9]+) shared expert").value_or(0);
    if (const auto dense = number_in(notes(), "dense FFN ([0-9]+) in first layers"); dense && s.experts > 0) {
      s.dense_ffn_hidden = *dense;
      s.dense_blocks = 3;  // as DeepSeek-V3 has
    }
    if (contains(notes(), "alternating sliding-window")) s.attended_fraction = 0.5;
    const std::string& model = row_["model"];
    if (contains(model, "DeepSeekV3") && !contains(model, "w/o MTP")) s.prediction_heads = 2;
  }

  void read_recipe() {
    Recipe& r = recipe();
    r.tensor = take("tp", 1);
    r.pipeline = take("pp", 1);
    r.context = take("cp", 1);
    r.chunks = take("vpp", 1);
    r.expert = take("ep", 1);
    r.expert_tensor = number_in(notes(), "ETP ([0-9]+)").value_or(r.tensor);
    const double devices = need("gpus");
    const double group = r.tensor * r.pipeline * r.context;
    r.data = std::max(1.0, std::round(devices / group));
    if (reason_.empty() && r.data * group != devices)
      fail("tp x pp x cp = " + std::to_string(std::lround(group)) + " does not divide gpus = " + row_["gpus"]);
    const double batch = need("global_batch");
    r.micro_batch = need("micro_batch");
    r.num_micro_batches = std::max(1.0, std::round(batch / (r.data * r.micro_batch)));
    r.zero_stage = static_cast<int>(parse("zero_stage").value_or(0));
    if (r.zero_stage < 0 || r.zero_stage > 3) fail("zero_stage is not 0 to 3: " + row_["zero_stage"]);
    const std::string& sequence = row_["sequence_parallel"];
    r.sequence_parallel = sequence.empty() ? r.tensor > 1 : sequence == "1";
    const std::string& schedule = row_["schedule"];
    if (schedule == "ZB-1p" || schedule == "ZB-H1") r.schedule = RecipeSchedule::ZeroBubbleFirst;
    if (schedule == "ZB-2p" || schedule == "ZB-H2") r.schedule = RecipeSchedule::ZeroBubbleSecond;
    read_format();
  }

  void read_format() {
    const std::string& dtype = row_["dtype"];
    Recipe& r = recipe();
    if (dtype == "fp8") r.format = contains(notes(), "rowwise") ? NumberFormat::Bits8Rows : NumberFormat::Bits8;
    if (dtype == "mxfp8") r.format = NumberFormat::Bits8Blocks;
    if (dtype == "nvfp4" || dtype == "mxfp4") r.format = NumberFormat::Bits4;
    if (dtype == "fp32" || dtype == "tf32") fail("dtype " + dtype + ": only 16, 8 and 4 bits are modelled");
  }

  [[nodiscard]] bool fully_sharded() const {
    const std::string& framework = row_["framework"];
    return contains(framework, "FSDP") || row_["zero_stage"] == "3";
  }

  /// What a framework does unless the notes say otherwise.
  void read_software() {
    const std::string& framework = row_["framework"];
    Recipe& r = recipe();
    const bool core = contains(framework, "Megatron-Core") || contains(framework, "NeMo");
    const bool foundry = contains(framework, "llm-foundry");
    const bool early = contains(framework, "Megatron-DeepSpeed") || (contains(framework, "Megatron-LM") && !core);
    r.attention = core ? AttentionKernel::Tuned : AttentionKernel::FlashSecond;
    if (foundry) r.attention = AttentionKernel::FlashFirst;
    if (early) r.attention = AttentionKernel::ExplicitScores;
    if (contains(notes(), "flash_attentionv1")) r.attention = AttentionKernel::FlashFirst;
    if (contains(notes(), "flash_attention2")) r.attention = AttentionKernel::FlashSecond;
    r.overlaps_gradients = core;
    r.overlaps_tensor = core;
    r.asynchronous_tensor = contains(notes(), "async TP") || contains(notes(), "AsyncTP");
    r.overlaps_experts = contains(notes(), "all-to-all overlap");
    r.narrow_gradients = contains(notes(), "mode PURE");
    r.captured = core && contains(row_["source"], "MLPerf");
    const bool titan = contains(framework, "torchtitan");
    r.compiled = titan && contains(notes(), "compile");
    r.fused_norm = !contains(notes(), "kernel:") || contains(notes(), "RMS kernel");
    r.frozen_weights = row_["task"] == "lora";
    r.grouped_experts = !contains(notes(), "no grouped GEMM");
    const std::string& recompute = row_["recompute"];
    if (recompute == "full") r.recompute = RecipeRecompute::Full;
    if (recompute == "selective") {
      r.recompute = RecipeRecompute::Pointwise;
      if (titan) r.recompute = RecipeRecompute::Alternate;
      if (early) r.recompute = RecipeRecompute::Attention;
    }
    std::smatch match;
    static const std::regex kLayers("([0-9]+) of ([0-9]+) layers recomputed");
    const std::string& text = notes();
    if (std::regex_search(text, match, kLayers)) {
      const double of = std::stod(match[2]);
      r.recomputed_fraction = of > 0 ? std::stod(match[1]) / of : 1;
    }
  }

  /// The printed step, or what the printed rate and batch make of it.
  void read_time() {
    std::optional<double> seconds = parse("iter_seconds");
    if (!seconds) {
      const auto value = parse("measured_value");
      const std::string& unit = row_["unit"];
      const double batch = take("global_batch", 0);
      if (value && *value > 0 && unit == "samples_per_s") seconds = batch / *value;
      if (value && *value > 0 && unit == "tokens_per_s_per_gpu")
        seconds = batch * shape().sequence / *value / take("gpus", 1);
    }
    if (!seconds) return fail("no measured step time");
    if (!(*seconds > 0)) return fail("the measured step time is not positive");
    result_.measured.step = Seconds(*seconds);
  }

  void read_machine() {
    const double per_node = std::min(take("gpus_per_node", 8), std::max(take("gpus", 8), 1.0));
    auto machine = measured_machine(row_["gpu"], take("gpus_per_node", per_node), row_["inter_node_link"], devices_);
    if (!machine) return fail(machine.error().message + ": " + machine.error().got);
    result_.measured.machine = std::move(*machine);
    const auto time = estimate_recipe(shape(), recipe(), result_.measured.machine, prior_efficiency());
    if (!time) fail(time.error().details.empty() ? time.error().message : time.error().details.front().path);
  }

  const CsvRow& row_;
  const Json& devices_;
  MeasuredRow result_;
  std::string reason_;
};

}  // namespace

MeasuredTables read_measured(std::string_view throughput_csv, const Json& devices, const std::string& score_set) {
  MeasuredTables tables;
  for (const CsvRow& row : parse_csv(throughput_csv)) {
    const bool chosen = score_set == "all" || !row.fields.contains("score_set") || row["score_set"] == score_set;
    if (!chosen && row.problem.empty()) continue;
    RowReader reader(row, devices);
    if (auto read = reader.read()) {
      tables.rows.push_back(std::move(*read));
    } else {
      const std::string id = row["id"].empty() ? "line " + std::to_string(row.line) : row["id"];
      tables.unpredicted.push_back({id, reader.result().group, reader.reason()});
    }
  }
  return tables;
}

Result<MeasuredTables> read_measured_folder(const std::filesystem::path& folder, const std::string& score_set) {
  COX_TRY(const std::string table, read_file(folder / "lm_throughput.csv"));
  Json devices;
  if (const auto text = read_file(folder / "devices.json")) {
    COX_TRY(devices, parse_json(*text));
  }
  return read_measured(table, devices, score_set);
}

}  // namespace coxswain::bench
