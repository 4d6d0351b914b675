#include "worker/service/gather_held.h"

#include "worker/service/exchange.h"

namespace coxswain::worker {
namespace {

using checkpoint::Piece;
using collective::PointToPoint;

std::vector<Piece> pieces_of(const HeldState* held) {
  std::vector<Piece> pieces;
  if (held == nullptr) return pieces;
  for (const checkpoint::PieceView& view : held->pieces) pieces.push_back(view.piece);
  return pieces;
}

checkpoint::PieceState room_for(const Piece& piece) {
  checkpoint::PieceState state{piece, {}};
  for (auto& elements : state.elements) elements.resize(static_cast<std::size_t>(piece.count));
  return state;
}

}  // namespace

Result<GatheredState> gather_held(const HeldState* own, const std::vector<Piece>& needed,
                                  collective::Communicator& world, Deadline deadline) {
  COX_TRY(const auto held, exchange_pieces(world, pieces_of(own), deadline));
  COX_TRY(const auto wanted, exchange_pieces(world, needed, deadline));
  const auto chosen = checkpoint::choose_sources(held, wanted);
  GatheredState gathered;
  if (own != nullptr) gathered.pieces = own->pieces;
  // Between two ranks in the order of the one that receives, on both.
  std::vector<PointToPoint> transfers;
  for (int to = 0; to < world.size(); ++to) {
    for (const checkpoint::Source& source : chosen[static_cast<std::size_t>(to)]) {
      if (source.rank == to) continue;
      const Piece& piece = held[static_cast<std::size_t>(source.rank)][source.piece];
      if (source.rank == world.rank()) {
        for (const void* elements : own->pieces[source.piece].elements)
          transfers.push_back(
              {PointToPoint::Kind::Send, to, {const_cast<void*>(elements), piece.count, DType::Float32}});
      } else if (to == world.rank()) {
        gathered.fetched.push_back(room_for(piece));
        for (auto& elements : gathered.fetched.back().elements)
          transfers.push_back(
              {PointToPoint::Kind::Receive, source.rank, {elements.data(), piece.count, DType::Float32}});
      }
    }
  }
  for (const checkpoint::PieceState& state : gathered.fetched)
    gathered.pieces.push_back(
        {state.piece, {state.elements[0].data(), state.elements[1].data(), state.elements[2].data()}});
  if (!transfers.empty()) COX_TRY_VOID(world.exchange(std::move(transfers), deadline).wait(deadline));
  return gathered;
}

}  // namespace coxswain::worker
