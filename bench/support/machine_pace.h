#pragma once
// How fast the machine is at this moment: a fixed piece of work on every core at once. A shared machine changes by tens
// of percent within minutes; a prediction that was measured at one time and a run of another are compared by the ratio
// of both times' pace. Called by plan_accuracy. Threads: one (it starts and ends one for each core).

namespace coxswain::bench {

/// Seconds that the work takes when all cores do it: products of matrices that stay in a core's cache, and a pass over
/// memory that none holds, about as long as each other. Mean of two or three seconds.
[[nodiscard]] double machine_pace();

}  // namespace coxswain::bench
