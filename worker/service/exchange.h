#pragma once
// What every rank tells every other one. Collective calls. Called in this folder. Threads: one.
#include <string>
#include <vector>

#include "checkpoint/pieces.h"
#include "collective/communicator.h"
#include "common/clock.h"
#include "common/result.h"

namespace coxswain::worker {

/// Every rank's text, by rank. Errors: of the collective.
[[nodiscard]] Result<std::vector<std::string>> exchange_texts(collective::Communicator& world, const std::string& own,
                                                              Deadline deadline);
/// Every rank's pieces, by rank. Errors: of the collective.
[[nodiscard]] Result<std::vector<std::vector<checkpoint::Piece>>> exchange_pieces(
    collective::Communicator& world, const std::vector<checkpoint::Piece>& own, Deadline deadline);

}  // namespace coxswain::worker
