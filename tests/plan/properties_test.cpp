// Laws over random plans: what is derived validates and ends, what is broken is reported, text reads back.
#include <rapidcheck.h>
#include <algorithm>
#include <numeric>

#include "tests/support/graph_builder.h"
#include "tests/support/plan_builder.h"
#include "tests/support/virtual_world.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

const model::ModelGraph& graph_of(bool tied) {
  static const model::ModelGraph kTied = make_chain_graph({.num_layers = 10});
  static const model::ModelGraph kFree = make_chain_graph({.num_layers = 10, .tied = false});
  return tied ? kTied : kFree;
}

const cluster::ResourceGraph& resources() {
  static const cluster::ResourceGraph kResources = make_cpu_cluster({16});
  return kResources;
}

/// Positive parts that add up to `total`.
std::vector<std::int64_t> random_parts(std::int64_t total, int count) {
  std::vector<std::int64_t> parts(static_cast<std::size_t>(count), 1);
  for (std::int64_t i = count; i < total; ++i) ++parts[static_cast<std::size_t>(*rc::gen::inRange(0, count))];
  return parts;
}

struct Random {
  explicit Random(int min_stages = 1, int min_count = 1)
      : tied(*rc::gen::arbitrary<bool>()), plan(make(min_stages, min_count)) {}

  bool tied;
  Plan plan;

  [[nodiscard]] const model::ModelGraph& graph() const { return graph_of(tied); }

 private:
  [[nodiscard]] Plan make(int min_stages, int min_count) const {
    PlanOptions options;
    const int num_stages = *rc::gen::inRange(min_stages, 5);
    options.schedule =
        *rc::gen::element(ScheduleKind::GPipe, ScheduleKind::OneForwardOneBackward, ScheduleKind::ZeroBubbleH1,
                          ScheduleKind::ZeroBubbleH2, ScheduleKind::Interleaved, ScheduleKind::ZeroBubbleV);
    if (has_chunks(options.schedule))
      options.num_chunks = options.schedule == ScheduleKind::ZeroBubbleV ? 2 : *rc::gen::inRange(2, 4);
    std::vector<int> cuts{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    while (static_cast<int>(cuts.size()) > num_stages * options.num_chunks - 1)
      cuts.erase(cuts.begin() + *rc::gen::inRange<std::ptrdiff_t>(0, static_cast<std::ptrdiff_t>(cuts.size())));
    options.cuts = cuts;
    const std::int64_t micro = *rc::gen::inRange<std::int64_t>(4, 10);
    options.samples.clear();
    for (int s = 0; s < num_stages; ++s) options.samples.push_back(random_parts(micro, *rc::gen::inRange(1, 5)));
    options.count = *rc::gen::inRange(min_count, 12);
    options.receive_credits = *rc::gen::inRange(1, 4);
    options.bucket_bytes = Bytes(*rc::gen::element<std::int64_t>(1, 300, 600, 1 << 20));
    return make_plan(graph(), resources(), options);
  }
};

TEST_CASE("every derived plan validates", "[properties]") {
  CHECK(rc::check("validate is empty", [] {
    const Random random;
    const auto errors = validate(random.plan, random.graph(), resources(), kPlannable);
    for (const Error& error : errors) RC_LOG() << coxswain::to_text(error);
    RC_ASSERT(errors.empty());
    RC_ASSERT(check_order(random.plan, random.graph()).empty());
  }));
}

TEST_CASE("every derived plan ends under any durations", "[properties]") {
  CHECK(rc::check("no rank is left", [] {
    const Random random;
    const auto seed = *rc::gen::inRange<unsigned>(0, 1000);
    VirtualWorld world(random.plan, random.graph(), [seed](int rank, const Action& action) {
      const unsigned mixed = (seed + static_cast<unsigned>(rank) * 31U + static_cast<unsigned>(action.kind) * 7U +
                              static_cast<unsigned>(action.micro_batch + 1) * 13U) %
                             11U;
      return static_cast<double>(mixed);
    });
    RC_ASSERT(world.run_step());
  }));
}

TEST_CASE("plans read back", "[properties]") {
  CHECK(rc::check("parse(print(plan)) == plan", [] {
    const Random random;
    const auto json = parse_json(coxswain::to_text(to_json(random.plan)));
    RC_ASSERT(json.has_value());
    const auto read = plan_from_json(*json);
    RC_ASSERT(read.has_value());
    RC_ASSERT(*read == random.plan);
    const int chunks = num_chunks(random.plan.stages.front());
    const auto schedule = read_schedule_csv(to_schedule_csv(random.plan));
    RC_ASSERT(schedule.has_value());
    RC_ASSERT(schedule->stages.size() == random.plan.stages.size());
    for (std::size_t s = 0; s < schedule->stages.size(); ++s) {
      RC_ASSERT(schedule->stages[s] == make_schedule(random.plan.schedule, static_cast<int>(s),
                                                     static_cast<int>(schedule->stages.size()),
                                                     static_cast<int>(random.plan.batch.count), chunks));
    }
  }));
}

/// Positions of one role's actions that keep `condition`.
template <class Condition>
std::vector<std::size_t> positions(const Role& role, Condition condition) {
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < role.actions.size(); ++i) {
    if (condition(role.actions[i].kind)) found.push_back(i);
  }
  return found;
}

Role& random_role(Plan& plan) {
  return plan.roles[static_cast<std::size_t>(*rc::gen::inRange(0, static_cast<int>(plan.roles.size())))];
}

TEST_CASE("a list without one of its edges is reported", "[properties]") {
  CHECK(rc::check("by completeness and by order", [] {
    Random random(2);
    Role& role = random_role(random.plan);
    const std::size_t removed = *rc::gen::elementOf(positions(role, is_edge));
    RC_LOG() << "without " << to_text(role.actions[removed]);
    role.actions.erase(role.actions.begin() + static_cast<std::ptrdiff_t>(removed));
    RC_ASSERT(!check_order(random.plan, random.graph()).empty());
    RC_ASSERT(validate(random.plan, random.graph(), resources(), kPlannable).front().message.substr(0, 3) == "V23");
  }));
}

TEST_CASE("a list with two swapped edges of one stream is reported", "[properties]") {
  CHECK(rc::check("the ends no longer match", [] {
    Random random(2, 2);
    // One role only: its peers keep their order.
    Role& role = random_role(random.plan);
    const Action chosen = role.actions[*rc::gen::elementOf(positions(role, is_edge))];
    // Of one edge of the stream: two that go different ways may well be swapped.
    auto edges = positions(role, [&](ActionKind kind) { return stream_of(kind) == stream_of(chosen.kind); });
    std::erase_if(edges, [&](std::size_t i) {
      return edge_of(random.plan, role.stage, role.actions[i]) != edge_of(random.plan, role.stage, chosen);
    });
    const auto at = *rc::gen::inRange<std::size_t>(0, edges.size() - 1);
    std::swap(role.actions[edges[at]], role.actions[edges[at + 1]]);
    RC_ASSERT(!check_order(random.plan, random.graph()).empty());
    RC_ASSERT(validate(random.plan, random.graph(), resources(), kPlannable).front().message.substr(0, 3) == "V24");
  }));
}

TEST_CASE("transfers pair up and cover every sample once", "[properties]") {
  CHECK(rc::check("both ends agree", [] {
    const Random random;
    for (int rank = 0; rank < num_ranks(random.plan); ++rank) {
      const RankPlace place = place_of(random.plan, rank);
      const Replica& replica =
          random.plan.stages[static_cast<std::size_t>(place.stage)].replicas[static_cast<std::size_t>(place.replica)];
      for (const bool next : {true, false}) {
        const auto transfers = next ? transfers_to_next(random.plan, rank) : transfers_from_previous(random.plan, rank);
        std::int64_t covered = 0;
        for (const Transfer& transfer : transfers) {
          RC_ASSERT(transfer.first_sample == covered);
          covered += transfer.num_samples;
          const auto back = next ? transfers_from_previous(random.plan, transfer.peer)
                                 : transfers_to_next(random.plan, transfer.peer);
          const auto mine = std::find_if(back.begin(), back.end(), [&](const Transfer& t) { return t.peer == rank; });
          RC_ASSERT(mine != back.end());
          RC_ASSERT(mine->num_samples == transfer.num_samples);
          // The same global samples.
          const auto start = [&](int r, std::int64_t offset) {
            const RankPlace where = place_of(random.plan, r);
            return first_sample(random.plan.stages[static_cast<std::size_t>(where.stage)], where.replica) + offset;
          };
          RC_ASSERT(start(rank, transfer.first_sample) == start(transfer.peer, mine->first_sample));
        }
        const bool has_neighbour =
            next ? place.stage + 1 < static_cast<int>(random.plan.stages.size()) : place.stage > 0;
        RC_ASSERT(covered == (has_neighbour ? replica.samples : 0));
      }
    }
  }));
}

}  // namespace
}  // namespace coxswain::plan
