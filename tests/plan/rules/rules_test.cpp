// The proof: every rule of the table on every case, and what it says of saved tensors; wrong rules are caught.
#include "plan/rules/rules.h"

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
  for (const auto& cases : {pointwise_cases(), product_cases(), convolution_cases(), reduction_cases(),
                            normalisation_cases(), loss_cases(), view_cases(), copy_cases(), index_cases(),
                            factory_cases()})
    all.insert(all.end(), cases.begin(), cases.end());
  return all;
}

std::string base_of(std::string_view target) { return std::string(target.substr(0, target.rfind('.'))); }

struct Tally {
  std::set<std::string> operators;
  int cases = 0, placements = 0, backward = 0;
};

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : " ") + name;
  return text;
}

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

TEST_CASE("backward keeps what is listed, and nothing else") {
  for (const RuleCase& one : all_cases()) {
    // The engine lowers dropout itself; attention keeps what its kernel keeps (model/saved.cpp).
    if (base_of(one.target) == "aten::dropout" || base_of(one.target) == "aten::scaled_dot_product_attention") continue;
    INFO(one.target << "(" << one.arguments << ")");
    const KeptTensors kept = find_kept(one);
    CHECK(joined(kept.found) == joined(kept.listed));
  }
}

TEST_CASE("splitting what must stay whole is caught") {
  int flips = 0;
  std::vector<std::string> missed;
  for (const RuleCase& one : all_cases()) {
    const Proof planted = plant(one);
    flips += planted.flips;
    missed.insert(missed.end(), planted.missed.begin(), planted.missed.end());
  }
  std::printf("wrong rules planted: %d, caught: %zu\n", flips, static_cast<std::size_t>(flips) - missed.size());
  for (const std::string& one : missed) std::printf("  not caught: %s\n", one.c_str());
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
      {{"aten::split.Tensor", "f[4,12],4,1"}, "[a.. (pieces d) b..] -> [a.. d b..]; max d"},
      {{"aten::repeat", "f[4,6],(2,3)"}, "[n..] -> [(r n)..]; sum r"},
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
