#include "checkpoint/reader.h"

#include <cstring>

#include "common/ensure.h"

namespace coxswain::checkpoint {

Result<Reader> Reader::open(const std::filesystem::path& folder, const Manifest& manifest) {
  Reader reader;
  for (const Shard& shard : manifest.shards) {
    COX_TRY(model::SafetensorsFile file, model::SafetensorsFile::open(folder / shard.file));
    for (const Piece& piece : shard.pieces) {
      Stored stored{piece, {}};
      for (const State state : kStates) {
        const auto found = file.tensors().find(tensor_name(state, piece.parameter));
        const Bytes size = size_of(DType::Float32) * piece.count;
        if (found == file.tensors().end() || found->second.dtype != DType::Float32 || found->second.size != size) {
          return Error{ErrorCode::DataLoss,
                       "the shard lacks a tensor that the manifest names",
                       (folder / shard.file).string() + ": " + tensor_name(state, piece.parameter),
                       std::to_string(size.value) + " bytes of F32",
                       found == file.tensors().end() ? "nothing" : std::to_string(found->second.size.value) + " bytes",
                       "use an older checkpoint"};
        }
        stored.data[static_cast<std::size_t>(state)] = found->second.data;
      }
      reader.stored_[piece.parameter].push_back(std::move(stored));
    }
    reader.files_.push_back(std::move(file));
  }
  return reader;
}

Reader Reader::over(const std::vector<PieceView>& pieces) {
  Reader reader;
  for (const PieceView& view : pieces) {
    Stored stored{view.piece, {}};
    for (const State state : kStates) {
      const auto index = static_cast<std::size_t>(state);
      stored.data[index] = static_cast<const std::byte*>(view.elements[index]);
    }
    reader.stored_[view.piece.parameter].push_back(std::move(stored));
  }
  return reader;
}

Result<void> Reader::read(State state, const Piece& piece, std::span<float> to) const {
  COX_ENSURE(static_cast<std::int64_t>(to.size()) == piece.count, piece.parameter, to.size(), piece.count);
  const auto found = stored_.find(piece.parameter);
  if (found == stored_.end())
    return Error{ErrorCode::NotFound,
                 "the checkpoint has no such parameter",
                 piece.parameter,
                 "",
                 "",
                 "resume with the model that it was saved from"};
  std::vector<FlatRun> missing = flat_runs(piece);
  for (const Stored& stored : found->second) {
    if (stored.piece.dims != piece.dims) {
      return Error{ErrorCode::DataLoss,
                   "the parameter has other dims in the checkpoint",
                   piece.parameter,
                   std::to_string(num_elements(piece.dims)) + " elements",
                   std::to_string(num_elements(stored.piece.dims)),
                   "resume with the model that it was saved from"};
    }
    if (missing.empty()) break;
    const std::byte* from = stored.data[static_cast<std::size_t>(state)];
    missing =
        take_common(missing, flat_runs(stored.piece), [&](std::int64_t own, std::int64_t source, std::int64_t count) {
          std::memcpy(to.data() + own, from + source * size_of(DType::Float32).value,
                      static_cast<std::size_t>(count * size_of(DType::Float32).value));
        });
  }
  if (missing.empty()) return {};
  return Error{ErrorCode::DataLoss,
               "no shard has all of the parameter",
               piece.parameter,
               "every element",
               "none for element " + std::to_string(missing.front().whole),
               "use an older checkpoint"};
}

}  // namespace coxswain::checkpoint
