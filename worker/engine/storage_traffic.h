#pragma once
// What collectives move of a storage: gradients that are added up, values that are gathered, whole or shared out by
// ZeRO. Called by engine. Threads: the engine's one. Private to worker/engine. Source: docs/plan.md.
#include "executor/executor.h"
#include "plan/action.h"
#include "worker/engine/parameter_store.h"

namespace coxswain::worker {

/// Buffers of a communication that `action` starts on `storage` (of StageStorages::of); without any where it moves
/// nothing here.
void fill_storage(const plan::Action& action, int storage, ParameterStore& store, executor::Communication& to);
/// It is complete.
void complete_storage(const plan::Action& action, int storage, ParameterStore& store);

}  // namespace coxswain::worker
