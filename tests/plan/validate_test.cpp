// Each case breaks one rule of docs/plan.md and expects that number alone.
#include <functional>
#include <set>

#include "tests/support/graph_builder.h"
#include "tests/support/mixture_graph.h"
#include "tests/support/plan_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

struct Case {
  model::ModelGraph graph = make_chain_graph();
  cluster::ResourceGraph resources = make_cpu_cluster({4, 1});
  // Stages of one and two replicas, ranks 0 | 1 2; blocks 0-2 | 3-5.
  Plan plan = make_plan(graph, resources, {.cuts = {3}, .samples = {{4}, {3, 1}}, .count = 2});

  [[nodiscard]] std::vector<Error> errors() const { return validate(plan, graph, resources); }
  /// Lists that fit what a case did to the stages.
  void refill() { fill_roles(plan, graph, Bytes(1)); }
};

void check_rule(const Case& broken, const std::string& rule, const std::string& path,
                ErrorCode code = ErrorCode::InvalidArgument) {
  const auto errors = broken.errors();
  REQUIRE_FALSE(errors.empty());
  for (const Error& error : errors) CHECK(error.message.substr(0, error.message.find(':')) == rule);
  CHECK(errors.front().path == path);
  CHECK(errors.front().code == code);
  CHECK_FALSE(errors.front().got.empty());
}

TEST_CASE("a derived plan breaks no rule", "[validate]") { CHECK(Case().errors().empty()); }

TEST_CASE("V1: format", "[validate]") {
  Case c;
  c.plan.format_version = 2;
  check_rule(c, "V1", "format_version");
}

TEST_CASE("V2: another model", "[validate]") {
  Case c;
  c.plan.model_hash = std::string(64, '0');
  check_rule(c, "V2", "model_hash", ErrorCode::InvalidArgument);
}

TEST_CASE("V3: another cluster", "[validate]") {
  Case c;
  c.resources = make_cpu_cluster({5, 1});
  check_rule(c, "V3", "cluster_hash", ErrorCode::InvalidArgument);
}

TEST_CASE("V4: batch", "[validate]") {
  Case c;
  c.plan.batch.global = 9;
  check_rule(c, "V4", "batch");
}

TEST_CASE("V5: static batch", "[validate]") {
  Case c;
  c.graph = make_chain_graph({.static_batch = true});
  c.plan = make_plan(c.graph, c.resources, {.cuts = {3}, .samples = {{8}, {8}}, .count = 2});
  CHECK(c.errors().empty());
  c.plan = make_plan(c.graph, c.resources, {.cuts = {3}, .samples = {{8}, {4, 4}}, .count = 2});
  check_rule(c, "V5", "batch.micro");
  c.plan = make_plan(c.graph, c.resources, {.samples = {{4}}, .count = 4});
  check_rule(c, "V5", "batch.micro");
}

TEST_CASE("V6: backend", "[validate]") {
  Case c;
  c.plan.backend = "gloo";
  check_rule(c, "V6", "backend");
  c.plan.backend = "mpi";
  CHECK(c.errors().empty());
}

TEST_CASE("V7: precision", "[validate]") {
  Case c;
  for (const Precision precision : {Precision::BFloat16, Precision::Float16}) {
    c.plan.precision = precision;
    CHECK(c.errors().empty());
    Capabilities fewer = kRunnable;
    (precision == Precision::BFloat16 ? fewer.bfloat16 : fewer.float16) = false;
    const auto errors = validate(c.plan, c.graph, c.resources, fewer);
    REQUIRE(errors.size() == 1);
    CHECK(errors.front().message.substr(0, 3) == "V7:");
    CHECK(errors.front().path == "precision");
    CHECK(errors.front().code == ErrorCode::Unimplemented);
    CHECK(errors.front().expected == (precision == Precision::BFloat16 ? "float32, float16" : "float32, bfloat16"));
  }
}

TEST_CASE("V8: schedule", "[validate]") {
  Case c;
  for (const auto kind : {ScheduleKind::Interleaved, ScheduleKind::ZeroBubbleH1, ScheduleKind::ZeroBubbleH2,
                          ScheduleKind::ZeroBubbleV, ScheduleKind::Custom, ScheduleKind::CustomV}) {
    c.plan.schedule = kind;
    const auto errors = validate(c.plan, c.graph, c.resources, Capabilities{});
    REQUIRE_FALSE(errors.empty());
    CHECK(errors.front().message.substr(0, 3) == "V8:");
    CHECK(errors.front().code == ErrorCode::Unimplemented);
    CHECK(errors.front().path == "schedule");
    CHECK(errors.front().expected == "gpipe, 1f1b");
    CHECK(errors.front().got == to_text(kind));
  }
}

TEST_CASE("what is not searched, or cannot run, may be planned", "[validate]") {
  Case c;
  c.plan.precision = Precision::BFloat16;
  c.plan.stages[1].zero_stage = 3;
  c.plan.stages[0].offload = Offload::Optimizer;
  c.plan.schedule = ScheduleKind::ZeroBubbleH2;
  c.refill();
  CHECK(validate(c.plan, c.graph, c.resources, kPlannable).empty());
  CHECK(c.errors().empty());
  CHECK(validate(c.plan, c.graph, c.resources, kUnasked).size() == 2);  // ZeRO, offload
  Capabilities some = kPlannable;
  some.max_zero_stage = 2;
  const auto errors = validate(c.plan, c.graph, c.resources, some);
  REQUIRE(errors.size() == 1);
  CHECK(errors.front().expected == "at most 2");
}

TEST_CASE("V23: a zero-bubble list has I and W, others B", "[validate]") {
  Case c;
  c.plan.schedule = ScheduleKind::ZeroBubbleH1;  // over the lists of 1F1B
  auto errors = validate(c.plan, c.graph, c.resources, kPlannable);
  REQUIRE_FALSE(errors.empty());
  for (const Error& error : errors) CHECK(error.message.substr(0, 4) == "V23:");
  c.refill();
  CHECK(validate(c.plan, c.graph, c.resources, kPlannable).empty());
  // A weight gradient before its input gradient never starts.
  auto& actions = c.plan.roles[0].actions;
  const auto input = std::find(actions.begin(), actions.end(), Action{ActionKind::BackwardInput, 1, 0, 3});
  const auto weight = std::find(actions.begin(), actions.end(), Action{ActionKind::BackwardWeight, 1, 0, 3});
  REQUIRE((input != actions.end() && weight != actions.end()));
  std::iter_swap(input, weight);
  errors = validate(c.plan, c.graph, c.resources, kPlannable);
  REQUIRE_FALSE(errors.empty());
  for (const Error& error : errors) CHECK(error.message.substr(0, 4) == "V24:");
}

TEST_CASE("V9: credits", "[validate]") {
  Case c;
  c.plan.receive_credits = 0;
  check_rule(c, "V9", "receive_credits");
}

TEST_CASE("V10: stages cover the blocks in order", "[validate]") {
  Case c;
  SECTION("gap") {
    c.plan.stages[1].first_block = 4;
    c.plan.stages[1].recompute.pop_back();
    check_rule(c, "V10", "stages[1]");
  }
  SECTION("end missing") {
    c.plan.stages[1].end_block = 5;
    c.plan.stages[1].recompute.pop_back();
    check_rule(c, "V10", "stages[1].end_block");
  }
  SECTION("beyond the end") {
    c.plan.stages[1].end_block = 7;
    c.plan.stages[1].recompute.push_back(Recompute::None);
    check_rule(c, "V10", "stages[1]");
  }
  SECTION("no stage") {
    c.plan.stages.clear();
    c.plan.roles.clear();
    check_rule(c, "V10", "stages");
  }
}

TEST_CASE("V10: chunks", "[validate]") {
  Case c;
  c.plan = make_plan(c.graph, c.resources,
                     {.cuts = {1, 2, 4},
                      .samples = {{4}, {3, 1}},
                      .count = 2,
                      .schedule = ScheduleKind::Interleaved,
                      .num_chunks = 2});
  const auto check = [&](const std::string& path, const std::string& rule = "V10") {
    const auto errors = validate(c.plan, c.graph, c.resources, kPlannable);
    REQUIRE_FALSE(errors.empty());
    for (const Error& error : errors) CHECK(error.message.substr(0, error.message.find(':')) == rule);
    CHECK(errors.front().path == path);
  };
  CHECK(validate(c.plan, c.graph, c.resources, kPlannable).empty());
  SECTION("none under 1f1b") {
    c.plan.schedule = ScheduleKind::OneForwardOneBackward;
    check("stages[0].chunks");
  }
  SECTION("the same number everywhere") {
    c.plan.stages[1].chunks.push_back({6, 6});
    check("stages[1].chunks");
  }
  SECTION("two for a V") {
    c.plan.schedule = ScheduleKind::ZeroBubbleV;
    c.plan.stages[0].chunks.clear();
    c.plan.stages[0].recompute.resize(1);
    check("stages[0].chunks");
  }
  SECTION("in model order") {
    c.plan.stages[0].chunks[0] = {3, 5};
    check("stages[0].chunks[0]");
  }
  SECTION("another order of parts") {
    c.plan.schedule = ScheduleKind::ZeroBubbleV;  // wants chunk 1 of the second stage third
    check("stages[1].chunks[0]");
  }
  SECTION("to the end") {
    c.plan.stages[1].chunks[0].end_block = 5;
    c.plan.stages[1].recompute.resize(2);
    check("stages[1].chunks[0].end_block");
  }
  SECTION("recompute over all chunks") {
    c.plan.stages[0].recompute.pop_back();
    check("stages[0].recompute", "V18");
  }
  SECTION("a bucket in each chunk that has gradients") {
    REQUIRE(c.plan.stages[1].bucket_starts == std::vector<int>{4, 1});
    c.plan.stages[1].bucket_starts = {1};
    check("stages[1].bucket_starts", "V21");
  }
  SECTION("V23: the actions of every chunk") {
    auto& actions = c.plan.roles[1].actions;
    actions.erase(std::find(actions.begin(), actions.end(), Action{ActionKind::SendActivation, 1}));
    check("roles[1].actions", "V23");
  }
}

TEST_CASE("V11: empty stage", "[validate]") {
  Case c;
  c.graph.blocks[0].end_op = 0;
  c.graph.blocks[1].first_op = 0;
  c.plan = make_plan(c.graph, c.resources, {.cuts = {1}, .samples = {{4}, {4}}, .count = 2});
  const auto errors = c.errors();
  REQUIRE(errors.size() == 1);
  CHECK(errors[0].message == "V11: stage has no operator");
  CHECK(errors[0].path == "stages[0]");
}

TEST_CASE("V12: stage without replicas", "[validate]") {
  Case c;
  c.plan.stages[0].replicas.clear();
  check_rule(c, "V12", "stages[0].replicas");
}

TEST_CASE("V13: mesh size", "[validate]") {
  Case c;
  c.plan.stages[0].replicas[0].devices.push_back({0, 3});
  check_rule(c, "V13", "stages[0].replicas[0].devices");
}

TEST_CASE("V14: axes that are not run", "[validate]") {
  Case c;
  Capabilities fewer = kRunnable;
  fewer.max_tensor = fewer.max_context = fewer.max_expert = 1;
  auto& replica = c.plan.stages[0].replicas[0];
  const auto check = [&](const std::string& path) {
    c.refill();
    const auto errors = validate(c.plan, c.graph, c.resources, fewer);
    REQUIRE_FALSE(errors.empty());
    CHECK(errors.front().message.rfind("V14:", 0) == 0);
    CHECK(errors.front().path == path);
    CHECK(errors.front().code == ErrorCode::Unimplemented);
  };
  SECTION("tensor") {
    replica.devices.push_back({0, 3});
    replica.tensor = 2;
    check("stages[0].replicas[0].tensor");
  }
  SECTION("context") {
    replica.devices.push_back({0, 3});
    replica.context = 2;
    check("stages[0].replicas[0].context");
  }
  SECTION("expert") {
    replica.expert = 2;
    check("stages[0].replicas[0].expert");
  }
}

TEST_CASE("V25: replicas that hold all experts together", "[validate]") {
  // Four replicas, two in a row hold the 6 experts of each layer.
  Case c;
  c.graph = make_mixture_graph();
  c.resources = make_cpu_cluster({8});
  c.plan = make_plan(c.graph, c.resources, {.samples = {{2, 1, 2, 3}}, .count = 2});
  auto& stage = c.plan.stages[0];
  const auto spread = [&](int expert) {
    for (Replica& replica : stage.replicas) replica.expert = expert;
    c.refill();
  };
  const auto devices = [&](std::size_t replica, int tensor) {
    stage.replicas[replica].tensor = tensor;
    for (int d = 1; d < tensor; ++d)
      stage.replicas[replica].devices.push_back({0, static_cast<std::int64_t>(3 * d + 1 + static_cast<int>(replica))});
  };
  spread(2);
  CHECK(c.errors().empty());
  SECTION("they agree on how many") {
    stage.replicas[3].expert = 4;
    check_rule(c, "V25", "stages[0].replicas");
  }
  SECTION("as many groups as fit") {
    stage.replicas.pop_back();
    stage.replicas[0].samples = 5;
    check_rule(c, "V25", "stages[0].replicas");
  }
  SECTION("as many experts as replicas") {
    stage.replicas = std::vector<Replica>(8, stage.replicas.front());
    for (std::size_t r = 0; r < 8; ++r) {
      stage.replicas[r].samples = 1;
      stage.replicas[r].devices = {{0, static_cast<std::int64_t>(r)}};
    }
    spread(8);
    check_rule(c, "V25", "stages[0].replicas");
  }
  SECTION("ZeRO where others hold the same experts") {
    stage.zero_stage = 1;
    c.refill();
    check_rule(c, "V25", "stages[0].zero_stage", ErrorCode::Unimplemented);
    spread(4);
    CHECK(c.errors().empty());
  }
  SECTION("meshes of one shape") {
    devices(2, 2);
    c.refill();
    check_rule(c, "V25", "stages[0].replicas", ErrorCode::Unimplemented);
    CHECK(validate(c.plan, c.graph, c.resources, kPlannable).empty());
  }
  SECTION("one list") {
    auto& actions = c.plan.roles[1].actions;
    std::swap(actions[2], actions[3]);
    check_rule(c, "V25", "roles[1].actions");
  }
  SECTION("a model without experts") {
    Case other;
    for (Replica& replica : other.plan.stages[1].replicas) replica.expert = 2;
    other.refill();
    CHECK(other.errors().empty());
  }
}

TEST_CASE("V15: devices exist", "[validate]") {
  Case c;
  SECTION("index") {
    c.plan.stages[0].replicas[0].devices[0].index = 4;
    check_rule(c, "V15", "stages[0].replicas[0].devices[0]");
  }
  SECTION("class") {
    c.plan.stages[0].replicas[0].devices[0].device_class = 2;
    check_rule(c, "V15", "stages[0].replicas[0].devices[0]");
  }
}

TEST_CASE("V16: devices are used once", "[validate]") {
  Case c;
  c.plan.stages[1].replicas[0].devices[0] = c.plan.stages[0].replicas[0].devices[0];
  check_rule(c, "V16", "stages[1].replicas[0].devices[0]");
}

TEST_CASE("V17: samples", "[validate]") {
  Case c;
  SECTION("sum") {
    c.plan.stages[1].replicas[0].samples = 2;
    check_rule(c, "V17", "stages[1].replicas");
  }
  SECTION("none") {
    c.plan.stages[1].replicas[0].samples = 4;
    c.plan.stages[1].replicas[1].samples = 0;
    check_rule(c, "V17", "stages[1].replicas[1].samples");
  }
}

TEST_CASE("V18: recompute", "[validate]") {
  Case c;
  c.plan.stages[1].recompute.pop_back();
  check_rule(c, "V18", "stages[1].recompute");
}

TEST_CASE("V19: ZeRO; offload and selective recompute where the worker lacks them", "[validate]") {
  Case c;
  const auto check_lacking = [&](const std::string& path) {
    CHECK(c.errors().empty());
    Capabilities neither = kRunnable;
    neither.offload = neither.selective_recompute = false;
    const auto errors = validate(c.plan, c.graph, c.resources, neither);
    REQUIRE(errors.size() == 1);
    CHECK(errors.front().message.rfind("V19:", 0) == 0);
    CHECK(errors.front().path == path);
    CHECK(errors.front().code == ErrorCode::Unimplemented);
  };
  SECTION("zero") {
    c.plan.stages[1].zero_stage = 3;
    c.refill();
    CHECK(c.errors().empty());
    for (const int none : {4, -1}) {
      c.plan.stages[1].zero_stage = none;
      check_rule(c, "V19", "stages[1].zero_stage");
    }
  }
  SECTION("offload") {
    c.plan.stages[0].offload = Offload::Optimizer;
    check_lacking("stages[0].offload");
  }
  SECTION("selective recompute") {
    c.plan.stages[0].recompute[1] = Recompute::Selective;
    check_lacking("stages[0].recompute[1]");
  }
}

TEST_CASE("V20: operators that mix samples", "[validate]") {
  Case c;
  // The linear of layer 3 (block 4), in the stage of two replicas.
  c.graph.coupled.push_back({c.graph.blocks[4].first_op, "batch statistics"});
  c.plan.model_hash = model::model_hash(c.graph);
  check_rule(c, "V20", "stages[1]");
  CHECK(c.errors().front().expected == "one micro-batch and one replica for aten::linear at layers.3");
  c.plan = make_plan(c.graph, c.resources, {.cuts = {3}, .samples = {{3, 1}, {4}}, .count = 2});
  check_rule(c, "V20", "stages[1]");
  c.plan = make_plan(c.graph, c.resources, {.cuts = {3}, .samples = {{3, 1}, {4}}, .count = 1});
  CHECK(c.errors().empty());
}

TEST_CASE("V20: sums over the batch are put together by replicas that hold the experts together", "[validate]") {
  Case c;
  c.graph.coupled.push_back({c.graph.blocks[4].first_op, "two sums", {{0, true}}});
  const auto set_experts = [&](int expert, std::int64_t count) {
    c.plan = make_plan(c.graph, c.resources, {.cuts = {3}, .samples = {{4}, {3, 1}}, .count = count});
    for (Replica& replica : c.plan.stages[1].replicas) replica.expert = expert;
  };
  set_experts(2, 1);
  CHECK(c.errors().empty());
  set_experts(1, 1);
  check_rule(c, "V20", "stages[1]");
  CHECK(
      c.errors().front().expected ==
      "one micro-batch and one replica, or replicas that all hold the experts together, for aten::linear at layers.3");
  set_experts(2, 2);
  check_rule(c, "V20", "stages[1]");
  c.graph.coupled.front().sums.clear();
  set_experts(2, 1);
  check_rule(c, "V20", "stages[1]");
}

TEST_CASE("V21: buckets", "[validate]") {
  Case c;
  for (const std::vector<int>& starts : std::vector<std::vector<int>>{{}, {4}, {3, 4}, {6, 3}, {4, 4, 3}, {4, 3, 2}}) {
    c.plan.stages[1].bucket_starts = starts;
    check_rule(c, "V21", "stages[1].bucket_starts");
  }
  Case single;
  single.plan.stages[0].bucket_starts = {0};
  check_rule(single, "V21", "stages[0].bucket_starts");
}

TEST_CASE("V22: roles", "[validate]") {
  Case c;
  SECTION("replica without a role") {
    c.plan.roles.pop_back();
    check_rule(c, "V22", "stages[1].replicas[1]");
  }
  SECTION("two roles") {
    c.plan.roles.push_back(c.plan.roles.back());
    check_rule(c, "V22", "roles[3]");
  }
  SECTION("unequal replicas share") {
    c.plan.roles[1].replicas = {0, 1};
    c.plan.roles.pop_back();
    check_rule(c, "V22", "roles[1].replicas");
  }
  SECTION("order") {
    std::swap(c.plan.roles[1], c.plan.roles[2]);
    check_rule(c, "V22", "roles[2]");
  }
  SECTION("no such replica") {
    c.plan.roles[1].replicas = {7};
    check_rule(c, "V22", "roles[1].replicas");
  }
  SECTION("no such stage") {
    c.plan.roles[2].stage = 7;
    check_rule(c, "V22", "roles[2]");
  }
}

TEST_CASE("V23: lists are complete", "[validate]") {
  Case c;
  auto& actions = c.plan.roles[1].actions;
  SECTION("missing") {
    const auto found = std::find(actions.begin(), actions.end(), Action{ActionKind::ReceiveActivation, 1});
    actions.erase(found);
    check_rule(c, "V23", "roles[1].actions");
    CHECK(c.errors().front().expected == "RECV_F1");
  }
  SECTION("twice") {
    actions.push_back({ActionKind::Optimizer});
    check_rule(c, "V23", "roles[1].actions");
    CHECK(c.errors().front().got == "OPTIMIZER");
  }
  SECTION("foreign") {
    actions.push_back({ActionKind::BackwardWeight, 0, 3, 6});
    check_rule(c, "V23", "roles[1].actions");
  }
  SECTION("shorter than the count") {
    c.plan.batch.count = 1'000'000'000;
    c.plan.batch.global = 4'000'000'000;
    check_rule(c, "V23", "roles[0].actions");
  }
}

TEST_CASE("V24: order", "[validate]") {
  Case c;
  auto& actions = c.plan.roles[0].actions;
  const auto first = std::find(actions.begin(), actions.end(), Action{ActionKind::SendActivation, 0});
  const auto second = std::find(actions.begin(), actions.end(), Action{ActionKind::SendActivation, 1});
  std::iter_swap(first, second);
  const auto errors = c.errors();
  REQUIRE_FALSE(errors.empty());
  for (const Error& error : errors) CHECK(error.message.substr(0, 4) == "V24:");
}

TEST_CASE("another order that runs is as good", "[validate]") {
  Case c;
  // GPipe's order under the name 1F1B: what counts is the list.
  std::vector<std::vector<Action>> schedules;
  for (int s = 0; s < 2; ++s) schedules.push_back(make_schedule(ScheduleKind::GPipe, s, 2, 2));
  fill_roles(c.plan, c.graph, Bytes(1), schedules);
  CHECK(c.errors().empty());
}

TEST_CASE("all problems are reported at once", "[validate]") {
  Case c;
  c.plan.backend = "gloo";
  c.plan.receive_credits = 0;
  c.plan.stages[0].recompute.clear();
  c.plan.stages[1].replicas[0].samples = 100;
  c.plan.stages[1].zero_stage = 4;
  std::set<std::string> rules;
  for (const Error& error : c.errors()) rules.insert(error.message.substr(0, error.message.find(':')));
  CHECK(rules == std::set<std::string>{"V6", "V9", "V17", "V18", "V19"});
}

TEST_CASE("512 devices and 64 micro-batches validate", "[validate]") {
  const auto graph = make_chain_graph({.num_layers = 40});
  const auto resources = make_cpu_cluster({512});
  PlanOptions options;
  for (int s = 1; s < 16; ++s) options.cuts.push_back(s * 42 / 16);
  options.samples.assign(16, std::vector<std::int64_t>(32, 1));
  options.count = 64;
  const Plan plan = make_plan(graph, resources, options);
  CHECK(validate(plan, graph, resources).empty());
}

}  // namespace
}  // namespace coxswain::plan
