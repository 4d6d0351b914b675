#include "collective/host/reduce.h"

#include <algorithm>
#include <bit>
#include <type_traits>
#include <vector>

namespace coxswain::collective {
namespace {

/// How an element is stored and in what type it is combined.
template <class T>
struct Plain {
  using Stored = T;
  using Wide = T;
  static Wide load(Stored x) { return x; }
  static Stored store(Wide x) { return x; }
};

struct Brain {
  using Stored = std::uint16_t;
  using Wide = float;
  static Wide load(Stored x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x) << 16); }
  static Stored store(Wide x) {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return static_cast<Stored>(is_nan ? ((bits >> 16) | 0x40u) : rounded);
  }
};

struct Half {
  using Stored = std::uint16_t;
  using Wide = float;
  static Wide load(Stored x) {
    // Exponent and fraction moved into place and rescaled by 2^(127-15), which also normalises subnormals.
    const std::uint32_t magnitude = static_cast<std::uint32_t>(x & 0x7fffu) << 13;
    const std::uint32_t scaled = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
    const std::uint32_t special = magnitude | 0x7f800000u;  // infinity, NaN
    const std::uint32_t sign = static_cast<std::uint32_t>(x & 0x8000u) << 16;
    return std::bit_cast<float>((magnitude >= 0x0f800000u ? special : scaled) | sign);
  }
  static Stored store(Wide x) {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    const std::uint32_t sign = (bits >> 16) & 0x8000u;
    const std::uint32_t magnitude = bits & 0x7fffffffu;
    // Adding 0.5 makes the float adder round a subnormal half to its grid of 2^-24.
    const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
    const std::uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    const std::uint32_t large = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;  // NaN; infinity from 65520 on
    const std::uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
    return static_cast<Stored>((magnitude >= 0x477ff000u ? large : finite) | sign);
  }
};

struct Add {
  template <class T>
  static T apply(T a, T b) {
    // Unsigned sums wrap where signed ones are undefined.
    if constexpr (std::is_integral_v<T>) {
      using Unsigned = std::make_unsigned_t<T>;
      return static_cast<T>(static_cast<Unsigned>(static_cast<Unsigned>(a) + static_cast<Unsigned>(b)));
    } else {
      return a + b;
    }
  }
};

struct Larger {
  template <class T>
  static T apply(T a, T b) {
    return (b > a || b != b) && a == a ? b : a;
  }
};

struct Smaller {
  template <class T>
  static T apply(T a, T b) {
    return (b < a || b != b) && a == a ? b : a;
  }
};

// `out` is either apart from a source or the very same array, so iterations do not depend on each other.
template <class Element, class Op>
void reduce_two(typename Element::Stored* out, const typename Element::Stored* a, const typename Element::Stored* b,
                std::size_t count) {
#pragma GCC ivdep
  for (std::size_t i = 0; i < count; ++i) out[i] = Element::store(Op::apply(Element::load(a[i]), Element::load(b[i])));
}

template <class Element, class Op>
void reduce_three(typename Element::Stored* out, const typename Element::Stored* a, const typename Element::Stored* b,
                  const typename Element::Stored* c, std::size_t count) {
#pragma GCC ivdep
  for (std::size_t i = 0; i < count; ++i) {
    out[i] = Element::store(Op::apply(Op::apply(Element::load(a[i]), Element::load(b[i])), Element::load(c[i])));
  }
}

template <class Element, class Op>
void reduce_four(typename Element::Stored* out, const typename Element::Stored* a, const typename Element::Stored* b,
                 const typename Element::Stored* c, const typename Element::Stored* d, std::size_t count) {
#pragma GCC ivdep
  for (std::size_t i = 0; i < count; ++i) {
    const auto left = Op::apply(Op::apply(Element::load(a[i]), Element::load(b[i])), Element::load(c[i]));
    out[i] = Element::store(Op::apply(left, Element::load(d[i])));
  }
}

/// Any number of sources: partial results of a block stay wide and in the first-level cache.
template <class Element, class Op>
void reduce_many(typename Element::Stored* out, std::span<const typename Element::Stored* const> sources,
                 std::size_t count) {
  constexpr std::size_t kBlock = 1024;
  typename Element::Wide partial[kBlock];
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t length = std::min(kBlock, count - begin);
    for (std::size_t i = 0; i < length; ++i) partial[i] = Element::load(sources[0][begin + i]);
    for (const auto* source : sources.subspan(1)) {
      for (std::size_t i = 0; i < length; ++i) partial[i] = Op::apply(partial[i], Element::load(source[begin + i]));
    }
    for (std::size_t i = 0; i < length; ++i) out[begin + i] = Element::store(partial[i]);
  }
}

template <class Element, class Op>
void reduce_elements(std::byte* out, std::span<const std::byte* const> sources, std::size_t bytes) {
  using Stored = typename Element::Stored;
  const std::size_t count = bytes / sizeof(Stored);
  auto* result = reinterpret_cast<Stored*>(out);
  const auto at = [&](std::size_t i) { return reinterpret_cast<const Stored*>(sources[i]); };
  switch (sources.size()) {
    case 1: std::copy_n(at(0), at(0) == result ? 0 : count, result); return;
    case 2: reduce_two<Element, Op>(result, at(0), at(1), count); return;
    case 3: reduce_three<Element, Op>(result, at(0), at(1), at(2), count); return;
    case 4: reduce_four<Element, Op>(result, at(0), at(1), at(2), at(3), count); return;
    default: break;
  }
  std::vector<const Stored*> typed;
  for (std::size_t i = 0; i < sources.size(); ++i) typed.push_back(at(i));
  reduce_many<Element, Op>(result, typed, count);
}

template <class Element>
void reduce_with(ReduceOp op, std::byte* out, std::span<const std::byte* const> sources, std::size_t bytes) {
  switch (op) {
    case ReduceOp::Sum: return reduce_elements<Element, Add>(out, sources, bytes);
    case ReduceOp::Max: return reduce_elements<Element, Larger>(out, sources, bytes);
    case ReduceOp::Min: return reduce_elements<Element, Smaller>(out, sources, bytes);
  }
}

}  // namespace

void reduce(DType dtype, ReduceOp op, std::byte* out, std::span<const std::byte* const> sources, std::size_t bytes) {
  switch (dtype) {
    // Bool is 0 or 1: "or" is the maximum.
    case DType::Bool:
      return reduce_with<Plain<std::uint8_t>>(op == ReduceOp::Sum ? ReduceOp::Max : op, out, sources, bytes);
    case DType::UInt8: return reduce_with<Plain<std::uint8_t>>(op, out, sources, bytes);
    case DType::Int8: return reduce_with<Plain<std::int8_t>>(op, out, sources, bytes);
    case DType::Int16: return reduce_with<Plain<std::int16_t>>(op, out, sources, bytes);
    case DType::Int32: return reduce_with<Plain<std::int32_t>>(op, out, sources, bytes);
    case DType::Int64: return reduce_with<Plain<std::int64_t>>(op, out, sources, bytes);
    case DType::Float16: return reduce_with<Half>(op, out, sources, bytes);
    case DType::BFloat16: return reduce_with<Brain>(op, out, sources, bytes);
    case DType::Float32: return reduce_with<Plain<float>>(op, out, sources, bytes);
    case DType::Float64: return reduce_with<Plain<double>>(op, out, sources, bytes);
  }
}

}  // namespace coxswain::collective
