#include "collective/host/algorithms.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "collective/algorithm.h"

namespace coxswain::collective {
namespace {

Result<void> send(Transport& transport, int peer, ConstData data, Deadline deadline) {
  const Transfer transfer = Transfer::send(peer, data);
  return transport.exchange({&transfer, 1}, deadline);
}

Result<void> receive(Transport& transport, int peer, Data data, Deadline deadline) {
  const Transfer transfer = Transfer::receive(peer, data);
  return transport.exchange({&transfer, 1}, deadline);
}

Result<void> swap(Transport& transport, int send_to, ConstData sent, int receive_from, Data received,
                  Deadline deadline) {
  const Transfer transfers[] = {Transfer::send(send_to, sent), Transfer::receive(receive_from, received)};
  return transport.exchange(transfers, deadline);
}

int wrap(int rank, int size) { return ((rank % size) + size) % size; }

}  // namespace

Layout Layout::equal_slices(std::size_t bytes, int num_ranks) {
  Layout layout;
  const Bytes payload(static_cast<std::int64_t>(bytes));
  for (int rank = 0; rank < num_ranks; ++rank) {
    layout.begins.push_back(static_cast<std::size_t>(slice_of(payload, num_ranks, rank).begin.value));
  }
  layout.begins.push_back(bytes);
  return layout;
}

Layout Layout::of_counts(const std::vector<std::int64_t>& counts, std::size_t element_bytes) {
  Layout layout;
  layout.begins.push_back(0);
  for (const std::int64_t count : counts)
    layout.begins.push_back(layout.begins.back() + static_cast<std::size_t>(count) * element_bytes);
  return layout;
}

// Reduce-scatter: the sum of slice s starts at rank s + 1 and grows as it travels up the ring, so that it is complete
// at rank s after P - 1 steps. In step k rank r sends the partial sum of slice r - 1 - k and adds its own share to the
// one that arrives, slice r - 2 - k. Example, P = 3: slice 0 goes 1 -> 2 -> 0.
Result<void> ring_all_reduce(Transport& transport, Data data, Reducer& reducer, Scratch& scratch, Deadline deadline) {
  const int size = transport.size();
  const int rank = transport.rank();
  if (data.empty() || size == 1) return {};
  const Layout layout = Layout::equal_slices(data.size(), size);
  for (int step = 0; step < size - 1; ++step) {
    const Data outgoing = layout.of(data, wrap(rank - 1 - step, size));
    const Data own = layout.of(data, wrap(rank - 2 - step, size));
    const Data arriving = scratch.piece(0, own.size());
    COX_TRY_VOID(swap(transport, wrap(rank + 1, size), outgoing, wrap(rank - 1, size), arriving, deadline));
    reducer(own.data(), arriving.data(), own.data(), own.size());
  }
  return ring_all_gather(transport, data, layout, deadline);
}

Result<void> ring_all_gather(Transport& transport, Data output, const Layout& layout, Deadline deadline) {
  const int size = transport.size();
  const int rank = transport.rank();
  if (layout.bytes() == 0) return {};
  for (int step = 0; step < size - 1; ++step) {
    const Data outgoing = layout.of(output, wrap(rank - step, size));
    const Data arriving = layout.of(output, wrap(rank - 1 - step, size));
    COX_TRY_VOID(swap(transport, wrap(rank + 1, size), outgoing, wrap(rank - 1, size), arriving, deadline));
  }
  return {};
}

Result<void> ring_reduce_scatter(Transport& transport, ConstData input, Data output, const Layout& layout,
                                 Reducer& reducer, Scratch& scratch, Deadline deadline) {
  const int size = transport.size();
  const int rank = transport.rank();
  if (layout.bytes() == 0) return {};
  ConstData outgoing = layout.of(input, wrap(rank - 1, size));
  for (int step = 0; step < size - 1; ++step) {
    const ConstData own = layout.of(input, wrap(rank - 2 - step, size));
    // Alternating pieces: one is sent while the other arrives. The last partial sum is the result.
    const Data arriving = scratch.piece(static_cast<std::size_t>(step % 2), own.size());
    COX_TRY_VOID(swap(transport, wrap(rank + 1, size), outgoing, wrap(rank - 1, size), arriving, deadline));
    std::byte* sum = step == size - 2 ? output.data() : arriving.data();
    reducer(sum, arriving.data(), own.data(), own.size());
    outgoing = arriving;
  }
  return {};
}

// Ranks 0 .. power - 1 halve; each of the rest hands its data to a partner first and gets the result at the end.
// In step k partners are 2^k apart, so the first and largest swap is between neighbours, which mostly share a node.
Result<void> halving_all_reduce(Transport& transport, Data data, Reducer& reducer, Scratch& scratch,
                                Deadline deadline) {
  const int size = transport.size();
  const int rank = transport.rank();
  if (data.empty() || size == 1) return {};
  const int power = static_cast<int>(std::bit_floor(static_cast<unsigned>(size)));
  if (rank >= power) {
    COX_TRY_VOID(send(transport, rank - power, data, deadline));
    return receive(transport, rank - power, data, deadline);
  }
  const bool has_guest = rank + power < size;
  if (has_guest) {
    const Data guest = scratch.piece(0, data.size());
    COX_TRY_VOID(receive(transport, rank + power, guest, deadline));
    reducer(data.data(), data.data(), guest.data(), data.size());
  }
  std::vector<std::pair<Data, Data>> halves;  // (kept, given) of every step
  Data kept = data;
  for (int distance = 1; distance < power; distance *= 2) {
    const Layout layout = Layout::equal_slices(kept.size(), 2);
    const int mine = (rank & distance) == 0 ? 0 : 1;
    const Data given = layout.of(kept, 1 - mine);
    kept = layout.of(kept, mine);
    halves.emplace_back(kept, given);
    const Data arriving = scratch.piece(0, kept.size());
    COX_TRY_VOID(swap(transport, rank ^ distance, given, rank ^ distance, arriving, deadline));
    // The lower rank's share first, on both sides.
    if (mine == 0) {
      reducer(kept.data(), kept.data(), arriving.data(), kept.size());
    } else {
      reducer(kept.data(), arriving.data(), kept.data(), kept.size());
    }
  }
  int distance = power / 2;
  for (auto half = halves.rbegin(); half != halves.rend(); ++half, distance /= 2) {
    COX_TRY_VOID(swap(transport, rank ^ distance, half->first, rank ^ distance, half->second, deadline));
  }
  if (has_guest) return send(transport, rank + power, data, deadline);
  return {};
}

Result<void> tree_all_reduce(Transport& transport, Data data, Reducer& reducer, Scratch& scratch, Deadline deadline) {
  const int size = transport.size();
  const int rank = transport.rank();
  if (data.empty() || size == 1) return {};
  for (int distance = 1; distance < size; distance *= 2) {
    if ((rank & distance) != 0) {
      COX_TRY_VOID(send(transport, rank - distance, data, deadline));
      break;
    }
    if (rank + distance >= size) continue;
    const Data arriving = scratch.piece(0, data.size());
    COX_TRY_VOID(receive(transport, rank + distance, arriving, deadline));
    reducer(data.data(), data.data(), arriving.data(), data.size());
  }
  return tree_broadcast(transport, data, 0, deadline);
}

// Ranks are counted from the root. A rank hears from the one that lacks its lowest set bit and passes on to those that
// differ from it in a lower bit, the farthest first.
Result<void> tree_broadcast(Transport& transport, Data data, int root, Deadline deadline) {
  const int size = transport.size();
  const int relative = wrap(transport.rank() - root, size);
  if (data.empty() || size == 1) return {};
  int distance = 1;
  while (distance < size && (relative & distance) == 0) distance *= 2;
  if (relative != 0) COX_TRY_VOID(receive(transport, wrap(root + relative - distance, size), data, deadline));
  for (distance /= 2; distance > 0; distance /= 2) {
    if (relative + distance < size)
      COX_TRY_VOID(send(transport, wrap(root + relative + distance, size), data, deadline));
  }
  return {};
}

Result<void> tree_barrier(Transport& transport, Deadline deadline) {
  const int size = transport.size();
  const int rank = transport.rank();
  const std::byte token{1};
  std::byte arrived{0};
  for (int distance = 1; distance < size; distance *= 2) {
    COX_TRY_VOID(swap(transport, wrap(rank + distance, size), {&token, 1}, wrap(rank - distance, size), {&arrived, 1},
                      deadline));
  }
  return {};
}

Result<void> direct_all_gather(Transport& transport, Data output, const Layout& layout, Deadline deadline) {
  std::vector<Transfer> transfers;
  for (int peer = 0; peer < transport.size(); ++peer) {
    if (peer == transport.rank()) continue;
    transfers.push_back(Transfer::send(peer, layout.of(output, transport.rank())));
    transfers.push_back(Transfer::receive(peer, layout.of(output, peer)));
  }
  return layout.bytes() == 0 ? Result<void>{} : transport.exchange(transfers, deadline);
}

Result<void> direct_reduce_scatter(Transport& transport, ConstData input, Data output, const Layout& layout,
                                   Reducer& reducer, Scratch& scratch, Deadline deadline) {
  if (layout.bytes() == 0) return {};
  const int rank = transport.rank();
  std::vector<Transfer> transfers;
  std::vector<const std::byte*> sources;
  // Pieces first: taking another one may move those taken before.
  for (int peer = 0; peer < transport.size(); ++peer)
    (void)scratch.piece(static_cast<std::size_t>(peer), output.size());
  for (int peer = 0; peer < transport.size(); ++peer) {
    if (peer == rank) {
      sources.push_back(layout.of(input, rank).data());
      continue;
    }
    const Data arriving = scratch.piece(static_cast<std::size_t>(peer), output.size());
    transfers.push_back(Transfer::send(peer, layout.of(input, peer)));
    transfers.push_back(Transfer::receive(peer, arriving));
    sources.push_back(arriving.data());
  }
  COX_TRY_VOID(transport.exchange(transfers, deadline));
  reducer(output.data(), sources, output.size());
  return {};
}

Result<void> direct_all_to_all(Transport& transport, ConstData input, const Layout& sends, Data output,
                               const Layout& receives, Deadline deadline) {
  std::vector<Transfer> transfers;
  for (int offset = 0; offset < transport.size(); ++offset) {
    // Each rank starts with another peer, so that not all of them address one at the same time.
    const int to = wrap(transport.rank() + offset, transport.size());
    const int from = wrap(transport.rank() - offset, transport.size());
    transfers.push_back(Transfer::send(to, sends.of(input, to)));
    transfers.push_back(Transfer::receive(from, receives.of(output, from)));
  }
  return transport.exchange(transfers, deadline);
}

}  // namespace coxswain::collective
