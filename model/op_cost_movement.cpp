// Views (no bytes), copies, indexing and factories.
#include "model/op_rules.h"

namespace coxswain::model {
namespace {

using enum OpClass;

constexpr OpRule view(std::string_view target, Layout layout) { return {target, View, layout}; }
constexpr OpRule factory(std::string_view target) { return {target, Factory, Layout::Dense}; }
constexpr OpRule index(std::string_view target, std::array<Saved, 3> saves = {}) {
  return {target, Index, Layout::Dense, saves};
}

constexpr OpRule kRules[] = {
    view("aten::view", Layout::View),
    view("aten::_unsafe_view", Layout::View),
    view("aten::unflatten", Layout::View),
    view("aten::view_as", Layout::View),
    view("aten::reshape", Layout::Reshape),
    view("aten::flatten", Layout::Reshape),
    view("aten::reshape_as", Layout::Reshape),
    view("aten::ravel", Layout::Reshape),
    view("aten::transpose", Layout::Transpose),
    view("aten::swapaxes", Layout::Transpose),
    view("aten::swapdims", Layout::Transpose),
    view("aten::permute", Layout::Permute),
    view("aten::t", Layout::Reverse),
    view("aten::mT", Layout::Reverse),
    view("aten::numpy_T", Layout::Reverse),
    view("aten::expand", Layout::Expand),
    view("aten::expand_as", Layout::Expand),
    view("aten::broadcast_to", Layout::Expand),
    view("aten::slice", Layout::Slice),
    view("aten::narrow", Layout::Slice),
    view("aten::select", Layout::Select),
    view("aten::split", Layout::Split),
    view("aten::split_with_sizes", Layout::Split),
    view("aten::chunk", Layout::Split),
    view("aten::tensor_split", Layout::Split),
    view("aten::unbind", Layout::Unbind),
    view("aten::unsqueeze", Layout::Unsqueeze),
    view("aten::squeeze", Layout::Squeeze),
    view("aten::alias", Layout::Alias),
    view("aten::detach", Layout::Alias),
    view("aten::lift_fresh", Layout::Alias),
    view("aten::positive", Layout::Alias),
    view("aten::feature_dropout", Layout::Dropout),
    index("aten::embedding", {{{"indices"}}}),
    index("aten::index", {{{"indices"}}}),
    index("aten::index_select", {{{"index"}}}),
    index("aten::gather", {{{"self"}, {"index"}}}),
    index("aten::scatter", {{{"index"}}}),
    index("aten::scatter_add", {{{"index"}}}),
    index("aten::index_add", {{{"index"}, {"source"}}}),
    index("aten::index_put", {{{"indices"}}}),
    index("aten::masked_select", {{{"mask"}}}),
    index("aten::take_along_dim", {{{"self"}, {"indices"}}}),
    index("aten::cat"),
    index("aten::stack"),
    index("aten::pad"),
    index("aten::constant_pad_nd"),
    index("aten::repeat"),
    index("aten::repeat_interleave"),
    index("aten::roll"),
    index("aten::flip"),
    index("aten::tril"),
    index("aten::triu"),
    index("aten::slice_scatter"),
    index("aten::select_scatter"),
    index("aten::one_hot"),
    index("aten::copy"),
    index("aten::broadcast_tensors"),
    index("aten::fill"),
    index("aten::upsample_nearest2d"),
    index("aten::upsample_bilinear2d"),
    factory("aten::arange"),
    factory("aten::zeros"),
    factory("aten::ones"),
    factory("aten::full"),
    factory("aten::empty"),
    factory("aten::eye"),
    factory("aten::linspace"),
    factory("aten::zeros_like"),
    factory("aten::ones_like"),
    factory("aten::full_like"),
    factory("aten::empty_like"),
    factory("aten::new_zeros"),
    factory("aten::new_ones"),
    factory("aten::new_full"),
    factory("aten::new_empty"),
    factory("aten::rand"),
    factory("aten::randn"),
    factory("aten::rand_like"),
    factory("aten::randn_like"),
    factory("aten::scalar_tensor"),
    factory("aten::tensor"),
};

}  // namespace

std::span<const OpRule> movement_rules() { return kRules; }

}  // namespace coxswain::model
