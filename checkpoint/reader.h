#pragma once
// Any piece of any parameter out of a checkpoint, whatever pieces it was saved in: of shards, which are mapped, or of
// pieces in memory. A piece is copied from as many of them as hold some of it. Called by the engine. Threads: pure
// after opening. Source: DESIGN 3.9.
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/shard.h"
#include "model/safetensors.h"

namespace coxswain::checkpoint {

/// A piece and its elements, float32 in a row, wherever they lie.
struct PieceView {
  Piece piece;
  std::array<const void*, kStates.size()> elements{};  // by state, piece.count each
};

class Reader {
 public:
  /// `manifest` is the verified one of `folder`. Errors: as SafetensorsFile; DataLoss (a piece is not in its shard).
  [[nodiscard]] static Result<Reader> open(const std::filesystem::path& folder, const Manifest& manifest);

  /// Of what lies in memory already, which the caller keeps there.
  [[nodiscard]] static Reader over(const std::vector<PieceView>& pieces);

  /// Elements of `piece` to `to`. Requires: to.size() == piece.count.
  /// Errors: NotFound (no such parameter), DataLoss (other dims; an element that no shard has).
  [[nodiscard]] Result<void> read(State state, const Piece& piece, std::span<float> to) const;

 private:
  struct Stored {
    Piece piece;
    std::array<const std::byte*, kStates.size()> data{};  // by state, in the mapping
  };
  std::vector<model::SafetensorsFile> files_;
  std::map<std::string, std::vector<Stored>> stored_;  // by parameter
};

}  // namespace coxswain::checkpoint
