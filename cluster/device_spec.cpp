#include "cluster/device_spec.h"

#include <charconv>
#include <cmath>
#include <optional>
#include <set>

namespace coxswain::cluster {
namespace {

constexpr int kMaxDevices = 4096;
constexpr const char* kGrammar =
    "[Nx]KIND[:INDEX[-INDEX]][@CORES], comma-separated, or auto; for example 2xcpu, cpu@1.0,cpu@0.4, cuda:0-3";

/// One comma-separated item, before the machine is looked at.
struct Item {
  std::size_t column = 1;  // of its first character, from 1
  int count = 1;
  DeviceKind kind = DeviceKind::Cpu;
  int first_index = -1, last_index = -1;
  std::optional<double> cores;
};

Error grammar_error(std::size_t column, std::string message, std::string expected, std::string got) {
  return Error{ErrorCode::InvalidArgument, std::move(message), "devices column " + std::to_string(column),
               std::move(expected),        std::move(got),     kGrammar};
}

class ItemParser {
 public:
  ItemParser(std::string_view item, std::size_t column) : whole_(item), rest_(item) { item_.column = column; }

  Result<Item> parse() {
    if (whole_.empty()) return grammar_error(item_.column, "empty device", "a device", "nothing");
    COX_TRY_VOID(parse_count());
    COX_TRY_VOID(parse_kind());
    COX_TRY_VOID(parse_index());
    COX_TRY_VOID(parse_cores());
    if (!rest_.empty()) return error("unexpected text after the device", "',' or the end");
    return item_;
  }

 private:
  [[nodiscard]] Error error(std::string message, std::string expected) const {
    return grammar_error(item_.column + (whole_.size() - rest_.size()), std::move(message), std::move(expected),
                         rest_.empty() ? "nothing" : std::string(rest_));
  }

  bool take(char c) {
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }

  [[nodiscard]] bool at_digit() const { return !rest_.empty() && rest_.front() >= '0' && rest_.front() <= '9'; }

  Result<int> integer(int min, int max) {
    int value = -1;
    const auto [end, failed] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    if (!at_digit() || failed != std::errc{} || value < min || value > max) {
      return error("not a number in range", std::to_string(min) + " to " + std::to_string(max));
    }
    rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
    return value;
  }

  Result<void> parse_count() {
    if (!at_digit()) return {};
    COX_TRY(item_.count, integer(1, kMaxDevices));
    if (!take('x')) return error("number without 'x'", "x, as in 2xcpu");
    return {};
  }

  Result<void> parse_kind() {
    const std::size_t length = std::min(rest_.find_first_of(":@"), rest_.size());
    const std::string_view kind = rest_.substr(0, length);
    if (kind == "cpu") {
      item_.kind = DeviceKind::Cpu;
    } else if (kind == "cuda") {
      item_.kind = DeviceKind::Cuda;
    } else {
      return error("unknown kind of device", "cpu, cuda (auto stands alone)");
    }
    rest_.remove_prefix(length);
    return {};
  }

  Result<void> parse_index() {
    if (rest_.empty() || rest_.front() != ':') return {};
    if (item_.kind == DeviceKind::Cpu) return error("a CPU device has no index", "@CORES, ',' or the end");
    if (item_.count != 1) return error("a count and an index exclude each other", "a range such as cuda:0-3");
    rest_.remove_prefix(1);
    COX_TRY(item_.first_index, integer(0, kMaxDevices - 1));
    item_.last_index = item_.first_index;
    if (take('-')) {
      COX_TRY(item_.last_index, integer(item_.first_index, kMaxDevices - 1));
    }
    return {};
  }

  Result<void> parse_cores() {
    if (rest_.empty() || rest_.front() != '@') return {};
    if (item_.kind != DeviceKind::Cpu) return error("only a CPU device takes a share of cores", "',' or the end");
    rest_.remove_prefix(1);
    double cores = 0;
    const auto [end, failed] =
        std::from_chars(rest_.data(), rest_.data() + rest_.size(), cores, std::chars_format::fixed);
    // from_chars also reads "inf", "nan" and a sign.
    if (!at_digit() || failed != std::errc{} || !std::isfinite(cores) || cores <= 0)
      return error("not a number of cores", "a positive decimal number");
    rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
    item_.cores = cores;
    return {};
  }

  std::string_view whole_, rest_;
  Item item_;
};

Result<std::vector<Item>> parse_items(std::string_view spec) {
  std::vector<Item> items;
  std::vector<Error> problems;
  std::size_t begin = 0;
  while (begin <= spec.size()) {
    const std::size_t end = std::min(spec.find(',', begin), spec.size());
    Result<Item> item = ItemParser(spec.substr(begin, end - begin), begin + 1).parse();
    if (item) {
      items.push_back(*item);
    } else {
      problems.push_back(std::move(item).error());
    }
    begin = end + 1;
  }
  if (!problems.empty())
    return combine_errors(ErrorCode::InvalidArgument, "device list is not understood", std::move(problems));
  return items;
}

/// The shortest decimal text.
std::string number_text(double value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  return std::string(text, end);
}

class Resolver {
 public:
  Resolver(double machine_cores, int num_cuda) : machine_cores_(machine_cores), num_cuda_(num_cuda) {}

  Result<std::vector<DeviceRequest>> resolve(const std::vector<Item>& items) {
    COX_TRY_VOID(take_named(items));
    COX_TRY(const double even_share, share_cores(items));
    std::vector<DeviceRequest> requests;
    int next_free = 0;
    for (const Item& item : items) {
      if (item.first_index >= 0) {
        for (int i = item.first_index; i <= item.last_index; ++i) requests.push_back({DeviceKind::Cuda, i, 0, false});
        continue;
      }
      for (int i = 0; i < item.count; ++i) {
        if (requests.size() == kMaxDevices) return too_many(item);
        if (item.kind == DeviceKind::Cpu) {
          requests.push_back({DeviceKind::Cpu, -1, item.cores.value_or(even_share), item.cores.has_value()});
          continue;
        }
        while (named_.count(next_free) > 0) ++next_free;
        if (next_free >= num_cuda_) return absent(item);
        requests.push_back({DeviceKind::Cuda, next_free++, 0, false});
      }
    }
    return requests;
  }

 private:
  static Error too_many(const Item& item) {
    return grammar_error(item.column, "too many devices", "at most " + std::to_string(kMaxDevices), "more");
  }

  [[nodiscard]] Error absent(const Item& item) const {
    return Error{ErrorCode::InvalidArgument,
                 "this machine has fewer CUDA devices",
                 "devices column " + std::to_string(item.column),
                 std::to_string(num_cuda_),
                 "more",
                 num_cuda_ == 0 ? "use cpu devices, or look at `launch doctor` for why there is none" : "name fewer"};
  }

  Result<void> take_named(const std::vector<Item>& items) {
    for (const Item& item : items) {
      if (item.first_index < 0) continue;
      if (item.last_index >= num_cuda_) return absent(item);
      for (int i = item.first_index; i <= item.last_index; ++i) {
        if (!named_.insert(i).second)
          return grammar_error(item.column, "device is named twice", "each index once", "cuda:" + std::to_string(i));
      }
    }
    return {};
  }

  /// Cores of each device that names none.
  Result<double> share_cores(const std::vector<Item>& items) const {
    double asked = 0;
    int unnamed = 0;
    const Item* last = nullptr;
    for (const Item& item : items) {
      if (item.kind != DeviceKind::Cpu) continue;
      last = &item;
      if (item.cores) {
        asked += *item.cores * item.count;
      } else {
        unnamed += item.count;
      }
    }
    constexpr double kSlack = 1e-9;  // sums such as 0.7 + 0.2 + 0.1
    const double left = machine_cores_ - asked;
    if (last != nullptr && (left < -kSlack || (unnamed > 0 && left <= kSlack))) {
      return Error{ErrorCode::InvalidArgument,
                   "devices ask for more cores than this machine has",
                   "devices column " + std::to_string(last->column),
                   number_text(machine_cores_) + " cores in all" +
                       (unnamed > 0 ? ", some left for the devices that name none" : ""),
                   number_text(asked),
                   "ask for smaller shares or fewer devices"};
    }
    return unnamed > 0 ? left / unnamed : 0.0;
  }

  double machine_cores_;
  int num_cuda_;
  std::set<int> named_;
};

}  // namespace

Result<std::vector<DeviceRequest>> parse_device_spec(std::string_view spec, double machine_cores, int num_cuda,
                                                     int num_numa) {
  std::vector<Item> items;
  if (spec == "auto") {
    Item item;
    item.kind = num_cuda > 0 ? DeviceKind::Cuda : DeviceKind::Cpu;
    item.count = num_cuda > 0 ? num_cuda : std::max(num_numa, 1);
    items.push_back(item);
  } else {
    COX_TRY(items, parse_items(spec));
  }
  return Resolver(machine_cores, num_cuda).resolve(items);
}

}  // namespace coxswain::cluster
