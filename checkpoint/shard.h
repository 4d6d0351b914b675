#pragma once
// One rank's file of a checkpoint: safetensors with, for each piece, its float32 masters (`values/NAME`) and AdamW's
// two moments (`first_moment/NAME`, `second_moment/NAME`). A piece that is a whole parameter has that parameter's
// shape, so that other tools can read it; any other is a row of elements. Called by the worker. Threads: pure but for
// the file. Source: https://github.com/huggingface/safetensors, section Format.
#include <array>
#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"

namespace coxswain::checkpoint {

enum class State { Values, FirstMoment, SecondMoment };
inline constexpr std::array<State, 3> kStates = {State::Values, State::FirstMoment, State::SecondMoment};
/// The tensor of a piece.
[[nodiscard]] std::string tensor_name(State state, const std::string& parameter);

struct PieceState {
  Piece piece;
  std::array<std::vector<float>, kStates.size()> elements;  // by state, piece.count each
};

/// Writes and syncs `folder / file`, which must not exist, and reads it back: it is on the disk, or not there at all as
/// far as a reader is concerned (the caller publishes it later).
/// Requires: at most one piece of each parameter. Errors: FailedPrecondition (disk full, permission), DataLoss
/// (the disk gives back something else), Cancelled (`stop`); the file is gone.
[[nodiscard]] Result<Shard> write_shard(const std::filesystem::path& folder, const std::string& file,
                                        const std::vector<PieceState>& pieces, const std::stop_token& stop = {});

}  // namespace coxswain::checkpoint
