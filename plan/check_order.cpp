// Runs every rank's program with rendezvous edges and collectives and no buffering: a send ends only when every peer is
// at its receive, a collective only when every member is at it, and a compute action on a mesh, which has
// collectives inside, only when every position is at it; one on blocks with experts, between which rows travel, only
// when every replica that holds some of them is. What is stuck at the end is a deadlock. Since
// rendezvous is the least that any backend gives and actions start as early as they may, no backend can get stuck where
// this did not.
#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <tuple>

#include "common/ensure.h"
#include "plan/derive.h"
#include "plan/experts.h"

namespace coxswain::plan {
namespace {

constexpr std::size_t kMaxReported = 16;
constexpr std::array<Stream, kNumStreams> kStreams{Stream::Compute,
                                                   Stream::ActivationIn,
                                                   Stream::ActivationOut,
                                                   Stream::GradientIn,
                                                   Stream::GradientOut,
                                                   Stream::Reduce,
                                                   Stream::BackActivationIn,
                                                   Stream::BackActivationOut,
                                                   Stream::BackGradientIn,
                                                   Stream::BackGradientOut,
                                                   Stream::Gather};

/// As the executor starts them: on a CPU a compute action keeps the rank until it ends.
constexpr std::array<Stream, kNumStreams> kStartOrder{
    Stream::ActivationIn,   Stream::ActivationOut,    Stream::GradientIn,
    Stream::GradientOut,    Stream::BackActivationIn, Stream::BackActivationOut,
    Stream::BackGradientIn, Stream::BackGradientOut,  Stream::Gather,
    Stream::Reduce,         Stream::Compute};

std::size_t slot_of(Stream stream) { return static_cast<std::size_t>(stream); }

Stream opposite(Stream stream) {
  switch (stream) {
    case Stream::ActivationIn: return Stream::ActivationOut;
    case Stream::ActivationOut: return Stream::ActivationIn;
    case Stream::GradientIn: return Stream::GradientOut;
    case Stream::GradientOut: return Stream::GradientIn;
    case Stream::BackActivationIn: return Stream::BackActivationOut;
    case Stream::BackActivationOut: return Stream::BackActivationIn;
    case Stream::BackGradientIn: return Stream::BackGradientOut;
    case Stream::BackGradientOut: return Stream::BackGradientIn;
    default: COX_ENSURE(false, to_text(stream)); return stream;
  }
}

/// One peer of an edge stream and where this rank stands in that peer's list of peers.
struct Peer {
  int rank = -1;
  std::size_t reverse = 0;
};

/// An edge or collective stream with an action in flight.
struct Flight {
  int action = -1;
  std::vector<char> exchanged;  // per peer
  std::size_t num_open = 0;
};

struct Rank {
  int role = -1;
  int stage = 0, position = 0;  // of StageReplicas
  int first = 0, devices = 1;   // of its mesh: ranks [first, first + devices)
  /// Of the replicas that hold all experts together: ranks [experts_first, experts_first + experts_devices).
  int experts_first = 0, experts_devices = 1;
  int expert_index = 0;
  const RankProgram* program = nullptr;
  std::array<std::vector<Peer>, kNumStreams> peers;  // edge streams
  std::array<Flight, kNumStreams> flights;
};

class OrderCheck {
 public:
  OrderCheck(const Plan& plan, const model::ModelGraph& graph) : plan_(plan), groups_(make_groups(plan, graph)) {
    find_expert_blocks(graph);
    make_ranks();
    make_peers();
    index_groups();
  }

  std::vector<Error> run() {
    for (std::size_t r = 0; r < ranks_.size(); ++r) ready_.push_back(static_cast<int>(r));
    while (!ready_.empty() && errors_.empty()) {
      const int rank = ready_.front();
      ready_.pop_front();
      queued_[static_cast<std::size_t>(rank)] = 0;
      advance(rank);
    }
    if (errors_.empty()) report_stuck();
    return std::move(errors_);
  }

 private:
  void find_expert_blocks(const model::ModelGraph& graph) {
    expert_blocks_.assign(graph.blocks.size(), 0);
    const std::vector<std::int64_t> counts = divided_counts(plan_, graph);
    if (counts.empty()) return;
    const ParameterUses uses(graph);
    for (std::size_t p = 0; p < counts.size(); ++p)
      for (const int block : counts[p] > 0 ? uses.blocks[p] : std::vector<int>{})
        expert_blocks_[static_cast<std::size_t>(block)] = 1;
    // Sums over the batch are put together in them (V20).
    for (std::size_t b = 0; b < graph.blocks.size(); ++b)
      for (const model::CoupledOp& coupled : graph.coupled)
        if (graph.blocks[b].first_op <= coupled.op && coupled.op < graph.blocks[b].end_op) expert_blocks_[b] = 1;
  }

  void make_ranks() {
    programs_.reserve(plan_.roles.size());
    std::map<std::pair<int, int>, int> role_of;  // (stage, replica)
    for (std::size_t i = 0; i < plan_.roles.size(); ++i) {
      const Role& role = plan_.roles[i];
      programs_.push_back(make_role_program(plan_, role.stage, role.actions));
      for (const int replica : role.replicas) role_of.emplace(std::pair(role.stage, replica), static_cast<int>(i));
    }
    for (std::size_t s = 0; s < plan_.stages.size(); ++s) {
      for (std::size_t r = 0; r < plan_.stages[s].replicas.size(); ++r) {
        const auto found = role_of.find({static_cast<int>(s), static_cast<int>(r)});
        COX_ENSURE(found != role_of.end(), s, r);
        for (std::size_t p = 0; p < plan_.stages[s].replicas[r].devices.size(); ++p) {
          Rank rank;
          rank.role = found->second;
          rank.stage = static_cast<int>(s);
          rank.position = shard_position(plan_.stages[s], static_cast<int>(p));
          rank.first = static_cast<int>(ranks_.size() - p);
          rank.devices = static_cast<int>(plan_.stages[s].replicas[r].devices.size());
          set_experts(rank, plan_.stages[s], static_cast<int>(r));
          rank.program = &programs_[static_cast<std::size_t>(rank.role)];
          ranks_.push_back(std::move(rank));
          states_.emplace_back(*ranks_.back().program);
        }
      }
    }
    queued_.assign(ranks_.size(), 1);
    computing_.resize(2 * ranks_.size());
    int first = 0;
    for (const Stage& stage : plan_.stages) {
      std::vector<int>& whole = stages_.emplace_back();
      for (const Replica& replica : stage.replicas)
        for (std::size_t p = 0; p < replica.devices.size(); ++p) whole.push_back(first++);
    }
    // Behind the stages: who holds the same experts, by stage, position and place.
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      const Rank& rank = ranks_[r];
      if (rank.experts_devices == rank.devices) continue;
      const auto number = static_cast<int>(groups_.size() + stages_.size());
      const auto [holders, added] = holders_.emplace(std::tuple(rank.stage, rank.position, rank.expert_index), number);
      if (added) stages_.emplace_back();
      stages_[static_cast<std::size_t>(holders->second) - groups_.size()].push_back(static_cast<int>(r));
    }
    meeting_.resize(groups_.size() + stages_.size());
  }

  static void set_experts(Rank& rank, const Stage& stage, int replica) {
    const ExpertPlace place = expert_place(stage, replica);
    rank.expert_index = place.index;
    rank.experts_first = rank.first;
    rank.experts_devices = 0;
    for (int r = replica - place.index; r < replica - place.index + place.size; ++r) {
      const auto devices = static_cast<int>(stage.replicas[static_cast<std::size_t>(r)].devices.size());
      rank.experts_devices += devices;
      if (r < replica) rank.experts_first -= devices;
    }
  }

  void make_peers() {
    const std::vector<Edge> edges = pipeline_edges(plan_);
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      for (const Edge& edge : edges) {
        if (edge.from != ranks_[r].stage) continue;
        for (const Transfer& transfer : transfers_with(plan_, static_cast<int>(r), edge.to)) {
          const bool back = edge.from > edge.to;
          link(static_cast<int>(r), back ? Stream::BackActivationOut : Stream::ActivationOut, transfer.peer);
          link(static_cast<int>(r), back ? Stream::BackGradientIn : Stream::GradientIn, transfer.peer);
        }
      }
    }
  }

  /// The micro-batch that an edge action moves, and the part that it comes from.
  [[nodiscard]] std::pair<int, int> cargo_of(int rank, const Action& action) const {
    const bool after = action.kind == ActionKind::SendActivation || action.kind == ActionKind::ReceiveGradient;
    return {action.micro_batch,
            part_of(plan_, ranks_[static_cast<std::size_t>(rank)].stage, action.chunk) - (after ? 0 : 1)};
  }

  void link(int from, Stream stream, int to) {
    auto& mine = ranks_[static_cast<std::size_t>(from)].peers[slot_of(stream)];
    auto& theirs = ranks_[static_cast<std::size_t>(to)].peers[slot_of(opposite(stream))];
    mine.push_back({to, theirs.size()});
    theirs.push_back({from, mine.size() - 1});
  }

  void index_groups() {
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      const Group& group = groups_[g];
      group_index_.emplace(std::tuple(group.kind, group.index, group.position), static_cast<int>(g));
    }
  }

  /// As group_of, with a look-up instead of a search.
  int group_at(const Rank& rank, const Action& action) const {
    const int stage = rank.stage, position = rank.position;
    if (action.kind == ActionKind::ReduceShared) return static_cast<int>(groups_.size()) + stage;
    if (action.kind == ActionKind::ReduceExperts) {
      const auto found = holders_.find({stage, position, rank.expert_index});
      return found == holders_.end() ? -1 : found->second;
    }
    std::tuple<GroupKind, int, int> key{GroupKind::World, 0, 0};
    if (action.kind == ActionKind::ReduceTied) {
      key = {GroupKind::Tied, action.tied, 0};
    } else if (action.kind == ActionKind::GatherParameter && action.micro_batch >= 0) {
      key = {GroupKind::StageGather, stage, position};
    } else if (action.kind != ActionKind::ReduceNorm) {
      key = {GroupKind::StageReplicas, stage, position};
    }
    const auto found = group_index_.find(key);
    return found == group_index_.end() ? -1 : found->second;
  }

  [[nodiscard]] const std::vector<int>& members_of(int group) const {
    const auto g = static_cast<std::size_t>(group);
    return g < groups_.size() ? groups_[g].ranks : stages_[g - groups_.size()];
  }

  void wake(int rank) {
    char& queued = queued_[static_cast<std::size_t>(rank)];
    if (!queued) ready_.push_back(rank);
    queued = 1;
  }

  void advance(int rank) {
    const auto r = static_cast<std::size_t>(rank);
    bool moved = true;
    while (moved && errors_.empty()) {
      moved = false;
      for (const Stream stream : kStartOrder) {
        // Inside an action that waits for the other positions nothing else can begin, and it begins last.
        if (ranks_[r].flights[slot_of(Stream::Compute)].action >= 0 || (stream == Stream::Compute && moved)) break;
        const int action = states_[r].startable(stream);
        if (action < 0) continue;
        states_[r].started(action);
        moved = true;
        if (stream == Stream::Compute && num_together(rank, action) > 1) {
          compute_together(rank, action);
        } else if (stream == Stream::Compute) {
          states_[r].finished(action);
        } else if (is_collective(stream)) {
          meet(rank, stream, action);
        } else {
          exchange(rank, stream, action);
        }
      }
    }
  }

  void finish(int rank, Stream stream) {
    Flight& flight = ranks_[static_cast<std::size_t>(rank)].flights[slot_of(stream)];
    states_[static_cast<std::size_t>(rank)].finished(flight.action);
    flight.action = -1;
    wake(rank);
  }

  /// Rows of tables travel in it.
  [[nodiscard]] bool has_experts(const Action& action) const {
    for (int block = action.first_block; block >= 0 && block < action.end_block; ++block)
      if (expert_blocks_[static_cast<std::size_t>(block)] != 0) return true;
    return false;
  }

  [[nodiscard]] int num_together(int rank, int action) const {
    const Rank& self = ranks_[static_cast<std::size_t>(rank)];
    return has_experts(action_of(rank, action)) ? self.experts_devices : self.devices;
  }

  // Positions of a mesh have one list, so all come to the same action. Replicas may have lists of their own.
  void compute_together(int rank, int action) {
    const Rank& self = ranks_[static_cast<std::size_t>(rank)];
    ranks_[static_cast<std::size_t>(rank)].flights[slot_of(Stream::Compute)].action = action;
    const int together = num_together(rank, action);
    const std::size_t slot = together > self.devices ? ranks_.size() + static_cast<std::size_t>(self.experts_first)
                                                     : static_cast<std::size_t>(self.first);
    std::vector<Present>& present = computing_[slot];
    if (!present.empty() && !(action_of(present.front().rank, present.front().action) == action_of(rank, action))) {
      add_error(rank, action, "replicas that hold experts together are at different compute actions",
                to_text(action_of(present.front().rank, present.front().action)) + " as on rank " +
                    std::to_string(present.front().rank),
                to_text(action_of(rank, action)), "all replicas of an expert axis compute in one order");
      return;
    }
    present.push_back({rank, action, Stream::Compute});
    if (static_cast<int>(present.size()) < together) return;
    for (const Present& member : std::exchange(present, {})) finish(member.rank, Stream::Compute);
  }

  const Action& action_of(int rank, int action) const {
    return ranks_[static_cast<std::size_t>(rank)].program->actions[static_cast<std::size_t>(action)];
  }

  void exchange(int rank, Stream stream, int action) {
    Rank& self = ranks_[static_cast<std::size_t>(rank)];
    const auto& peers = self.peers[slot_of(stream)];
    Flight& flight = self.flights[slot_of(stream)];
    flight.action = action;
    flight.exchanged.assign(peers.size(), 0);
    flight.num_open = peers.size();
    const Stream other = opposite(stream);
    for (std::size_t i = 0; i < peers.size(); ++i) {
      Flight& theirs = ranks_[static_cast<std::size_t>(peers[i].rank)].flights[slot_of(other)];
      if (theirs.action < 0 || theirs.exchanged[peers[i].reverse]) continue;
      const auto mine = cargo_of(rank, action_of(rank, action));
      if (mine != cargo_of(peers[i].rank, action_of(peers[i].rank, theirs.action))) {
        add_error(rank, action, "send and receive do not match",
                  "micro-batch " + std::to_string(mine.first) + " on rank " + std::to_string(peers[i].rank),
                  to_text(action_of(peers[i].rank, theirs.action)) + " of rank " + std::to_string(peers[i].rank),
                  "both ends of an edge take micro-batches in one order");
        return;
      }
      flight.exchanged[i] = 1;
      theirs.exchanged[peers[i].reverse] = 1;
      --flight.num_open;
      if (--theirs.num_open == 0) finish(peers[i].rank, other);
    }
    if (flight.num_open == 0) finish(rank, stream);
  }

  void meet(int rank, Stream stream, int action) {
    ranks_[static_cast<std::size_t>(rank)].flights[slot_of(stream)].action = action;
    const Rank& self = ranks_[static_cast<std::size_t>(rank)];
    const int group = group_at(self, action_of(rank, action));
    if (group < 0) return finish(rank, stream);
    std::vector<Present>& present = meeting_[static_cast<std::size_t>(group)];
    if (!present.empty()) {
      const auto [first, first_action, first_stream] = present.front();
      if (!(action_of(first, first_action) == action_of(rank, action))) {
        add_error(rank, action, "members of a group are at different collectives",
                  to_text(action_of(first, first_action)) + " as on rank " + std::to_string(first),
                  to_text(action_of(rank, action)), "all members of a group list its collectives in one order");
        return;
      }
    }
    present.push_back({rank, action, stream});
    if (present.size() < members_of(group).size()) return;
    for (const Present& member : std::exchange(present, {})) finish(member.rank, member.stream);
  }

  void add_error(int rank, int action, std::string message, std::string expected, std::string got, std::string hint) {
    const std::string path = "roles[" + std::to_string(ranks_[static_cast<std::size_t>(rank)].role) + "].actions[" +
                             std::to_string(action) + "] (rank " + std::to_string(rank) + ", " +
                             to_text(action_of(rank, action)) + ")";
    // One broken list is shared by the ranks of its role: its first rank speaks for all.
    if (!reported_.insert({{ranks_[static_cast<std::size_t>(rank)].role, action, message}, true}).second) return;
    if (errors_.size() >= kMaxReported) return;
    errors_.push_back(Error{ErrorCode::InvalidArgument, std::move(message), path, std::move(expected), std::move(got),
                            std::move(hint)});
  }

  bool has_counterpart(int peer, Stream stream, std::pair<int, int> cargo) const {
    const RankProgram& program = *ranks_[static_cast<std::size_t>(peer)].program;
    for (std::size_t i = 0; i < program.actions.size(); ++i) {
      if (program.streams[i] == stream && cargo_of(peer, program.actions[i]) == cargo) return true;
    }
    return false;
  }

  /// A missing counterpart is the cause of everything that waits behind it, so it is reported alone.
  void report_stuck() {
    for (std::size_t r = 0; r < ranks_.size(); ++r) report_missing(static_cast<int>(r));
    if (!errors_.empty()) return;
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      if (!states_[r].done()) report_waiting(static_cast<int>(r));
    }
  }

  void report_missing(int rank) {
    const Rank& self = ranks_[static_cast<std::size_t>(rank)];
    for (const Stream stream : kStreams) {
      const Flight& flight = self.flights[slot_of(stream)];
      if (flight.action < 0 || stream == Stream::Compute) continue;
      const Action& action = action_of(rank, flight.action);
      if (is_collective(stream)) {
        const int group = group_at(self, action);
        for (const int member : members_of(group)) {
          const auto& theirs = ranks_[static_cast<std::size_t>(member)].program->actions;
          if (std::find(theirs.begin(), theirs.end(), action) != theirs.end()) continue;
          add_error(rank, flight.action, "collective has no counterpart",
                    to_text(action) + " in the list of rank " + std::to_string(member), "nothing", "");
        }
        continue;
      }
      const auto& peers = self.peers[slot_of(stream)];
      for (std::size_t i = 0; i < peers.size(); ++i) {
        if (flight.exchanged[i] || has_counterpart(peers[i].rank, opposite(stream), cargo_of(rank, action))) continue;
        add_error(rank, flight.action, is_send(stream) ? "send has no receive" : "receive has no send",
                  "the other end in the list of rank " + std::to_string(peers[i].rank), "nothing", "");
      }
    }
  }

  static bool is_send(Stream stream) {
    return stream == Stream::ActivationOut || stream == Stream::GradientOut || stream == Stream::BackActivationOut ||
           stream == Stream::BackGradientOut;
  }

  void report_waiting(int rank) {
    const Rank& self = ranks_[static_cast<std::size_t>(rank)];
    const StepState& state = states_[static_cast<std::size_t>(rank)];
    std::string waiting;
    int first = -1;
    for (const Stream stream : kStreams) {
      const Flight& flight = self.flights[slot_of(stream)];
      const int action = flight.action >= 0 ? flight.action : state.next(stream);
      if (action < 0) continue;
      if (first < 0 || flight.action >= 0) first = action;
      waiting += (waiting.empty() ? "" : ", ") + to_text(action_of(rank, action)) +
                 (flight.action >= 0 ? " (has no partner yet)" : unfinished(rank, action));
    }
    add_error(rank, first, "deadlock: this rank never ends its list", "an order in which every action can start",
              waiting, "compare the lists of the ranks named here; each waits for another");
  }

  std::string unfinished(int rank, int action) const {
    const RankProgram& program = *ranks_[static_cast<std::size_t>(rank)].program;
    for (const int on : program.waits_for[static_cast<std::size_t>(action)]) {
      if (!states_[static_cast<std::size_t>(rank)].has_finished(on))
        return " (after " + to_text(action_of(rank, on)) + ")";
    }
    return "";
  }

  const Plan& plan_;
  std::vector<Group> groups_;
  std::map<std::tuple<GroupKind, int, int>, int> group_index_;
  std::vector<RankProgram> programs_;  // per role
  std::vector<Rank> ranks_;
  std::vector<StepState> states_;
  struct Present {
    int rank = -1, action = -1;
    Stream stream = Stream::Reduce;
  };
  // Ranks, for REDUCE_SHARED by stage, then for REDUCE_EXPERTS: groups behind groups_.
  std::vector<std::vector<int>> stages_;
  std::map<std::tuple<int, int, int>, int> holders_;  // of the same experts, by stage, position, place
  std::vector<char> expert_blocks_;                   // by block
  std::vector<std::vector<Present>> meeting_;         // per group: members that are at its collective
  /// Who is at its compute action: of a mesh, at its first rank; behind those of replicas with an expert axis.
  std::vector<std::vector<Present>> computing_;
  std::deque<int> ready_;
  std::vector<char> queued_;
  std::map<std::tuple<int, int, std::string>, bool> reported_;
  std::vector<Error> errors_;
};

}  // namespace

std::vector<Error> check_order(const Plan& plan, const model::ModelGraph& graph) {
  return OrderCheck(plan, graph).run();
}

}  // namespace coxswain::plan
