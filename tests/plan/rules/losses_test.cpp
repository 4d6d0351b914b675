#include "tests/plan/rules/cases.h"

#include <catch2/catch.hpp>

using namespace coxswain::tests;

namespace {

constexpr RuleCase kCases[] = {
    {"aten::softmax.int", "f[4,6],-1"},
    {"aten::softmax.int", "f[2,4,6],1"},
    {"aten::_softmax", "f[4,6],0,false"},
    {"aten::_softmax", "f[2,4,6],2,false"},
    {"aten::log_softmax.int", "f[4,6],-1"},
    {"aten::log_softmax.int", "f[2,4,6],1"},
    {"aten::_log_softmax", "f[4,6],1,false"},
    {"aten::_log_softmax", "f[3,4,2],0,false"},
    {"aten::cross_entropy_loss", "f[6,9],i9[6],none,2"},
    {"aten::cross_entropy_loss", "f[6,9],i9[6],c[9],2,3"},
    {"aten::cross_entropy_loss", "f[6,9],i9[6],none,1"},
    {"aten::cross_entropy_loss", "f[4,9,3],i9[4,3],none,2,-100,0.1"},
    {"aten::cross_entropy_loss", "f[6,5],u[6,5],none,2"},
    {"aten::cross_entropy_loss", "f[6,9],i9[6],none,0"},
    {"aten::cross_entropy_loss", "f[9],i9[],none,2"},
    {"aten::nll_loss", "f[6,9],i9[6],none,2"},
    {"aten::nll_loss", "f[6,9],i9[6],c[9],0"},
    {"aten::nll_loss", "f[6,9],i9[6]"},
    {"aten::nll_loss_nd", "f[6,9],i9[6],none,2"},
    {"aten::nll_loss_nd", "f[4,9,3],i9[4,3],none,2,2"},
    {"aten::nll_loss2d", "f[4,9,3,2],i9[4,3,2],none,2"},
    {"aten::nll_loss2d", "f[2,9,3,2],i9[2,3,2],none,0"},
    {"aten::mse_loss", "f[4,6],f[4,6],0"},
    {"aten::mse_loss", "f[4,6],f[4,6],1"},
    {"aten::mse_loss", "f[4,6],f[4,6],2"},
    {"aten::l1_loss", "f[4,6],f[4,6],0"},
    {"aten::l1_loss", "f[4,6],f[4,6],1"},
    {"aten::l1_loss", "f[4,6],f[4,6],2"},
    {"aten::smooth_l1_loss", "f[4,6],f[4,6],0"},
    {"aten::smooth_l1_loss", "f[4,6],f[4,6],1"},
    {"aten::smooth_l1_loss", "f[4,6],f[4,6],2"},
    {"aten::huber_loss", "f[4,6],f[4,6],0"},
    {"aten::huber_loss", "f[4,6],f[4,6],1"},
    {"aten::huber_loss", "f[4,6],f[4,6],2"},
    {"aten::mse_loss", "f[4,3,2],f[4,3,2],1"},
    {"aten::kl_div", "f[4,6],u[4,6],0"},
    {"aten::binary_cross_entropy", "u[4,6],u[4,6],none,0"},
    {"aten::binary_cross_entropy_with_logits", "f[4,6],u[4,6],none,none,0"},
    {"aten::kl_div", "f[4,6],u[4,6],1"},
    {"aten::binary_cross_entropy", "u[4,6],u[4,6],none,1"},
    {"aten::binary_cross_entropy_with_logits", "f[4,6],u[4,6],none,none,1"},
    {"aten::kl_div", "f[4,6],u[4,6],2"},
    {"aten::binary_cross_entropy", "u[4,6],u[4,6],none,2"},
    {"aten::binary_cross_entropy_with_logits", "f[4,6],u[4,6],none,none,2"},
    {"aten::kl_div", "f[4,6],f[4,6],2,log_target=true"},
    {"aten::binary_cross_entropy", "u[4,6],u[4,6],c[4,6],1"},
    {"aten::binary_cross_entropy_with_logits", "f[4,6],u[4,6],c[4,6],c[6],2"},
};

}  // namespace

std::span<const RuleCase> coxswain::tests::loss_cases() { return kCases; }

TEST_CASE("samples are summed, classes whole, a mean over counted targets is not split") {
  CHECK(bound_text({"aten::cross_entropy_loss", "f[6,9],i9[6],none,2"}) == "[n0 c], [n0] -> []; sum n0; whole c");
  CHECK(bound_text({"aten::cross_entropy_loss", "f[6,9],i9[6],none,1"}) == "[n0 c], [n0] -> []; whole n0; whole c");
  CHECK(bound_text({"aten::mse_loss", "f[4,6],f[4,6],1"}) == "[d0 d1], [d0 d1] -> []; scaled d0; scaled d1");
}
