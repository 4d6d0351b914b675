#pragma once
// Executes one rank's actions with libtorch (kept out of this header): lowers the rank's stage to segments, runs ATen
// operators by name through the boxed dispatcher, keeps gradients in own buckets, updates with AdamW.
// Called by worker/service, bench and tests. Threads: one thread drives an engine. Source: DESIGN 3.7.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/reader.h"
#include "checkpoint/shard.h"
#include "cluster/profile.h"
#include "collective/communicator.h"
#include "executor/executor.h"
#include "model/load.h"
#include "model/model_graph.h"
#include "plan/layout/local_graph.h"
#include "plan/program.h"
#include "worker/settings.h"

namespace coxswain::worker {

/// As plan::localise_stage.
using Localise = std::function<Result<plan::LocalGraph>(const model::ModelGraph& graph, const plan::Stage& stage,
                                                        const plan::Replica& replica, int position)>;

struct EngineOptions {
  const model::ModelGraph* graph = nullptr;  // borrowed, outlives the engine
  const plan::Plan* plan = nullptr;          // borrowed, outlives the engine
  int rank = 0;
  TrainSettings settings;
  /// As given to the executor; used for collectives inside blocks and for registered buffers. May hold nulls.
  std::vector<collective::Communicator*> communicators;  // of plan::rank_groups
  /// For tests: a layout of their own. Empty: plan::localise_stage.
  Localise localise = {};
  /// Of one step or evaluation: what a collective inside a block may take.
  Seconds step_timeout{120};
};

/// What a finished step yields; equal on every rank (it went through ReduceNorm), but for memory and `not_finite`.
struct StepNumbers {
  std::int64_t step = 0;
  double loss = 0;
  double grad_norm = 0;  // before clipping
  double learning_rate = 0;
  Bytes peak_memory{0};    // this rank's allocator peak since construction
  bool skipped = false;    // no parameter was updated: something was not finite
  std::string not_finite;  // what this rank saw of it: "the loss is", "the gradients are"; not equal on every rank
  double loss_scale = 0;   // of this step; 0: not scaled (all but float16)
  /// Rows that each expert got from all ranks: choice after choice in the order of plan::expert_choices, by expert.
  std::vector<std::int64_t> expert_tokens;
  /// Some rank was asked to, before it came to this step's commit point.
  bool asks_save = false, asks_stop = false;
};

/// What a rank updates of a parameter: on a mesh of several devices some rows, under ZeRO a piece of those.
struct ParameterPart {
  std::vector<float> values;                    // row-major, float32 masters
  std::vector<std::vector<std::int64_t>> rows;  // of what the mesh gives it, by dim: the whole's index of each index
  std::int64_t first = 0;                       // of that, row-major, the element that `values` begins with
};

/// What a rank updates, as the last step that was taken left it, in memory that outlives its engine.
struct HeldState {
  checkpoint::Progress progress;
  std::vector<checkpoint::PieceView> pieces;
  std::shared_ptr<const void> memory;  // of the elements
};

class Engine : public executor::Compute {
 public:
  /// Before begin_step: all ranks' StepNumbers of the next step will say so.
  virtual void ask(bool save, bool stop) = 0;
  /// Before the executor's begin_step: step `step` (from 1) of training: picks its samples, its learning rate.
  virtual Result<void> begin_step(std::int64_t step) = 0;
  virtual Result<StepNumbers> end_step() = 0;
  /// Validation batch `index` (from 0) without gradients; run evaluation_actions in between; end gives the loss.
  virtual Result<void> begin_evaluation(std::int64_t index) = 0;
  virtual Result<double> end_evaluation() = 0;
  /// Allocator peak of this rank: bytes in use after size-class rounding, with registered buffers.
  [[nodiscard]] virtual Bytes peak_memory() const = 0;
  /// Float32 copy of a parameter that this rank updates whole. For tests and checks. Errors: NotFound,
  /// FailedPrecondition (it holds a part).
  [[nodiscard]] virtual Result<std::vector<float>> read_parameter(const std::string& name) const = 0;
  /// Float32 copy of what this rank updates of a parameter, which may be nothing. Errors: NotFound.
  [[nodiscard]] virtual Result<ParameterPart> read_part(const std::string& name) const = 0;

  /// Between steps. What this rank updates, and copies of that with the optimizer's moments; of `pieces` those in it.
  [[nodiscard]] virtual std::vector<checkpoint::Piece> pieces() const = 0;
  [[nodiscard]] virtual std::vector<checkpoint::PieceState> copy_state(
      const std::vector<checkpoint::Piece>& pieces) const = 0;
  /// What this rank computes with, and load_state reads.
  [[nodiscard]] virtual std::vector<checkpoint::Piece> held_pieces() const = 0;
  /// After the last step whose parameters were updated, whether or not that step has ended.
  [[nodiscard]] virtual checkpoint::Progress progress() const = 0;
  /// Nothing is copied: the last call before the engine goes. At any time but within a call.
  [[nodiscard]] virtual HeldState hold_state() const = 0;
  /// What peak_memory tells begins again at what is in use now.
  virtual void reset_peak_memory() = 0;
  /// Goes on as the run that saved it would have: the next step is progress.step + 1. Whatever plan that run had.
  /// Errors: of Reader::read; InvalidArgument (another global batch, so that samples would be left out or seen twice).
  [[nodiscard]] virtual Result<void> load_state(const checkpoint::Reader& reader,
                                                const checkpoint::Progress& progress) = 0;
};

/// Errors: InvalidArgument naming every operator without a kernel; DataLoss (weights); FailedPrecondition (data file).
[[nodiscard]] Result<std::unique_ptr<Engine>> make_engine(const EngineOptions& options);

/// Starts a barrier over all ranks, which ends by itself at its deadline. Empty handle: one rank.
using StartBarrier = std::function<collective::Handle()>;

/// Times each distinct block of `graph` at each of `samples` on this rank, with `settings.threads`; a few repetitions,
/// minimum seconds kept short. Barriers before and after each timed point: a device goes on until all have enough, so
/// that all are busy together, as in training.
[[nodiscard]] Result<cluster::Profile> profile_blocks(const model::ModelGraph& graph,
                                                      const std::vector<std::int64_t>& samples,
                                                      const std::string& device_class, const TrainSettings& settings,
                                                      Seconds budget, const StartBarrier& start_barrier);

/// Rates of this rank's device, measured by the operators that training uses.
struct MeasuredRates {
  std::vector<cluster::MatmulRate> matmul;
  BytesPerSecond memory_bandwidth{0};
  Seconds launch_overhead{0};
};
[[nodiscard]] Result<MeasuredRates> measure_rates(int threads, Seconds budget,
                                                  const std::function<Result<void>()>& barrier);

/// Runs the recorded step of a .pt2 on one rank and compares with what the exporter saw.
struct CheckReport {
  double loss = 0, recorded_loss = 0;
  double grad_norm = 0, recorded_grad_norm = 0;
  double worst_gradient_error = 0;  // |norm - recorded| / global norm, over parameters
  std::string worst_parameter;
  std::vector<std::pair<std::string, double>> grad_norms;
  bool passed = false;
};
[[nodiscard]] Result<CheckReport> check_model(const std::string& pt2_path, int threads);

/// Names of operators of `graph` that libtorch has no kernel for here.
[[nodiscard]] std::vector<std::string> operators_without_kernel(const model::ModelGraph& graph);

}  // namespace coxswain::worker
