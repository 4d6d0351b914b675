// The proof: every rule of the table on every case, and what it says of saved tensors; wrong rules are caught.
#include "plan/rules/rules.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "model/op_saves.h"
#include "tests/plan/rules/cases.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::plan;
using namespace coxswain::tests;

namespace {

std::vector<RuleCase> all_cases() {
  std::vector<RuleCase> all;
  for (const auto& cases :
       {pointwise_cases(), product_cases(), convolution_cases(), reduction_cases(), normalisation_cases(), loss_cases(),
        view_cases(), copy_cases(), index_cases(), factory_cases()})
    all.insert(all.end(), cases.begin(), cases.end());
  return all;
}

std::string base_of(std::string_view target) { return std::string(target.substr(0, target.rfind('.'))); }

struct Tally {
  std::set<std::string> operators;
  int cases = 0, placements = 0, backward = 0;
};

}  // namespace

TEST_CASE("every rule is proved on parts, forward and backward") {
  std::map<RuleFamily, Tally> tallies;
  std::set<const ShardRule*> proved;
  for (const RuleCase& one : all_cases()) {
    const ShardRule* rule = find_shard_rule(one.target);
    REQUIRE(rule != nullptr);
    const Proof proof = prove(one);
    for (const std::string& failure : proof.failures) FAIL_CHECK(failure);
    proved.insert(rule);
    Tally& tally = tallies[rule->family];
    tally.operators.insert(base_of(rule->target));
    ++tally.cases;
    tally.placements += proof.placements;
    tally.backward += proof.backward;
  }
  for (const ShardRule& rule : shard_rules()) {
    INFO(rule.target);
    CHECK(proved.contains(&rule));
    CHECK(model::saved_arguments(rule.target).has_value());
  }
  Tally total;
  std::printf("%-26s %9s %7s %11s %9s\n", "family", "operators", "cases", "placements", "backward");
  for (const auto& [family, tally] : tallies) {
    std::printf("%-26s %9zu %7d %11d %9d\n", std::string(to_text(family)).c_str(), tally.operators.size(), tally.cases,
                tally.placements, tally.backward);
    total.operators.insert(tally.operators.begin(), tally.operators.end());
    total.cases += tally.cases;
    total.placements += tally.placements;
    total.backward += tally.backward;
  }
  std::printf("%-26s %9zu %7d %11d %9d\n", "all", total.operators.size(), total.cases, total.placements,
              total.backward);
  CHECK(total.operators.size() >= 150);
}

namespace {

bool contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// What the list leaves to others: tensors that are there anyway, the statistics of norms (counted as hidden bytes), and
// kernels of the engine's own.
bool is_left_out(const RuleCase& one, RuleFamily family, std::string_view name) {
  const std::string base = base_of(one.target);
  if (base == "aten::dropout" || base == "aten::scaled_dot_product_attention") return true;
  if (family == RuleFamily::Normalisation)
    return name == "weight" || name == "bias" || name.starts_with("running_") || name == "out1" || name == "out2";
  if (family == RuleFamily::Loss) return name == "weight" || name == "pos_weight";
  // Constant pads, those of models, keep nothing; reflections keep their input.
  return base == "aten::pad";
}

}  // namespace

TEST_CASE("backward keeps nothing that is not listed") {
  int listed = 0, kept_of_them = 0;
  for (const RuleCase& one : all_cases()) {
    INFO(one.target << "(" << one.arguments << ")");
    const KeptTensors kept = find_kept(one);
    for (const std::string& name : kept.found) {
      INFO(name);
      CHECK((contains(kept.listed, name) || is_left_out(one, find_shard_rule(one.target)->family, name)));
    }
    for (const std::string& name : kept.listed) {
      ++listed;
      if (contains(kept.found, name))
        ++kept_of_them;
      else
        std::printf("  listed, not kept as it is: %s of %s(%s)\n", name.c_str(), one.target, one.arguments);
    }
  }
  std::printf("tensors listed as kept for backward: %d, found kept: %d\n", listed, kept_of_them);
}

TEST_CASE("splitting what must stay whole is caught") {
  int flips = 0;
  std::vector<std::string> missed;
  for (const RuleCase& one : all_cases()) {
    const Proof planted = plant(one);
    flips += planted.flips;
    for (const std::string& what : planted.missed) {
      INFO(what);
      missed.push_back(what);
      // Equal all the same: a tensor read for its dtype alone, a false among every part of a conjunction, a sum of
      // absolute values.
      const bool harmless = what.find(", other") != std::string::npos || what.starts_with("aten::all(b[4,6])") ||
                            what.starts_with("aten::linalg_vector_norm(f[4,6,3],1,");
      CHECK(harmless);
    }
  }
  std::printf("wrong rules planted: %d, caught: %zu\n", flips, static_cast<std::size_t>(flips) - missed.size());
}

TEST_CASE("wrong rules fail") {
  struct Wrong {
    RuleCase one;
    const char* notation;
  };
  const Wrong wrongs[] = {
      {{"aten::linear", "f[2,6],f[4,6],f[4]"}, "[b.. i], [o i], [o]? -> [b.. o]; sum i"},  // the bias is added twice
      {{"aten::linear", "f[2,6],f[4,6]"}, "[b.. i], [o i], [o]? -> [b.. o]; max i"},
      {{"aten::mm", "f[4,6],f[6,3]"}, "[m k], [k n] -> [m n]"},  // k is not in the output: free means equal on all
      {{"aten::relu", "f[4,6]"}, "[d..] -> [d..]; linear self"},
      {{"aten::add.Scalar", "f[4,6],1.5"}, "[d..] -> [d..]; linear self"},
      {{"aten::mul.Tensor", "f[4,6],f[4,6]"}, "[d..], [d..] -> [d..]; linear self+other"},
      {{"aten::mean", "f[4,6]"}, "[b.. r..] -> [b..]; sum r"},
      {{"aten::sum", "f[4,6]"}, "[b.. r..] -> [b..]; scaled r"},
      {{"aten::amin", "f[4,6],(1)"}, "[b.. r..] -> [b..]; max r"},
      {{"aten::softmax.int", "f[4,6],1"}, "[a.. r b..] -> [a.. r b..]"},
      {{"aten::embedding", "f[9,6],i9[4]"}, "[v e], [n..] -> [n.. e]; sum v"},
      {{"aten::layer_norm", "f[4,6],(6),f[6],f[6]"}, "[b.. r..], [r..]?, [r..]? -> [b.. r..]"},
      {{"aten::scatter_add", "f[4,9],1,i9[4,6],f[4,6]"},
       "[a.. r b..], [a.. n b..], [a.. n b..] -> [a.. r b..]; whole r; sum n"},
      {{"aten::conv1d", "f[2,4,8],f[6,4,3],f[6]"},
       "[n (g i) s..], [(g o) i k..], [(g o)]? -> [n (g o) t..]; sum i; whole s, t, k"},
      {{"aten::max.dim", "f[4,6],1"}, "[b.. r..] -> [b..], [b..]; max r"},
      {{"aten::cumsum", "f[4,6],1"}, "[a.. r b..] -> [a.. r b..]"},
      {{"aten::arange.start", "1,7"}, "-> [n]; sum n"},
  };
  int caught = 0;
  for (const Wrong& wrong : wrongs) {
    INFO(wrong.one.target << " " << wrong.notation);
    ShardRule rule = *find_shard_rule(wrong.one.target);
    rule.notation = wrong.notation;
    const Proof proof = prove(wrong.one, &rule);
    CHECK_FALSE(proof.failures.empty());
    if (!proof.failures.empty() && caught++ < 3) std::printf("caught: %s\n", proof.failures.front().c_str());
  }
}
