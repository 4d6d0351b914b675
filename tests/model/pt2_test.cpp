// Reads archives that PyTorch wrote (make_fixtures.py); expected numbers in expectations.json come from eager PyTorch.
// That the graphs compute the same is checked by running them in PyTorch (run_graph.py).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <random>
#include <set>

#include "common/bytes_io.h"
#include "common/env.h"
#include "common/json.h"
#include "model/load.h"
#include "model/shard.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::model;

namespace {

std::filesystem::path folder() { return std::filesystem::path(env("COX_BINARY_DIR").value_or(".")) / "fixtures"; }
std::filesystem::path fixture(const std::string& name) { return folder() / (name + ".pt2"); }

const Json& expectations() {
  static const Json json = parse_json(read_file(folder() / "expectations.json").value()).value();
  return json;
}

ModelGraph load(const std::string& name) {
  auto graph = load_pt2(fixture(name));
  if (!graph) FAIL(to_text(graph.error()));
  return std::move(*graph);
}

double sum_of_weights(const WeightFile& file, const Parameter& parameter) {
  REQUIRE(parameter.dtype == DType::Float32);
  double sum = 0;
  std::vector<std::int64_t> index(parameter.dims.size(), 0);
  std::int64_t elements = 1, reach = parameter.weights->storage_offset + 1;
  for (std::size_t i = 0; i < index.size(); ++i) {
    elements *= parameter.dims[i];
    reach += (parameter.dims[i] - 1) * parameter.weights->strides[i];
  }
  const auto bytes = file.at(*parameter.weights, Bytes(reach * 4));
  REQUIRE(bytes.has_value());
  for (std::int64_t n = 0; n < elements; ++n) {
    std::int64_t rest = n, place = parameter.weights->storage_offset;
    for (std::size_t i = index.size(); i-- > 0;) {
      place += (rest % parameter.dims[i]) * parameter.weights->strides[i];
      rest /= parameter.dims[i];
    }
    float element = 0;
    std::memcpy(&element, *bytes + place * 4, 4);
    sum += static_cast<double>(element);
  }
  return sum;
}

bool mentions(const Error& error, const std::string& text) {
  if (to_text(error).find(text) != std::string::npos) return true;
  return std::any_of(error.details.begin(), error.details.end(),
                     [&](const Error& detail) { return mentions(detail, text); });
}

}  // namespace

TEST_CASE("parameters have PyTorch's names, sizes and content", "[pt2]") {
  for (const auto& [name, expected] : expectations().object()) {
    if (expected["not_runnable"] == Json(true)) continue;
    INFO(name);
    const ModelGraph graph = load(name);
    const auto file = WeightFile::open(fixture(name));
    REQUIRE(file.has_value());
    std::int64_t elements = 0;
    REQUIRE(graph.parameters.size() == expected["parameters"].object().size());
    for (const Parameter& parameter : graph.parameters) {
      INFO(parameter.name);
      const Json& wanted = expected["parameters"][parameter.name];
      REQUIRE(wanted.is_object());
      JsonArray dims(parameter.dims.begin(), parameter.dims.end());
      CHECK(Json(dims) == wanted["dims"]);
      CHECK(sum_of_weights(*file, parameter) == Approx(wanted["sum"].number()).margin(1e-9));
      std::int64_t count = 1;
      for (const auto dim : parameter.dims) count *= dim;
      elements += count;
    }
    CHECK(elements == expected["num_parameters"].integer());
  }
}

TEST_CASE("tied weights are one parameter under the first of its names", "[pt2]") {
  const ModelGraph graph = load("gpt2");
  const auto tied = std::find_if(graph.parameters.begin(), graph.parameters.end(),
                                 [](const Parameter& p) { return !p.tied_names.empty(); });
  REQUIRE(tied != graph.parameters.end());
  CHECK(tied->name == "model.transformer.wte.weight");
  CHECK(tied->tied_names == std::vector<std::string>{"model.lm_head.weight"});
}

TEST_CASE("the batch alone is symbolic, and static where it was baked in", "[pt2]") {
  const ModelGraph dynamic = load("gpt"), fixed = load("gpt_static");
  REQUIRE(dynamic.inputs.size() == 2);
  CHECK(dynamic.batch_symbol == "batch");
  CHECK(dynamic.inputs[0].name == "tokens");
  CHECK(dynamic.values[dynamic.inputs[0].value].dims == std::vector<Dim>{Dim::symbol("batch"), 16});
  CHECK(fixed.batch_symbol.empty());
  CHECK(fixed.static_batch == 4);
  CHECK(fixed.values[fixed.inputs[1].value].dims == std::vector<Dim>{4, 16});
}

TEST_CASE("default arguments, sizes and modules of one operator are read", "[pt2]") {
  const ModelGraph graph = load("gpt");
  const auto attention = std::find_if(graph.ops.begin(), graph.ops.end(),
                                      [](const Op& op) { return op.target == "aten::scaled_dot_product_attention"; });
  REQUIRE(attention != graph.ops.end());
  CHECK(attention->module_path == "blocks.0.attention");
  CHECK(attention->source.starts_with("model.py:"));
  REQUIRE(attention->arguments.size() == 8);
  CHECK(std::holds_alternative<None>(attention->arguments[3].value));
  CHECK(std::get<double>(attention->arguments[4].value) == 0.1);
  CHECK(std::get<bool>(attention->arguments[5].value));
  CHECK(std::holds_alternative<None>(attention->arguments[6].value));
  const auto view =
      std::find_if(graph.ops.begin(), graph.ops.end(), [](const Op& op) { return op.target == "aten::view"; });
  CHECK(std::get<std::vector<Dim>>(view->arguments[1].value) == std::vector<Dim>{Dim::symbol("batch"), 16, 3, 4, 8});
}

TEST_CASE("no in-place operator, check or unchanged cast is left", "[pt2]") {
  for (const char* name : {"in_place", "views", "llama", "llama_cache", "gpt2_cache_eager"}) {
    for (const Op& op : load(name).ops) {
      INFO(name << " " << op.target);
      const std::string base = op.target.substr(0, op.target.find('.'));
      CHECK_FALSE(base.ends_with('_'));
      CHECK(op.target.find("_assert") == std::string::npos);
      CHECK(op.target.find("lift_fresh") == std::string::npos);
    }
  }
  const ModelGraph llama = load("llama");
  CHECK(std::none_of(llama.ops.begin(), llama.ops.end(), [&](const Op& op) {
    return op.target == "aten::to.dtype" &&
           llama.values[std::get<ValueRef>(op.arguments[0].value).id].dtype == llama.values[op.outputs[0]].dtype;
  }));
}

TEST_CASE("every value has a name of its own", "[pt2]") {
  for (const char* name : {"gpt", "llama", "views"}) {
    std::set<std::string> names;
    for (const Value& value : load(name).values) CHECK(names.insert(value.name).second);
  }
}

TEST_CASE("nested graphs without gradient keep that", "[pt2]") {
  const ModelGraph graph = load("llama");
  int without = 0;
  for (const Op& op : graph.ops) {
    if (op.target == "aten::cos" || op.target == "aten::sin") {
      CHECK_FALSE(op.grad_enabled);
      ++without;
    }
    if (op.target == "aten::linear") CHECK(op.grad_enabled);
  }
  CHECK(without == 2);
}

TEST_CASE("a mean cross-entropy becomes a sum over the targets that count", "[pt2]") {
  const ModelGraph graph = load("masked");
  REQUIRE(graph.loss.size() == 2);
  CHECK(graph.loss[0].coefficient == 1.0);
  CHECK(graph.loss[1].coefficient == Approx(0.1));
  CHECK(graph.coupled.empty());
  for (const LossTerm& term : graph.loss) {
    REQUIRE(term.denominator.has_value());
    CHECK(graph.values[*term.denominator].dtype == DType::Int64);
    CHECK_FALSE(graph.values[*term.denominator].depends_on_parameter);
    const Op& op = graph.ops[graph.values[term.numerator].producer];
    const auto reduction =
        std::find_if(op.arguments.begin(), op.arguments.end(), [](const Argument& a) { return a.name == "reduction"; });
    CHECK(std::get<Dim>(reduction->value) == Dim(2));
  }
}

TEST_CASE("a loss that is no mean over samples is named with its source line", "[pt2]") {
  for (const char* name : {"loss_sum", "loss_product", "symbolic"}) {
    INFO(name);
    const ModelGraph graph = load(name);
    REQUIRE_FALSE(graph.coupled.empty());
    CHECK_FALSE(graph.coupled.front().reason.empty());
    CHECK(graph.ops[graph.coupled.front().op].source.starts_with("make_fixtures.py:"));
  }
  for (const char* name : {"gpt", "gpt2", "llama", "loss_terms", "in_place", "views"}) {
    INFO(name);
    CHECK(load(name).coupled.empty());
  }
  CHECK(load("loss_terms").loss.size() == 7);
}

TEST_CASE("experts that were sorted into groups are read in the form without a sort", "[pt2]") {
  const auto count = [](const ModelGraph& graph, std::string_view target) {
    return std::count_if(graph.ops.begin(), graph.ops.end(), [&](const Op& op) { return op.target == target; });
  };
  for (const char* name : {"experts", "experts_by_rows"}) {
    INFO(name);
    const ModelGraph graph = load(name);
    // Nothing mixes samples any more: run_graph.py splits the batch of these two.
    CHECK(graph.coupled.empty());
    for (const char* gone : {"transformers::grouped_mm_fallback", "aten::sort", "aten::histc", "aten::index_put"})
      CHECK(count(graph, gone) == 0);
    CHECK(count(graph, "aten::bmm") == 4);
    for (const int block : {1, 2}) {
      const BlockExperts experts = find_experts(graph, block);
      CHECK(experts.count == 5);
      CHECK(experts.chosen == 2);
      CHECK(experts.tables.size() == 2);
    }
    std::set<std::string> names;
    for (const Value& value : graph.values) CHECK(names.insert(value.name).second);
  }
  // A sum over rows as they were sorted depends on the order.
  const ModelGraph kept = load("experts_sorted");
  CHECK(count(kept, "transformers::grouped_mm_fallback") == 2);
  CHECK(count(kept, "aten::sort") == 1);
  CHECK_FALSE(kept.coupled.empty());
}

TEST_CASE("the recorded step is the eager one", "[pt2]") {
  for (const char* name : {"gpt", "gpt2", "llama", "masked"}) {
    const auto step = load_recorded_step(fixture(name));
    REQUIRE(step.has_value());
    const Json& expected = expectations()[name];
    CHECK(step->loss == Approx(expected["loss"].number()).epsilon(1e-12));
    CHECK(step->grad_norm == Approx(expected["grad_norm"].number()).epsilon(1e-9));
    CHECK(step->grad_norms.size() == expected["grad_norms"].object().size());
    REQUIRE(step->input_entries.size() == expected["input_dims"].array().size());
    for (std::size_t i = 0; i < step->input_entries.size(); ++i) {
      std::int64_t elements = 1;
      for (const auto dim : step->input_dims[i]) elements *= dim;
      CHECK(read_archive_entry(fixture(name), step->input_entries[i]).value().size() ==
            static_cast<std::size_t>(elements) * 8);
    }
  }
  CHECK(load_recorded_step(fixture("no_manifest")).error().code == ErrorCode::NotFound);
  CHECK(load_pt2(fixture("no_manifest")).has_value());
}

TEST_CASE("everything that cannot run is named at once", "[pt2]") {
  const auto graph = load_pt2(fixture("unsupported"));
  REQUIRE_FALSE(graph.has_value());
  CHECK(graph.error().details.size() == 4);
  CHECK(mentions(graph.error(), "aten::rand_like"));
  CHECK(mentions(graph.error(), "autocast"));
  CHECK(mentions(graph.error(), "values.fft_rfft"));
  CHECK(mentions(graph.error(), "running"));
  CHECK(mentions(graph.error(), "make_fixtures.py:"));

  const auto unknown = load_pt2(fixture("bad_graph"));
  REQUIRE_FALSE(unknown.has_value());
  CHECK(unknown.error().details.size() == 2);
  CHECK(mentions(unknown.error(), "operator aten::mystery is unknown"));
  CHECK(mentions(unknown.error(), "operator mine::drop is unknown"));
  CHECK(mentions(unknown.error(), "(and 4 more)"));
}

TEST_CASE("damaged archives are errors that say what is wrong", "[pt2]") {
  const std::vector<std::tuple<const char*, ErrorCode, const char*>> cases = {
      {"bad_version", ErrorCode::Unimplemented, "schema_version"},
      {"bad_json", ErrorCode::DataLoss, "not JSON"},
      {"short_weight", ErrorCode::DataLoss, "weight_2"},
      {"lost_weight", ErrorCode::NotFound, "weight_2"},
      {"no_model", ErrorCode::InvalidArgument, "one model"},
      {"no_archive", ErrorCode::DataLoss, "no zip archive"},
      {"empty", ErrorCode::DataLoss, "empty"},
      {"bad_crc", ErrorCode::DataLoss, "CRC"},
      {"nothing", ErrorCode::NotFound, "nothing.pt2"}};
  for (const auto& [name, code, text] : cases) {
    INFO(name);
    const auto graph = load_pt2(fixture(name));
    REQUIRE_FALSE(graph.has_value());
    CHECK(graph.error().code == code);
    CHECK(mentions(graph.error(), text));
  }
}

TEST_CASE("an archive cut anywhere is an error, never a crash", "[pt2]") {
  const std::string whole = read_file(fixture("in_place")).value();
  const auto path =
      std::filesystem::temp_directory_path() / ("cox_pt2_cut_" + std::to_string(std::random_device{}()) + ".pt2");
  for (int i = 0; i < 50; ++i) {
    const std::size_t length = whole.size() * static_cast<std::size_t>(i) / 50;
    std::ofstream(path, std::ios::binary | std::ios::trunc).write(whole.data(), static_cast<std::streamsize>(length));
    INFO("first " << length << " bytes");
    const auto graph = load_pt2(path);
    REQUIRE_FALSE(graph.has_value());
    CHECK(graph.error().code == ErrorCode::DataLoss);
  }
  std::filesystem::remove(path);
}

TEST_CASE("flipped bytes give an error or a graph, never a crash or a bug report", "[pt2]") {
  const std::string whole = read_file(fixture("in_place")).value();
  const auto path =
      std::filesystem::temp_directory_path() / ("cox_pt2_flip_" + std::to_string(std::random_device{}()) + ".pt2");
  std::mt19937 generator(20261123);
  int errors = 0;
  for (int i = 0; i < 300; ++i) {
    std::string changed = whole;
    // The last third of the flips goes to the directory at the end, which no checksum covers.
    const std::size_t first = i < 200 ? 0 : whole.size() - 2500;
    const std::size_t place = first + generator() % (whole.size() - first);
    changed[place] = static_cast<char>(generator());
    std::ofstream(path, std::ios::binary | std::ios::trunc)
        .write(changed.data(), static_cast<std::streamsize>(changed.size()));
    INFO("byte " << place);
    const auto graph = load_pt2(path);
    if (!graph) {
      CHECK(graph.error().code != ErrorCode::Internal);
      ++errors;
    }
  }
  CHECK(errors > 100);
  std::filesystem::remove(path);
}
