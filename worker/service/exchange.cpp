#include "worker/service/exchange.h"

#include <numeric>

#include "checkpoint/manifest.h"

namespace coxswain::worker {

Result<std::vector<std::string>> exchange_texts(collective::Communicator& world, const std::string& own,
                                                Deadline deadline) {
  const auto size = static_cast<std::size_t>(world.size());
  std::vector<std::int64_t> lengths(size, 0);
  auto length = static_cast<std::int64_t>(own.size());
  COX_TRY_VOID(world
                   .all_gather({&length, 1, DType::Int64}, {lengths.data(), world.size(), DType::Int64},
                               std::vector<std::int64_t>(size, 1), deadline)
                   .wait(deadline));
  const std::int64_t total = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  std::string mine = own, all(static_cast<std::size_t>(total), ' ');
  COX_TRY_VOID(
      world.all_gather({mine.data(), length, DType::UInt8}, {all.data(), total, DType::UInt8}, lengths, deadline)
          .wait(deadline));
  std::vector<std::string> texts;
  std::size_t first = 0;
  for (const std::int64_t part : lengths) {
    texts.push_back(all.substr(first, static_cast<std::size_t>(part)));
    first += static_cast<std::size_t>(part);
  }
  return texts;
}

Result<std::vector<std::vector<checkpoint::Piece>>> exchange_pieces(collective::Communicator& world,
                                                                    const std::vector<checkpoint::Piece>& own,
                                                                    Deadline deadline) {
  const checkpoint::Shard shard{"rank_" + std::to_string(world.rank()), Bytes(0), "", own};
  COX_TRY(const auto texts, exchange_texts(world, to_text(checkpoint::to_json(shard)), deadline));
  std::vector<std::vector<checkpoint::Piece>> by_rank;
  for (const std::string& text : texts) {
    COX_TRY(const Json json, parse_json(text));
    COX_TRY(checkpoint::Shard told, checkpoint::shard_from_json(json, "rank " + std::to_string(by_rank.size())));
    by_rank.push_back(std::move(told.pieces));
  }
  return by_rank;
}

}  // namespace coxswain::worker
