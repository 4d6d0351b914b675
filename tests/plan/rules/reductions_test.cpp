#include "tests/plan/rules/cases.h"

#include <catch2/catch.hpp>

using namespace coxswain::tests;

namespace {

constexpr RuleCase kCases[] = {
    {"aten::sum", "f[4,6]"},
    {"aten::sum", "f[5]"},
    {"aten::mean", "f[4,6]"},
    {"aten::mean", "f[5]"},
    {"aten::prod", "f[4,6]"},
    {"aten::prod", "f[5]"},
    {"aten::max", "f[4,6]"},
    {"aten::max", "f[5]"},
    {"aten::min", "f[4,6]"},
    {"aten::min", "f[5]"},
    {"aten::sum", "i9[4,6]"},
    {"aten::any", "b[4,6]"},
    {"aten::all", "b[4,6]"},
    {"aten::any.dim", "b[4,6],1"},
    {"aten::any.dims", "b[4,6,2],(0,2),true"},
    {"aten::all.dim", "b[4,6],0"},
    {"aten::sum.dim_IntList", "f[4,6,3],(1)"},
    {"aten::sum.dim_IntList", "f[4,6,3],(0,-1),true"},
    {"aten::sum.dim_IntList", "f[4,6],none"},
    {"aten::mean.dim", "f[4,6,3],(1)"},
    {"aten::mean.dim", "f[4,6,3],(-1,-2),true"},
    {"aten::mean.dim", "f[4,6],(-1),true"},
    {"aten::count_nonzero", "i9[4,6]"},
    {"aten::count_nonzero.dim_IntList", "i9[4,6],(1)"},
    {"aten::amax", "f[4,6],(1)"},
    {"aten::amax", "f[4,6,3],(0,2),true"},
    {"aten::amin", "f[4,6],(1)"},
    {"aten::amin", "f[4,6,3],(0),true"},
    {"aten::argmax", "f[4,6],1"},
    {"aten::argmax", "f[4,6]"},
    {"aten::argmin", "f[4,6],0,true"},
    {"aten::var.correction", "f[4,6],(1)"},
    {"aten::var", "f[4,6]"},
    {"aten::var.dim", "f[4,6],(0),true,true"},
    {"aten::std.correction", "f[4,6],(1),correction=0"},
    {"aten::std.dim", "f[4,6,3],(1)"},
    {"aten::var_mean.correction", "f[4,6],(1),keepdim=true"},
    {"aten::var_mean.correction", "f[4,6,2],(0,2)"},
    {"aten::norm.Scalar", "f[4,6],2"},
    {"aten::norm.ScalarOpt_dim", "f[4,6],2,(1)"},
    {"aten::linalg_vector_norm", "f[4,6],2,(1)"},
    {"aten::linalg_vector_norm", "f[4,6,3],1,(0,1),true"},
    {"aten::prod.dim_int", "f[4,6],1"},
    {"aten::logsumexp", "f[4,6],(1)"},
    {"aten::logsumexp", "f[4,6,3],(0,2),true"},
    {"aten::max.dim", "f[4,6],1"},
    {"aten::max.dim", "f[4,6,3],0,true"},
    {"aten::min.dim", "f[4,6],1"},
    {"aten::max.other", "f[4,6],f[6]"},
    {"aten::min.other", "f[4,6],f[4,6]"},
    {"aten::cumsum", "f[4,6],1"},
    {"aten::cumsum", "f[4,6,3],0"},
    {"aten::cumsum", "i9[4,6],-1"},
    {"aten::cumprod", "p[4,6],1"},
    {"aten::cumprod", "p[4,6,2],0"},
    {"aten::diff", "f[4,6]"},
    {"aten::diff", "f[4,6,3],1,0"},
    {"aten::topk", "f[4,6],2"},
    {"aten::topk", "f[6,4,3],3,0"},
    {"aten::sort", "f[4,6]"},
    {"aten::sort", "f[4,6,3],1,true"},
};

}  // namespace

std::span<const RuleCase> coxswain::tests::reduction_cases() { return kCases; }

TEST_CASE("reduced dims are summed, scaled, maximised or whole") {
  CHECK(bound_text({"aten::mean.dim", "f[4,6,3],(-1,-2),true"}) == "[b0 r1 r2] -> [b0 1 1]; scaled r1; scaled r2");
  CHECK(bound_text({"aten::amax", "f[4,6],(1)"}) == "[b0 r1] -> [b0]; max r1");
  CHECK(bound_text({"aten::topk", "f[4,6],2"}) == "[b0 r1] -> [b0 t1], [b0 t1]; whole r1; whole t1");
}
