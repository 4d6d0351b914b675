#include "tests/collective/conformance.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>

namespace coxswain::collective {
namespace {

constexpr DType kAllDtypes[] = {DType::Bool,  DType::UInt8,   DType::Int8,     DType::Int16,   DType::Int32,
                                DType::Int64, DType::Float16, DType::BFloat16, DType::Float32, DType::Float64};

/// Elements of one dtype with values given and read as doubles that the dtype holds exactly.
class Elements {
 public:
  Elements(DType dtype, std::int64_t count)
      : dtype_(dtype), count_(count), bytes_(static_cast<std::size_t>((size_of(dtype) * count).value)) {}

  [[nodiscard]] BufferView view() { return {bytes_.data(), count_, dtype_}; }
  [[nodiscard]] std::int64_t count() const { return count_; }
  [[nodiscard]] const std::vector<std::byte>& bytes() const { return bytes_; }

  void set(std::int64_t i, double value) {
    switch (dtype_) {
      case DType::Bool: put(i, static_cast<std::uint8_t>(value != 0)); break;
      case DType::UInt8: put(i, static_cast<std::uint8_t>(static_cast<std::int64_t>(value))); break;
      case DType::Int8: put(i, static_cast<std::int8_t>(static_cast<std::int64_t>(value))); break;
      case DType::Int16: put(i, static_cast<std::int16_t>(static_cast<std::int64_t>(value))); break;
      case DType::Int32: put(i, static_cast<std::int32_t>(value)); break;
      case DType::Int64: put(i, static_cast<std::int64_t>(value)); break;
      // Small integers in half precision: sign 0, biased exponent, the bits below the leading one.
      case DType::Float16: put(i, small_float(value, 10, 15)); break;
      case DType::BFloat16: put(i, small_float(value, 7, 127)); break;
      case DType::Float32: put(i, static_cast<float>(value)); break;
      case DType::Float64: put(i, value); break;
    }
  }
  [[nodiscard]] bool equals(std::int64_t i, double value) const {
    Elements expected(dtype_, 1);
    expected.set(0, value);
    const std::size_t bytes = expected.bytes_.size();
    return std::memcmp(bytes_.data() + static_cast<std::size_t>(i) * bytes, expected.bytes_.data(), bytes) == 0;
  }

 private:
  static std::uint16_t small_float(double value, int fraction_bits, int bias) {
    if (value == 0) return 0;
    int exponent = 0;
    const double fraction = std::frexp(value, &exponent);  // in [0.5, 1)
    const auto bits = static_cast<std::uint16_t>(std::ldexp(fraction * 2 - 1, fraction_bits));
    return static_cast<std::uint16_t>(((exponent - 1 + bias) << fraction_bits) | bits);
  }
  template <class T>
  void put(std::int64_t i, T value) {
    std::memcpy(bytes_.data() + static_cast<std::size_t>(i) * sizeof(T), &value, sizeof(T));
  }

  DType dtype_;
  std::int64_t count_;
  std::vector<std::byte> bytes_;
};

/// Powers of ten where the dtype has the digits, of two (8 ranks fill a byte exactly) elsewhere.
double base_of(DType dtype) {
  return dtype == DType::Int32 || dtype == DType::Int64 || dtype == DType::Float32 || dtype == DType::Float64 ? 10 : 2;
}

/// Rank r's term of element i: its power, or nothing for a third of the elements.
double term(DType dtype, int rank, std::int64_t i) { return (i + rank) % 3 == 0 ? 0 : std::pow(base_of(dtype), rank); }

double sum_of_terms(DType dtype, int size, std::int64_t i) {
  double sum = 0;
  for (int rank = 0; rank < size; ++rank) sum += term(dtype, rank, i);
  return sum;
}

std::string describe(DType dtype, std::int64_t count) {
  return std::string(to_text(dtype)) + " x " + std::to_string(count);
}

void must(Report& report, Handle handle, const std::string& what) {
  const auto result = handle.wait(soon());
  report.expect(result.has_value(), what + ": " + (result ? "" : to_text(result.error())));
}

void expect_elements(Report& report, const Elements& got, const std::string& what,
                     const std::function<double(std::int64_t)>& expected) {
  for (std::int64_t i = 0; i < got.count(); ++i) {
    if (got.equals(i, expected(i))) continue;
    report.expect(false, what + ": element " + std::to_string(i) + " is not " + std::to_string(expected(i)));
    return;
  }
}

/// Of the sizes a backend may treat apart: none, one, fewer than ranks, indivisible, latency bound, several chunks.
std::vector<std::int64_t> counts_for(int size) { return {0, 1, std::max(1, size - 1), 17, 1000, 5003, 300007}; }

bool can_reduce(const Communicator& communicator, DType dtype) {
  const auto& dtypes = communicator.capabilities().reduce_dtypes;
  return std::find(dtypes.begin(), dtypes.end(), dtype) != dtypes.end();
}

void all_reduce_sums_every_dtype(Communicator& communicator, Report& report) {
  const int size = communicator.size();
  for (const DType dtype : kAllDtypes) {
    if (!can_reduce(communicator, dtype)) continue;
    for (const std::int64_t count : counts_for(size)) {
      if (count > 10000 && dtype != DType::Float32 && dtype != DType::BFloat16) continue;
      Elements data(dtype, count);
      for (std::int64_t i = 0; i < count; ++i) data.set(i, term(dtype, communicator.rank(), i));
      must(report, communicator.all_reduce(data.view(), ReduceOp::Sum, soon()), describe(dtype, count));
      expect_elements(report, data, describe(dtype, count),
                      [&](std::int64_t i) { return sum_of_terms(dtype, size, i); });
    }
  }
}

/// Below 100, so that every dtype holds it, and in no order by rank.
double scattered(DType dtype, int rank, std::int64_t i) {
  return dtype == DType::Bool ? static_cast<double>((rank + i) % 3 == 0)
                              : static_cast<double>((rank * 37 + i * 11) % 100);
}

void all_reduce_finds_maxima_and_minima(Communicator& communicator, Report& report) {
  const int size = communicator.size();
  for (const DType dtype : kAllDtypes) {
    if (!can_reduce(communicator, dtype)) continue;
    for (const ReduceOp op : {ReduceOp::Max, ReduceOp::Min}) {
      Elements data(dtype, 1003);
      for (std::int64_t i = 0; i < data.count(); ++i) data.set(i, scattered(dtype, communicator.rank(), i));
      must(report, communicator.all_reduce(data.view(), op, soon()), describe(dtype, data.count()));
      expect_elements(report, data, op == ReduceOp::Max ? "max" : "min", [&](std::int64_t i) {
        double best = scattered(dtype, 0, i);
        for (int rank = 1; rank < size; ++rank) {
          const double other = scattered(dtype, rank, i);
          best = op == ReduceOp::Max ? std::max(best, other) : std::min(best, other);
        }
        return best;
      });
    }
  }
}

std::vector<float> random_floats(int rank, std::size_t count) {
  std::mt19937 generator(static_cast<unsigned>(rank) + 1);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

void all_reduce_gives_every_rank_the_same_bits(Communicator& communicator, Report& report) {
  const auto size = static_cast<std::size_t>(communicator.size());
  for (const std::size_t count : {std::size_t{37}, std::size_t{9001}, std::size_t{400003}}) {
    std::vector<float> data = random_floats(communicator.rank(), count);
    const auto signed_count = static_cast<std::int64_t>(count);
    must(report, communicator.all_reduce({data.data(), signed_count, DType::Float32}, ReduceOp::Sum, soon()), "random");
    std::vector<float> first = data;
    must(report, communicator.broadcast({first.data(), signed_count, DType::Float32}, 0, soon()), "first rank's");
    report.expect(std::memcmp(first.data(), data.data(), count * sizeof(float)) == 0, "bits differ from rank 0's");
    // The error of any order of summation is below (P - 1) ulp of the sum of magnitudes.
    std::vector<double> sum(count), magnitude(count);
    for (std::size_t rank = 0; rank < size; ++rank) {
      const auto values = random_floats(static_cast<int>(rank), count);
      for (std::size_t i = 0; i < count; ++i) {
        sum[i] += values[i];
        magnitude[i] += std::abs(values[i]);
      }
    }
    for (std::size_t i = 0; i < count; ++i) {
      if (std::abs(sum[i] - data[i]) <= magnitude[i] * 0x1p-24 * static_cast<double>(size)) continue;
      report.expect(false, "element " + std::to_string(i) + " is no sum of the ranks' elements");
      break;
    }
  }
}

/// Rank r's share: unequal, some of them zero.
std::vector<std::int64_t> uneven_counts(int size, std::int64_t scale) {
  std::vector<std::int64_t> counts;
  for (int rank = 0; rank < size; ++rank) counts.push_back(rank == 1 ? 0 : scale * ((rank * 5) % 7) + rank);
  return counts;
}

void all_gather_takes_any_counts(Communicator& communicator, Report& report) {
  for (const std::int64_t scale : {0, 3, 4001, 90001}) {
    const auto counts = uneven_counts(communicator.size(), scale);
    const std::int64_t total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
    Elements input(DType::Int32, counts[static_cast<std::size_t>(communicator.rank())]);
    Elements output(DType::Int32, total);
    for (std::int64_t i = 0; i < input.count(); ++i)
      input.set(i, communicator.rank() * 1000000 + static_cast<double>(i));
    must(report, communicator.all_gather(input.view(), output.view(), counts, soon()), "all_gather");
    std::int64_t begin = 0;
    for (int rank = 0; rank < communicator.size(); ++rank) {
      for (std::int64_t i = 0; i < counts[static_cast<std::size_t>(rank)]; ++i) {
        if (output.equals(begin + i, rank * 1000000 + static_cast<double>(i))) continue;
        report.expect(false, "element " + std::to_string(i) + " of rank " + std::to_string(rank) + " is wrong");
        return;
      }
      begin += counts[static_cast<std::size_t>(rank)];
    }
  }
}

void reduce_scatter_takes_any_counts(Communicator& communicator, Report& report) {
  for (const DType dtype : {DType::Float32, DType::BFloat16, DType::Int8}) {
    for (const std::int64_t scale : {0, 3, 4001, 90001}) {
      if (scale > 5000 && dtype != DType::Float32) continue;
      const auto counts = uneven_counts(communicator.size(), scale);
      const auto begin = std::accumulate(counts.begin(), counts.begin() + communicator.rank(), std::int64_t{0});
      Elements input(dtype, std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
      Elements output(dtype, counts[static_cast<std::size_t>(communicator.rank())]);
      for (std::int64_t i = 0; i < input.count(); ++i) input.set(i, term(dtype, communicator.rank(), i));
      const std::vector<std::byte> before = input.bytes();
      must(report, communicator.reduce_scatter(input.view(), output.view(), counts, ReduceOp::Sum, soon()),
           "reduce_scatter");
      expect_elements(report, output, "reduce_scatter " + describe(dtype, output.count()),
                      [&](std::int64_t i) { return sum_of_terms(dtype, communicator.size(), begin + i); });
      report.expect(input.bytes() == before, "reduce_scatter changed its input");
    }
  }
}

void all_to_all_takes_any_counts(Communicator& communicator, Report& report) {
  const int size = communicator.size();
  const int self = communicator.rank();
  for (const std::int64_t scale : {0, 1, 30011}) {
    // Rank a sends scale * ((a + 2 b) % 4) elements a * 100 + b to rank b.
    const auto count = [&](int from, int to) { return scale * ((from + 2 * to) % 4); };
    std::vector<std::int64_t> sends, receives;
    for (int rank = 0; rank < size; ++rank) {
      sends.push_back(count(self, rank));
      receives.push_back(count(rank, self));
    }
    Elements input(DType::Int32, std::accumulate(sends.begin(), sends.end(), std::int64_t{0}));
    Elements output(DType::Int32, std::accumulate(receives.begin(), receives.end(), std::int64_t{0}));
    std::int64_t at = 0;
    for (int rank = 0; rank < size; ++rank) {
      for (std::int64_t i = 0; i < sends[static_cast<std::size_t>(rank)]; ++i) input.set(at++, self * 100 + rank);
    }
    must(report, communicator.all_to_all(input.view(), output.view(), sends, receives, soon()), "all_to_all");
    at = 0;
    for (int rank = 0; rank < size; ++rank) {
      for (std::int64_t i = 0; i < receives[static_cast<std::size_t>(rank)]; ++i, ++at) {
        if (!output.equals(at, rank * 100 + self))
          return report.expect(false, "wrong element from rank " + std::to_string(rank));
      }
    }
  }
}

void broadcast_reaches_all_from_every_root(Communicator& communicator, Report& report) {
  for (const std::int64_t count : {std::int64_t{0}, std::int64_t{1}, std::int64_t{400009}}) {
    for (int root = 0; root < communicator.size(); ++root) {
      Elements data(DType::Float64, count);
      for (std::int64_t i = 0; i < count; ++i)
        data.set(i, communicator.rank() == root ? static_cast<double>(i + root) : -1);
      must(report, communicator.broadcast(data.view(), root, soon()), "broadcast");
      expect_elements(report, data, "root " + std::to_string(root),
                      [&](std::int64_t i) { return static_cast<double>(i + root); });
    }
  }
}

/// Everybody sends to everybody (itself too), and lists the receives in the reverse order of the sends.
void exchange_matches_reversed_receives(Communicator& communicator, Report& report) {
  const int size = communicator.size();
  for (const std::int64_t count : {std::int64_t{1}, std::int64_t{200003}}) {
    std::vector<Elements> sent, received;
    std::vector<PointToPoint> operations;
    for (int peer = 0; peer < size; ++peer) {
      sent.emplace_back(DType::Int32, count);
      received.emplace_back(DType::Int32, count);
      for (std::int64_t i = 0; i < count; ++i) sent.back().set(i, communicator.rank() * 10 + peer);
    }
    for (int peer = 0; peer < size; ++peer)
      operations.push_back({PointToPoint::Kind::Send, peer, sent[static_cast<std::size_t>(peer)].view()});
    for (int peer = size - 1; peer >= 0; --peer)
      operations.push_back({PointToPoint::Kind::Receive, peer, received[static_cast<std::size_t>(peer)].view()});
    must(report, communicator.exchange(operations, soon()), "exchange");
    for (int peer = 0; peer < size; ++peer) {
      expect_elements(report, received[static_cast<std::size_t>(peer)], "from rank " + std::to_string(peer),
                      [&](std::int64_t) { return peer * 10 + communicator.rank(); });
    }
  }
}

/// Messages of one pair arrive in order, however they are grouped.
void messages_of_a_pair_stay_in_order(Communicator& communicator, Report& report) {
  const int size = communicator.size();
  if (size == 1) return;
  const int next = (communicator.rank() + 1) % size;
  const int previous = (communicator.rank() + size - 1) % size;
  std::vector<Elements> sent, received;
  std::vector<PointToPoint> first, second;
  for (int i = 0; i < 6; ++i) {
    sent.emplace_back(DType::Int32, 1 + 20000 * i);
    received.emplace_back(DType::Int32, 1 + 20000 * i);
    for (std::int64_t k = 0; k < sent.back().count(); ++k) sent.back().set(k, communicator.rank() * 10 + i);
  }
  for (std::size_t i = 0; i < 6; ++i) {
    (i < 4 ? first : second).push_back({PointToPoint::Kind::Send, next, sent[i].view()});
    (i < 4 ? first : second).push_back({PointToPoint::Kind::Receive, previous, received[i].view()});
  }
  Handle one = communicator.exchange(first, soon());
  Handle two = communicator.exchange(second, soon());
  must(report, two, "second group");
  must(report, one, "first group");
  for (std::size_t i = 0; i < 6; ++i) {
    expect_elements(report, received[i], "message " + std::to_string(i),
                    [&](std::int64_t) { return previous * 10 + static_cast<double>(i); });
  }
}

void barriers_and_many_pending_operations(Communicator& communicator, Report& report) {
  std::vector<Elements> data;
  std::vector<Handle> handles;
  for (int i = 0; i < 20; ++i) {
    data.emplace_back(DType::Float32, 100 + i);
    for (std::int64_t k = 0; k < data.back().count(); ++k)
      data.back().set(k, term(DType::Float32, communicator.rank(), k));
  }
  for (Elements& each : data) {
    handles.push_back(communicator.all_reduce(each.view(), ReduceOp::Sum, soon()));
    handles.push_back(communicator.barrier(soon()));
  }
  for (auto handle = handles.rbegin(); handle != handles.rend(); ++handle) must(report, *handle, "pending");
  for (const Handle& handle : handles) report.expect(handle.done(), "waited for, yet not done");
  for (const Elements& each : data) {
    expect_elements(report, each, "pending",
                    [&](std::int64_t i) { return sum_of_terms(DType::Float32, communicator.size(), i); });
  }
}

/// The sum over `members` (in this communicator's ranks) of 10^rank, computed by `group`.
void expect_group_sum(Report& report, Communicator& group, int own_rank, const std::vector<int>& members,
                      const std::string& what) {
  Elements data(DType::Int64, 5);
  for (std::int64_t i = 0; i < 5; ++i) data.set(i, std::pow(10, own_rank));
  must(report, group.all_reduce(data.view(), ReduceOp::Sum, soon()), what);
  expect_elements(report, data, what, [&](std::int64_t) {
    double sum = 0;
    for (const int member : members) sum += std::pow(10, member);
    return sum;
  });
}

void split_makes_any_groups(Communicator& communicator, Report& report) {
  const int size = communicator.size();
  const int self = communicator.rank();
  std::vector<int> same_parity, all_reversed;
  for (int rank = 0; rank < size; ++rank) {
    if (rank % 2 == self % 2) same_parity.push_back(rank);
    all_reversed.insert(all_reversed.begin(), rank);
  }
  auto parity = communicator.split(same_parity, soon());
  auto reversed = communicator.split(all_reversed, soon());
  auto first = communicator.split(self == 0 ? std::vector<int>{0} : std::vector<int>{}, soon());
  for (const auto* made : {&parity, &reversed, &first})
    report.expect(made->has_value(), "split failed: " + (*made ? "" : to_text(made->error())));
  if (!parity || !reversed || !first) return;
  report.expect((*reversed)->rank() == size - 1 - self, "ranks follow the order of the list");
  report.expect((*first != nullptr) == (self == 0), "an empty list gives no communicator");
  // All at once, waited for in the reverse order.
  Elements in_world(DType::Int64, 70001), in_parity(DType::Int64, 70001), in_reversed(DType::Int64, 70001);
  for (Elements* each : {&in_world, &in_parity, &in_reversed}) {
    for (std::int64_t i = 0; i < each->count(); ++i) each->set(i, std::pow(10, self));
  }
  Handle world = communicator.all_reduce(in_world.view(), ReduceOp::Sum, soon());
  Handle half = (*parity)->all_reduce(in_parity.view(), ReduceOp::Sum, soon());
  Handle whole = (*reversed)->all_reduce(in_reversed.view(), ReduceOp::Sum, soon());
  must(report, whole, "reversed");
  must(report, half, "parity");
  must(report, world, "world");
  const auto sum = [](const std::vector<int>& members) {
    return std::accumulate(members.begin(), members.end(), 0.0,
                           [](double total, int member) { return total + std::pow(10, member); });
  };
  expect_elements(report, in_world, "world", [&](std::int64_t) { return sum(all_reversed); });
  expect_elements(report, in_parity, "parity", [&](std::int64_t) { return sum(same_parity); });
  expect_elements(report, in_reversed, "reversed", [&](std::int64_t) { return sum(all_reversed); });
  // A split of a split: pairs of the reversed communicator.
  const int rank = (*reversed)->rank();
  const int partner = rank ^ 1;
  auto pair = (*reversed)->split(
      partner < size ? std::vector<int>{std::min(rank, partner), std::max(rank, partner)} : std::vector<int>{rank},
      soon());
  report.expect(pair.has_value(), "nested split failed: " + (pair ? "" : to_text(pair.error())));
  if (!pair || !*pair) return;
  const std::vector<int> members = partner < size ? std::vector<int>{self, size - 1 - partner} : std::vector<int>{self};
  expect_group_sum(report, **pair, self, members, "pair");
}

void registered_buffers_reduce_like_others(Communicator& communicator, Report& report) {
  constexpr std::int64_t kCount = 200003;
  constexpr std::int64_t kOffset = 24;
  auto memory = communicator.allocate_registered(size_of(DType::Float32) * (kCount + kOffset));
  report.expect(memory.has_value(), "no registered memory");
  if (!memory) return;
  // Twice with registered memory on every rank, then with rank 0's buffer elsewhere.
  std::vector<float> plain(kCount);
  for (int turn = 0; turn < 3; ++turn) {
    float* data = static_cast<float*>(memory->get()) + kOffset;
    if (turn == 2 && communicator.rank() == 0) data = plain.data();
    for (std::int64_t i = 0; i < kCount; ++i)
      data[i] = static_cast<float>(term(DType::Float32, communicator.rank(), i + turn));
    must(report, communicator.all_reduce({data, kCount, DType::Float32}, ReduceOp::Sum, soon()), "registered");
    for (std::int64_t i = 0; i < kCount; ++i) {
      if (data[i] == static_cast<float>(sum_of_terms(DType::Float32, communicator.size(), i + turn))) continue;
      report.expect(false, "registered, turn " + std::to_string(turn) + ": element " + std::to_string(i) + " is wrong");
      return;
    }
  }
}

}  // namespace

const std::vector<ConformanceCase>& conformance_cases() {
  static const std::vector<ConformanceCase> cases{
      {"all_reduce sums every dtype", all_reduce_sums_every_dtype},
      {"all_reduce finds maxima and minima", all_reduce_finds_maxima_and_minima},
      {"all_reduce gives every rank the same bits", all_reduce_gives_every_rank_the_same_bits},
      {"all_gather takes any counts", all_gather_takes_any_counts},
      {"reduce_scatter takes any counts", reduce_scatter_takes_any_counts},
      {"all_to_all takes any counts", all_to_all_takes_any_counts},
      {"broadcast reaches all from every root", broadcast_reaches_all_from_every_root},
      {"exchange matches reversed receives", exchange_matches_reversed_receives},
      {"messages of a pair stay in order", messages_of_a_pair_stay_in_order},
      {"barriers and many pending operations", barriers_and_many_pending_operations},
      {"split makes any groups", split_makes_any_groups},
      {"registered buffers reduce like others", registered_buffers_reduce_like_others},
  };
  return cases;
}

void run_conformance(Communicator& communicator, Report& report) {
  for (const ConformanceCase& each : conformance_cases()) {
    Report own;
    each.run(communicator, own);
    for (const std::string& failure : own.failures()) report.expect(false, each.name + ": " + failure);
    if (!own.failures().empty()) return;
  }
}

}  // namespace coxswain::collective
