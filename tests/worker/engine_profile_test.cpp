// The profile, the rates, models without weights, and what is refused by name.
#include <algorithm>
#include <numeric>
#include <set>

#include "tests/worker/engine_support.h"

#include <catch2/catch.hpp>

namespace coxswain::tests {

TEST_CASE("a profile has every distinct block once per number of samples") {
  const model::ModelGraph graph = load_fixture("gpt_four_layers.pt2");
  worker::TrainSettings settings = eager_settings();
  int barriers = 0;
  const auto barrier = [&] {
    ++barriers;
    return collective::Handle{};
  };
  const auto profile = worker::profile_blocks(graph, {2, 8}, "cpu", settings, Seconds(0.2), barrier);
  if (!profile) FAIL(to_text(profile.error()));
  // Prologue, a layer, epilogue.
  REQUIRE(profile->blocks.size() == 6);
  CHECK(barriers == 13);  // three rounds: before and after each of 2 numbers of samples; before the device's rates
  std::set<std::string> signatures;
  for (const auto& block : graph.blocks) signatures.insert(block.signature);
  for (const auto& timing : profile->blocks) {
    CHECK(signatures.count(timing.signature) == 1);
    CHECK(timing.device_class == "cpu");
    CHECK(timing.forward.value > 0);
    CHECK(timing.backward.value > 0);
  }
  // Eight samples keep about four times what two do.
  const auto saved = [&](std::int64_t samples) {
    for (const auto& timing : profile->blocks)
      if (timing.signature == graph.blocks[2].signature && timing.samples == samples)
        return static_cast<double>(timing.saved.value);
    return 0.0;
  };
  CHECK(saved(2) > 0);
  CHECK(saved(8) / saved(2) == Approx(4).epsilon(0.25));
  REQUIRE(profile->devices.size() == 1);
  CHECK(profile->devices[0].optimizer_per_parameter.value > 0);
  CHECK(profile->devices[0].action_overhead.value > 0);
  CHECK(profile->model_hash == model::model_hash(graph));
}

/// A barrier that stays open for a number of looks, then ends as told.
struct LateBarrier final : collective::Handle::State {
  explicit LateBarrier(int looks, bool fails = false) : looks_(looks), fails_(fails) {}
  [[nodiscard]] bool done() const override { return looks_-- <= 0; }
  Result<void> wait(Deadline) override {
    if (fails_) return Error{ErrorCode::Unavailable, "rank 1 is gone", "", "", "", ""};
    return {};
  }
  mutable int looks_;
  bool fails_;
};

TEST_CASE("a device that has enough goes on until all have") {
  std::vector<std::shared_ptr<LateBarrier>> barriers;
  const auto profile =
      worker::profile_blocks(load_fixture("gpt_four_layers.pt2"), {2}, "cpu", eager_settings(), Seconds(0.01), [&] {
        barriers.push_back(std::make_shared<LateBarrier>(7));
        return collective::Handle(barriers.back());
      });
  if (!profile) FAIL(to_text(profile.error()));
  REQUIRE(barriers.size() == 7);
  CHECK(barriers[1]->looks_ < 0);  // looked at after each further pass until it was done
  CHECK(profile->blocks.size() == 3);
}

TEST_CASE("an error at the barrier ends the profile") {
  const auto profile =
      worker::profile_blocks(load_fixture("gpt_four_layers.pt2"), {2}, "cpu", eager_settings(), Seconds(0.1),
                             [] { return collective::Handle(std::make_shared<LateBarrier>(0, true)); });
  REQUIRE_FALSE(profile.has_value());
  CHECK(profile.error().code == ErrorCode::Unavailable);
}

TEST_CASE("rates hold a matmul per dtype and size and meet as many barriers whatever the machine") {
  int barriers = 0;
  const auto rates = worker::measure_rates(1, Seconds(0.1), [&]() -> Result<void> {
    ++barriers;
    return {};
  });
  if (!rates) FAIL(to_text(rates.error()));
  CHECK(barriers == 14);
  for (const DType dtype : {DType::Float32, DType::BFloat16})
    CHECK(std::count_if(rates->matmul.begin(), rates->matmul.end(),
                        [&](const auto& rate) { return rate.dtype == dtype; }) >= 1);
  CHECK(std::all_of(rates->matmul.begin(), rates->matmul.end(),
                    [](const auto& rate) { return rate.rate.value.value > 0; }));
  CHECK(rates->memory_bandwidth.value > 0);
  CHECK(rates->launch_overhead.value > 0);
}

TEST_CASE("a model without weights starts as its configuration says, on every plan") {
  const Json expectations = read_json(fixture("expectations.json"));
  for (const std::string name : {"gpt2", "llama"}) {
    DYNAMIC_SECTION(name) {
      const auto graph = model::build_from_config(expectations[name]["config"], {16});
      if (!graph) FAIL(to_text(graph.error()));
      worker::TrainSettings settings = eager_settings();
      settings.steps = 2;
      settings.optimizer.learning_rate = 0;  // the first weights stay
      settings.optimizer.weight_decay = 0;
      const int blocks = graph->num_blocks();
      const TrainingRun whole = train(*graph, make_plan(*graph, {{{blocks, {8}}}}), settings);
      REQUIRE(whole.problems == std::vector<std::string>{});
      const TrainingRun split = train(*graph, make_plan(*graph, {{{2, {4}}, {blocks, {2, 2}}}, 2}), settings);
      REQUIRE(split.problems == std::vector<std::string>{});
      CHECK(split.parameters == whole.parameters);
      CHECK(std::abs(split.losses[0] - whole.losses[0]) <= 1e-5 * whole.losses[0]);
      // Nothing is learnt yet: every token is about as likely as any other.
      CHECK(whole.losses[0] == Approx(std::log(64.0)).epsilon(0.02));
      const int num_layers = 2;
      for (const model::Parameter& parameter : graph->parameters) {
        INFO(parameter.name);
        const auto& values = whole.parameters.at(parameter.name);
        const auto count = static_cast<double>(values.size());
        const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
        const double deviation = norm_of(values) / std::sqrt(count);
        if (parameter.init == "zero") CHECK(deviation == 0);
        if (parameter.init == "one") CHECK(std::all_of(values.begin(), values.end(), [](float v) { return v == 1; }));
        if (parameter.init != "normal" && parameter.init != "residual") continue;
        const double wanted = 0.02 / (parameter.init == "residual" ? std::sqrt(2.0 * num_layers) : 1);
        // Five standard deviations of the estimates.
        CHECK(std::abs(mean) <= 5 * wanted / std::sqrt(count));
        CHECK(std::abs(deviation - wanted) <= 5 * wanted / std::sqrt(2 * count));
      }
    }
  }
}

TEST_CASE("operators without a kernel are named, once each") {
  model::ModelGraph graph = load_fixture("gpt_four_layers.pt2");
  CHECK(worker::operators_without_kernel(graph).empty());
  graph.ops[1].target = "aten::no_such_operator";
  graph.ops[2].target = "aten::bernoulli";  // its random numbers would depend on the plan
  graph.ops[3].target = "aten::no_such_operator";
  CHECK(worker::operators_without_kernel(graph) ==
        std::vector<std::string>{"aten::no_such_operator", "aten::bernoulli"});
  const plan::Plan plan = make_plan(graph, {{{6, {32}}}});
  const auto engine = worker::make_engine({&graph, &plan, 0, eager_settings(), {}});
  REQUIRE_FALSE(engine.has_value());
  CHECK(engine.error().code == ErrorCode::InvalidArgument);
  CHECK(to_text(engine.error()).find("aten::no_such_operator") != std::string::npos);
}

TEST_CASE("plans and data that cannot run are refused") {
  const model::ModelGraph graph = load_fixture("gpt_four_layers.pt2");
  plan::Plan plan = make_plan(graph, {{{6, {32}}}});
  worker::TrainSettings settings = eager_settings();
  const auto code = [&] {
    const auto engine = worker::make_engine({&graph, &plan, 0, settings, {}});
    return engine ? ErrorCode::Unknown : engine.error().code;
  };
  REQUIRE(code() == ErrorCode::Unknown);
  SECTION("ZeRO") {
    plan.stages[0].zero_stage = 4;
    CHECK(code() == ErrorCode::Unimplemented);
  }
  SECTION("no file") {
    settings.data.text = "/nonexistent/text";
    CHECK(code() == ErrorCode::FailedPrecondition);
  }
  SECTION("another sequence length") {
    settings.data.sequence_length = 8;
    CHECK(code() == ErrorCode::InvalidArgument);
  }
  SECTION("a tail too short for validation") {
    settings.data.validation_steps = 1000;
    CHECK(code() == ErrorCode::FailedPrecondition);
  }
}

}  // namespace coxswain::tests
