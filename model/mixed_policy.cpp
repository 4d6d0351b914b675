#include "model/mixed_policy.h"

#include <algorithm>
#include <iterator>

namespace coxswain::model {
namespace {

struct Row {
  std::string_view name;
  ComputeRule rule;
};

constexpr auto kNarrow = ComputeRule::Narrow;
constexpr auto kFloat = ComputeRule::Float32;
constexpr auto kRounded = ComputeRule::Float32Rounded;
constexpr auto kInside = ComputeRule::Float32Inside;

// Sorted by name. Products in 16 bits (their kernels add in float32); what adds many numbers, divides by small ones or
// has a steep derivative in float32. An embedding is read in float32 because its gradient adds up a row as often as its
// token occurs.
constexpr Row kTable[] = {
    {"aten::_grouped_mm", kNarrow},
    {"aten::_log_softmax", kFloat},
    {"aten::_softmax", kInside},
    {"aten::acos", kFloat},
    {"aten::addbmm", kNarrow},
    {"aten::addmm", kNarrow},
    {"aten::addmv", kNarrow},
    {"aten::asin", kFloat},
    {"aten::baddbmm", kNarrow},
    {"aten::batch_norm", kInside},
    {"aten::bilinear", kNarrow},
    {"aten::binary_cross_entropy", kFloat},
    {"aten::binary_cross_entropy_with_logits", kFloat},
    {"aten::bmm", kNarrow},
    {"aten::cdist", kFloat},
    {"aten::conv1d", kNarrow},
    {"aten::conv2d", kNarrow},
    {"aten::conv3d", kNarrow},
    {"aten::conv_transpose1d", kNarrow},
    {"aten::conv_transpose2d", kNarrow},
    {"aten::conv_transpose3d", kNarrow},
    {"aten::convolution", kNarrow},
    {"aten::cosh", kFloat},
    {"aten::cosine_embedding_loss", kFloat},
    {"aten::cosine_similarity", kFloat},
    {"aten::cross_entropy_loss", kFloat},
    {"aten::ctc_loss", kFloat},
    {"aten::cumprod", kFloat},
    {"aten::cumsum", kFloat},
    {"aten::dist", kFloat},
    {"aten::einsum", kNarrow},
    {"aten::embedding", kRounded},
    {"aten::embedding_bag", kRounded},
    {"aten::erfinv", kFloat},
    {"aten::exp", kFloat},
    {"aten::exp2", kFloat},
    {"aten::expm1", kFloat},
    {"aten::group_norm", kInside},
    {"aten::hinge_embedding_loss", kFloat},
    {"aten::huber_loss", kFloat},
    {"aten::index_add", kRounded},
    {"aten::instance_norm", kRounded},
    {"aten::kl_div", kFloat},
    {"aten::l1_loss", kFloat},
    {"aten::layer_norm", kInside},
    {"aten::linalg_vector_norm", kFloat},
    {"aten::linear", kNarrow},
    {"aten::log", kFloat},
    {"aten::log10", kFloat},
    {"aten::log1p", kFloat},
    {"aten::log2", kFloat},
    {"aten::log_softmax", kFloat},
    {"aten::logcumsumexp", kFloat},
    {"aten::logsumexp", kFloat},
    {"aten::margin_ranking_loss", kFloat},
    {"aten::matmul", kNarrow},
    {"aten::mean", kFloat},
    {"aten::mm", kNarrow},
    {"aten::mse_loss", kFloat},
    {"aten::mv", kNarrow},
    {"aten::native_batch_norm", kInside},
    {"aten::native_group_norm", kInside},
    {"aten::native_layer_norm", kInside},
    {"aten::nll_loss", kFloat},
    {"aten::nll_loss2d", kFloat},
    {"aten::nll_loss_forward", kFloat},
    {"aten::nll_loss_nd", kFloat},
    {"aten::norm", kFloat},
    {"aten::poisson_nll_loss", kFloat},
    {"aten::pow", kFloat},
    {"aten::prod", kFloat},
    {"aten::reciprocal", kFloat},
    {"aten::renorm", kFloat},
    {"aten::rms_norm", kRounded},
    {"aten::rsqrt", kFloat},
    {"aten::scaled_dot_product_attention", kNarrow},
    {"aten::scatter_add", kRounded},
    {"aten::sinh", kFloat},
    {"aten::smooth_l1_loss", kFloat},
    {"aten::soft_margin_loss", kFloat},
    {"aten::softmax", kInside},
    {"aten::sqrt", kFloat},
    {"aten::square", kFloat},
    {"aten::std", kFloat},
    {"aten::std_mean", kFloat},
    {"aten::sum", kFloat},
    {"aten::tan", kFloat},
    {"aten::tensordot", kNarrow},
    {"aten::triplet_margin_loss", kFloat},
    {"aten::var", kFloat},
    {"aten::var_mean", kFloat},
    {"coxswain::cross_entropy", kFloat},
    {"coxswain::expert_bmm", kNarrow},
    {"coxswain::ring_attention", kNarrow},
    {"transformers::grouped_mm_fallback", kNarrow},
};
static_assert(std::is_sorted(std::begin(kTable), std::end(kTable),
                             [](const Row& a, const Row& b) { return a.name < b.name; }));

}  // namespace

ComputeRule compute_rule_of(std::string_view target) {
  const std::string_view name = target.substr(0, target.find('.'));
  const auto* found = std::lower_bound(std::begin(kTable), std::end(kTable), name,
                                       [](const Row& row, std::string_view wanted) { return row.name < wanted; });
  return found != std::end(kTable) && found->name == name ? found->rule : ComputeRule::Follow;
}

}  // namespace coxswain::model
