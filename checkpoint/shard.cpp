#include "checkpoint/shard.h"

#include "checkpoint/safetensors_header.h"
#include "common/bytes_io.h"
#include "common/ensure.h"

namespace coxswain::checkpoint {
namespace {

std::string header_of(const std::vector<PieceState>& pieces) {
  JsonObject tensors;
  std::int64_t offset = 0;
  for (const PieceState& state : pieces) {
    for (const State kind : kStates) {
      COX_ENSURE(static_cast<std::int64_t>(state.elements[static_cast<std::size_t>(kind)].size()) == state.piece.count,
                 state.piece.parameter);
      const std::int64_t end = offset + size_of(DType::Float32).value * state.piece.count;
      const bool whole = state.piece.count == num_elements(state.piece.dims);
      Json entry;
      entry["dtype"] = "F32";
      entry["shape"] =
          whole ? JsonArray(state.piece.dims.begin(), state.piece.dims.end()) : JsonArray{state.piece.count};
      entry["data_offsets"] = JsonArray{offset, end};
      const bool is_new = tensors.emplace(tensor_name(kind, state.piece.parameter), std::move(entry)).second;
      COX_ENSURE(is_new, state.piece.parameter);
      offset = end;
    }
  }
  return safetensors_header(std::move(tensors));
}

}  // namespace

std::string tensor_name(State state, const std::string& parameter) {
  switch (state) {
    case State::Values: return "values/" + parameter;
    case State::FirstMoment: return "first_moment/" + parameter;
    case State::SecondMoment: break;
  }
  return "second_moment/" + parameter;
}

Result<Shard> write_shard(const std::filesystem::path& folder, const std::string& file,
                          const std::vector<PieceState>& pieces, const std::stop_token& stop) {
  COX_TRY(NewFile out, NewFile::create(folder / file));
  COX_TRY_VOID(out.write(header_of(pieces)));
  Shard shard;
  shard.file = file;
  for (const PieceState& state : pieces) {
    if (stop.stop_requested())
      return Error{ErrorCode::Cancelled, "the checkpoint is given up", (folder / file).string(), "", "", ""};
    shard.pieces.push_back(state.piece);
    for (const auto& elements : state.elements)
      COX_TRY_VOID(out.write({reinterpret_cast<const char*>(elements.data()), elements.size() * sizeof(float)}));
  }
  COX_TRY_VOID(out.finish());
  shard.size = out.size();
  shard.sha256 = out.sha256();
  if (auto there = check_on_disk(folder / file, shard.sha256); !there) {
    std::error_code ignored;
    std::filesystem::remove(folder / file, ignored);
    return there.error();
  }
  return shard;
}

}  // namespace coxswain::checkpoint
