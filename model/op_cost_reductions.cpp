// Norms, softmax, losses and sums.
#include "model/op_rules.h"

namespace coxswain::model {
namespace {

using enum OpClass;

constexpr OpRule norm(std::string_view target, Hidden hidden) {
  return {target, Normalisation, Layout::Dense, {{{"input"}}}, FlopRule::None, hidden};
}
constexpr OpRule softmax(std::string_view target) { return {target, Softmax, Layout::Dense, {{{"out"}}}}; }
constexpr OpRule reduction(std::string_view target, std::array<Saved, 3> saves = {}, Hidden hidden = Hidden::None) {
  return {target, Reduction, Layout::Dense, saves, FlopRule::None, hidden};
}

constexpr OpRule kRules[] = {
    norm("aten::layer_norm", Hidden::RowStatistics2),
    norm("aten::native_layer_norm", Hidden::RowStatistics2),
    norm("aten::rms_norm", Hidden::RmsNorm),
    norm("aten::group_norm", Hidden::GroupStatistics2),
    norm("aten::native_group_norm", Hidden::GroupStatistics2),
    norm("aten::batch_norm", Hidden::ChannelStatistics2),
    norm("aten::native_batch_norm", Hidden::ChannelStatistics2),
    norm("aten::instance_norm", Hidden::GroupStatistics2),
    softmax("aten::softmax"),
    softmax("aten::_softmax"),
    softmax("aten::log_softmax"),
    softmax("aten::_log_softmax"),
    // cross_entropy = log_softmax + nll_loss; the log-softmax inside is kept once, the logits are not.
    {"aten::cross_entropy_loss", Softmax, Layout::Dense, {{{"target"}}}, FlopRule::None, Hidden::LogSoftmax},
    reduction("aten::nll_loss", {{{"self"}, {"target"}}}, Hidden::LossWeight),
    reduction("aten::nll_loss_nd", {{{"self"}, {"target"}}}, Hidden::LossWeight),
    reduction("aten::nll_loss2d", {{{"self"}, {"target"}}}, Hidden::LossWeight),
    reduction("aten::mse_loss", {{{"self"}, {"target"}}}),
    reduction("aten::l1_loss", {{{"self"}, {"target"}}}),
    reduction("aten::smooth_l1_loss", {{{"self"}, {"target"}}}),
    reduction("aten::huber_loss", {{{"self"}, {"target"}}}),
    reduction("aten::binary_cross_entropy", {{{"self"}, {"target"}}}),
    reduction("aten::binary_cross_entropy_with_logits", {{{"self"}, {"target"}}}),
    reduction("aten::kl_div", {{{"self"}, {"target"}}}),
    reduction("aten::sum"),
    reduction("aten::mean"),
    reduction("aten::any"),
    reduction("aten::all"),
    reduction("aten::argmax"),
    reduction("aten::argmin"),
    reduction("aten::count_nonzero"),
    reduction("aten::cumsum"),
    reduction("aten::diff"),
    reduction("aten::var", {{{"self"}}}),
    reduction("aten::std", {{{"self"}, {"out"}}}),
    reduction("aten::var_mean", {{{"self"}}}),
    reduction("aten::norm", {{{"self"}, {"out"}}}),
    reduction("aten::linalg_vector_norm", {{{"self"}, {"out"}}}),
    reduction("aten::amax", {{{"self"}, {"out"}}}),
    reduction("aten::amin", {{{"self"}, {"out"}}}),
    reduction("aten::max", {{{"self"}, {"out"}}}),
    reduction("aten::min", {{{"self"}, {"out"}}}),
    reduction("aten::max.dim", {{{"out1"}}}),
    reduction("aten::min.dim", {{{"out1"}}}),
    reduction("aten::prod", {{{"self"}, {"out"}}}),
    reduction("aten::logsumexp", {{{"self"}, {"out"}}}),
    reduction("aten::cumprod", {{{"self"}, {"out"}}}),
    reduction("aten::topk", {{{"out1"}}}),
    reduction("aten::sort", {{{"out1"}}}),
    reduction("aten::max_pool2d", {{{"self"}}}, Hidden::OutputIndices),
    reduction("aten::max_pool1d", {{{"self"}}}, Hidden::OutputIndices),
    reduction("aten::avg_pool2d", {{{"self"}}}),
    reduction("aten::avg_pool1d", {{{"self"}}}),
    reduction("aten::adaptive_avg_pool2d", {{{"self"}}}),
    reduction("aten::adaptive_avg_pool1d", {{{"self"}}}),
};

}  // namespace

std::span<const OpRule> reduction_rules() { return kRules; }

}  // namespace coxswain::model
