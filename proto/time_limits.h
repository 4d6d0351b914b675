#pragma once
// How long coordinator, agents and ranks wait for each other, in seconds, from the shortest, and which limit has to be
// longer than which: the compiler refuses a hierarchy that does not hold. Those that depend on the plan are in
// launcher/control/coordinator.cpp, which keeps them in their places when a generation begins. Threads: pure values.
// Source: docs/failures.md, "Time limits".

namespace coxswain::limits {

inline constexpr double kTick = 0.1;            // a look at clocks in the coordinator, while something is under way
inline constexpr double kHeartbeat = 0.3;       // either way, where nothing else was said
inline constexpr double kLastWords = 0.3;       // of a rank after its exit, through its stream
inline constexpr double kStoppedLook = 0.5;     // between looks at ranks that are stopped
inline constexpr int kStoppedLooks = 6;         // in a row, until one is ended
inline constexpr double kFailedExit = 0.5;      // of a rank that said why it failed
inline constexpr double kKill = 0.6;            // from SIGKILL to a process's end
inline constexpr double kAgentBack = 0.7;       // an agent whose connection broke
inline constexpr double kOwnPause = 1.0;        // without a look of one's own, after which nobody else was silent
inline constexpr double kPark = 1.0;            // a rank that lost its peer, to let go of its generation
inline constexpr double kMpiAbort = 1.0;        // mpirun's own end after a rank of it ended
inline constexpr double kSilence = 2.0;         // of an agent or of the coordinator
inline constexpr double kDoubtFraction = 0.75;  // of a silence, until an agent says that it is about to hang up
inline constexpr double kPeerLost = 2.1;        // the cause, after a rank that only lost its peer
inline constexpr double kKept = 3;              // what agents kept while the coordinator was away
inline constexpr double kHungUpBack = 5;        // an agent that hung up because it got no word: it lives
inline constexpr double kGivenUp = 5;           // the word to a rank that lost a peer that its generation is given up
inline constexpr double kFileConnect = 5;       // to a node that gives or takes files
inline constexpr double kAgentsBack = 10;       // to a coordinator that was restarted
inline constexpr double kGoodbye = 10;          // ranks that finished the last step
inline constexpr double kGenerationGone = 2 * kAgentsBack;  // ranks that are stopped for another generation
// Of the agent of the only node: its loss ends the run, so that there is nothing to gain by seeing it soon, and all to
// lose where it lives and gets no processor. And of the coordinator, to the agent beside it: `launch` itself sees it
// die or stand still, while a disk that takes seconds to write, or a busy machine, silences it for a while.
inline constexpr double kAloneSilence = 20;
inline constexpr double kCoordinatorBack = 20;  // for an agent; then it ends its ranks
inline constexpr double kLeastHung = 30;        // one compute action, or ten times the longest predicted one
inline constexpr double kHungFactor = 10;       // of what is predicted
inline constexpr double kConnect = 60;          // ranks of a generation
inline constexpr double kListing = 600;         // nodes that share no disk, to tell what they hold
inline constexpr double kFileCopy = 600;        // of a shard to another node
inline constexpr double kStep = 1800;           // one step, whatever else is lost, or twice the limit of a stall

static_assert(kTick < kHeartbeat);
static_assert(3 * kHeartbeat < kDoubtFraction * kSilence, "a lost heartbeat or two is no silence");
static_assert(kOwnPause < kSilence, "who stood still may not take others for silent");
static_assert(kAgentBack + kTick < kSilence, "a broken connection is seen before a silence would be");
static_assert(kSilence < kPeerLost, "a node that fell silent may be why a rank lost its peer");
static_assert(kStoppedLook * kStoppedLooks > kPeerLost, "a peer that is lost is told before a rank counts as stopped");
static_assert(kSilence < kHungUpBack, "who hung up for want of a word is given longer than a silence");
static_assert(kPeerLost + kFailedExit < kGivenUp, "a rank waits for the word until the cause is known");
static_assert(kHungUpBack < kAgentsBack && kKept < kAgentsBack);
static_assert(kAgentsBack < kCoordinatorBack, "an agent tries for as long as a restarted coordinator waits");
static_assert(kAgentsBack + kPark + kKill < kGenerationGone, "a node is given up before its ranks are");
static_assert(kGenerationGone < kConnect, "ranks that begin wait for those that still end others");
static_assert(kAloneSilence < kLeastHung, "a silent agent is seen before its ranks' work is overdue");
static_assert(kConnect < kStep && kFileCopy < kStep && kFileConnect < kFileCopy && kHungFactor * kLeastHung < kStep);

}  // namespace coxswain::limits
