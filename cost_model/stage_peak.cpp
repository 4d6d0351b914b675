#include "cost_model/stage_peak.h"

#include <algorithm>
#include <set>

#include "plan/program.h"

namespace coxswain::cost_model {
namespace {

/// Which edge a chunk receives from and sends to (-1: none), and how many receive buffers each has.
struct ListEdges {
  std::vector<int> in_of_chunk, out_of_chunk;
  std::vector<int> credits_in, credits_out;
};

/// C15, C16: what is there beside the run at work, action by action.
class ListWalk {
 public:
  /// `outruns_link`: results are made faster than they leave.
  ListWalk(const std::vector<plan::Action>& list, int num_chunks, const ListEdges& edges, bool outruns_link)
      : list_(list), edges_(edges), outruns_link_(outruns_link) {
    before.resize(static_cast<std::size_t>(num_chunks), 0);
    owed = before;
    receive_activations.resize(edges.credits_in.size(), 0);
    send_gradients = receive_activations;
    receive_gradients.resize(edges.credits_out.size(), 0);
    send_activations = receive_gradients;
    forwards_left_.resize(edges.credits_in.size(), 0);
    backwards_left_.resize(edges.credits_out.size(), 0);
    for (const plan::Action& action : list) {
      if (!begins(action)) continue;
      const auto chunk = static_cast<std::size_t>(action.chunk);
      const int in = edges.in_of_chunk[chunk], out = edges.out_of_chunk[chunk];
      if (action.kind == plan::ActionKind::Forward && in >= 0) ++forwards_left_[static_cast<std::size_t>(in)];
      if (is_backward(action) && out >= 0) ++backwards_left_[static_cast<std::size_t>(out)];
    }
  }

  std::vector<std::int64_t> before, owed;                         // by chunk: other micro-batches
  std::vector<std::int64_t> receive_activations, send_gradients;  // by edge in
  std::vector<std::int64_t> receive_gradients, send_activations;  // by edge out

  /// Calls `visit(action)` for the first part of every F, B, I and W: in its later parts less is there. Calls
  /// `after(action)` when a forward has made what is sent, which is on its way then.
  template <class Visit, class After>
  void walk(Visit visit, After after) {
    for (const plan::Action& action : list_) {
      if (!begins(action)) continue;
      const auto chunk = static_cast<std::size_t>(action.chunk);
      const int in = edges_.in_of_chunk[chunk], out = edges_.out_of_chunk[chunk];
      if (action.kind == plan::ActionKind::Forward && in >= 0) --forwards_left_[static_cast<std::size_t>(in)];
      // A forward waits for the result that left as many turns ago as there are credits.
      if (action.kind == plan::ActionKind::Forward && out >= 0) {
        const auto e = static_cast<std::size_t>(out);
        send_activations[e] = std::min<std::int64_t>(send_activations[e], edges_.credits_out[e] - 1);
      }
      if (is_backward(action)) {
        --before[chunk];
        if (out >= 0) {
          --backwards_left_[static_cast<std::size_t>(out)];
          // The gradient that it had to wait for came from where they went, and there is room for them.
          send_activations[static_cast<std::size_t>(out)] = 0;
        }
      }
      if (action.kind == plan::ActionKind::BackwardWeight) --owed[chunk];
      count_receives();
      visit(action);
      if (!outruns_link_) std::fill(send_activations.begin(), send_activations.end(), 0);
      std::fill(send_gradients.begin(), send_gradients.end(), 0);
      if (action.kind == plan::ActionKind::Forward) {
        ++before[chunk];
        if (out >= 0) {
          ++send_activations[static_cast<std::size_t>(out)];
          after(action);
        }
      }
      if (is_backward(action) && in >= 0) send_gradients[static_cast<std::size_t>(in)] = 1;
      if (action.kind == plan::ActionKind::BackwardInput) ++owed[chunk];
    }
  }

 private:
  static bool is_backward(const plan::Action& action) {
    return action.kind == plan::ActionKind::Backward || action.kind == plan::ActionKind::BackwardInput;
  }
  /// The first part of a compute action of a micro-batch: a backward in parts begins with the highest blocks. The end
  /// of its run is that of the part seen first.
  [[nodiscard]] bool begins(const plan::Action& action) const {
    if (action.micro_batch < 0 || !plan::is_compute(action.kind)) return false;
    if (&action == list_.data()) return true;
    const plan::Action* last = &action - 1;
    while (last != list_.data() && !(plan::is_compute(last->kind) && last->micro_batch >= 0)) --last;
    return last->kind != action.kind || last->micro_batch != action.micro_batch || last->chunk != action.chunk;
  }
  /// Activations come ahead of their use, as far as there are credits. Of gradients one receive is posted: the stage
  /// after waits for this one as this one does for it.
  void count_receives() {
    for (std::size_t e = 0; e < receive_activations.size(); ++e)
      receive_activations[e] = std::min<std::int64_t>(edges_.credits_in[e], forwards_left_[e]);
    for (std::size_t e = 0; e < receive_gradients.size(); ++e)
      receive_gradients[e] = std::min<std::int64_t>({1, edges_.credits_out[e], backwards_left_[e]});
  }

  const std::vector<plan::Action>& list_;
  const ListEdges& edges_;
  const bool outruns_link_;
  std::vector<std::int64_t> forwards_left_, backwards_left_;
};

/// ADR 0013: the list as it is run where nothing comes before chunk 0.
std::vector<plan::Action> with_whole_backwards(std::vector<plan::Action> list) {
  constexpr int kFirstChunk = 0;
  const std::set<int> whole = plan::find_whole_backwards(list, kFirstChunk);
  const auto is_whole = [&](const plan::Action& action, plan::ActionKind kind) {
    return action.kind == kind && action.chunk == kFirstChunk && whole.count(action.micro_batch) > 0;
  };
  std::erase_if(list, [&](const plan::Action& action) { return is_whole(action, plan::ActionKind::BackwardInput); });
  for (plan::Action& action : list)
    if (is_whole(action, plan::ActionKind::BackwardWeight)) action.kind = plan::ActionKind::Backward;
  return list;
}

/// C15: what each chunk of a stage holds.
struct Kept {
  std::vector<HeldRun> runs;  // by chunk
  Bytes shared{0};
};

Kept count_kept(const CostModel& cost, const StageWork& work) {
  const ModelFacts& facts = cost.facts();
  const int parts = work.tensor * work.context;
  Kept kept;
  std::size_t position = 0;
  for (const plan::BlockRun& run : runs_of(work)) {
    kept.runs.emplace_back();
    for (int block = run.first_block; block < run.end_block; ++block, ++position) {
      const BlockWork here{
          block,       work.device_class,        work.samples,        work.precision,   work.tensor, work.context,
          work.expert, work.recompute[position], work.expert_samples, work.expert_index};
      const BlockTime time = cost.estimate_block(here);
      // A micro-batch keeps its inputs on the device. The search counts them where nothing is recomputed.
      const Bytes inputs = work.offload == plan::Offload::Activations ? Bytes(0) : time.inputs;
      const HeldBytes held =
          held_bytes(time, work.recompute[position],
                     split_stream(facts.activation_bytes(block, work.samples, work.precision), parts) + inputs,
                     split_stream(facts.gradient_bytes(block + 1, work.samples, work.precision), parts));
      kept.runs.back().add(held);
      if (!time.counts_shared) kept.shared = std::max(kept.shared, shared_bytes(facts, here));
    }
  }
  return kept;
}

/// C16: looks up and adds (an embedding), multiplies next to nothing, and waits for no other device: results are made
/// faster than a link takes them.
bool outruns_link(const ModelFacts& facts, const StageWork& work) {
  if (!work.first_stage || work.tensor > 1 || work.zero_stage >= 3 || !work.chunks.empty()) return false;
  Flop flop{0};
  for (int block = work.first_block; block < work.end_block; ++block)
    flop += facts.totals(block, work.samples).matmul_flop;
  const Bytes result = facts.activation_bytes(work.end_block, work.samples, plan::Precision::Float32);
  return flop.value < static_cast<double>(result.value);
}

/// C16: bytes of an activation and of a gradient on each of some edges, of the largest chunk.
struct EdgeSizes {
  std::vector<Bytes> activation, gradient;
};

EdgeSizes measure_edges(const ModelFacts& facts, const StageWork& work, const std::vector<StageWork::EdgeWork>& edges,
                        std::int64_t apart) {
  const int parts = work.tensor * work.context;
  EdgeSizes sizes;
  for (const StageWork::EdgeWork& edge : edges) {
    Bytes activation(0), gradient(0);
    for (const int cut : edge.cuts) {
      const Bytes forward = facts.activation_bytes(cut, work.samples, work.precision) +
                            facts.activation_bytes(cut, apart, work.precision);
      const Bytes back =
          facts.gradient_bytes(cut, work.samples, work.precision) + facts.gradient_bytes(cut, apart, work.precision);
      activation = std::max(activation, split_stream(forward, parts));
      gradient = std::max(gradient, split_stream(back, parts));
    }
    sizes.activation.push_back(activation);
    sizes.gradient.push_back(gradient);
  }
  return sizes;
}

ListEdges list_edges(const std::vector<StageWork::EdgeWork>& in, const std::vector<StageWork::EdgeWork>& out,
                     std::size_t num_chunks) {
  ListEdges edges;
  const auto add = [num_chunks](const std::vector<StageWork::EdgeWork>& from, std::vector<int>& of_chunk,
                                std::vector<int>& credits) {
    of_chunk.assign(num_chunks, -1);
    for (std::size_t e = 0; e < from.size(); ++e) {
      for (const int chunk : from[e].chunks) of_chunk[static_cast<std::size_t>(chunk)] = static_cast<int>(e);
      credits.push_back(from[e].credits);
    }
  };
  add(in, edges.in_of_chunk, edges.credits_in);
  add(out, edges.out_of_chunk, edges.credits_out);
  return edges;
}

}  // namespace

std::vector<StageWork::EdgeWork> edges_in_of(const StageWork& work) {
  if (!work.chunks.empty() || work.first_stage) return work.edges_in;
  return {{{work.first_block}, work.receive_credits, {0}}};
}

std::vector<StageWork::EdgeWork> edges_out_of(const StageWork& work) {
  if (!work.chunks.empty() || work.last_stage) return work.edges_out;
  return {{{work.end_block}, work.receive_credits, {0}}};
}

std::int64_t num_edges(const StageWork& work) {
  if (!work.chunks.empty()) return static_cast<std::int64_t>(work.edges_in.size() + work.edges_out.size());
  const std::size_t in = work.first_stage ? work.edges_in.size() : 1, out = work.last_stage ? work.edges_out.size() : 1;
  return static_cast<std::int64_t>(in + out);
}

std::vector<plan::BlockRun> runs_of(const StageWork& work) {
  std::vector<plan::BlockRun> runs{{work.first_block, work.end_block}};
  runs.insert(runs.end(), work.chunks.begin(), work.chunks.end());
  return runs;
}

Peak find_peak(const CostModel& cost, const StageWork& work, Bytes gradients, Bytes late) {
  const ModelFacts& facts = cost.facts();
  const Kept kept = count_kept(cost, work);
  const std::vector<StageWork::EdgeWork> edges_in = edges_in_of(work), edges_out = edges_out_of(work);
  const ListEdges edges = list_edges(edges_in, edges_out, kept.runs.size());
  const EdgeSizes in = measure_edges(facts, work, edges_in, work.apart_in);
  const EdgeSizes out = measure_edges(facts, work, edges_out, work.apart_out);

  Peak peak;
  const bool moves = work.offload == plan::Offload::Activations;
  const std::vector<plan::Action> actions = work.first_stage ? with_whole_backwards(work.list) : work.list;
  bool goes_back = false;  // so far
  ListWalk list(actions, static_cast<int>(kept.runs.size()), edges, outruns_link(facts, work));
  // Of all micro-batches that the walk counts: between F and B, between I and W.
  const auto sum = [&](const std::vector<std::int64_t>& count, std::int64_t HeldBytes::* of) {
    std::int64_t bytes = 0;
    for (std::size_t chunk = 0; chunk < kept.runs.size(); ++chunk) bytes += count[chunk] * (kept.runs[chunk].all.*of);
    return bytes;
  };
  const auto count_transfers = [&] {
    Bytes bytes(0);
    for (std::size_t e = 0; e < edges_in.size(); ++e)
      bytes += in.activation[e] * list.receive_activations[e] + in.gradient[e] * list.send_gradients[e];
    for (std::size_t e = 0; e < edges_out.size(); ++e)
      bytes += out.gradient[e] * list.receive_gradients[e] + out.activation[e] * list.send_activations[e];
    return bytes;
  };
  const auto visit = [&](const plan::Action& action) {
    const HeldRun& run = kept.runs[static_cast<std::size_t>(action.chunk)];
    goes_back = goes_back || action.kind != plan::ActionKind::Forward;
    const bool weights = action.kind == plan::ActionKind::BackwardWeight;
    const std::int64_t before = sum(list.before, &HeldBytes::kept), owed = sum(list.owed, &HeldBytes::owed);
    const std::int64_t own = weights ? run.all.owed : run.all.kept;
    const Bytes host = std::max(peak.host, Bytes(before + (weights ? 0 : own)));
    const std::int64_t held = run.held(action.kind, before, owed, moves);
    Peak here;
    here.gradients = goes_back ? gradients : gradients - late;
    here.transient = Bytes(std::clamp<std::int64_t>(run.all.peak(action.kind) - own, 0, held));
    here.activations = Bytes(held) - here.transient + kept.shared;
    here.transfers = count_transfers();
    if (here.total() > peak.total()) peak = here;
    peak.host = host;
  };
  // Pieces of their own are there beside the whole only when the action that made it is over.
  const auto after = [&](const plan::Action& action) {
    Peak here;
    here.gradients = goes_back ? gradients : gradients - late;
    const std::int64_t held =
        moves ? kept.runs[static_cast<std::size_t>(action.chunk)].moved.last : sum(list.before, &HeldBytes::kept);
    here.activations = Bytes(held + sum(list.owed, &HeldBytes::owed)) + kept.shared;
    here.transfers = count_transfers();
    here.host = peak.host;
    if (here.total() > peak.total()) peak = here;
  };
  list.walk(visit, after);
  return peak;
}

std::vector<Moment> moments_of(const std::vector<plan::Action>& list, int credits, bool first) {
  const ListEdges edges{{0}, {0}, {credits}, {credits}};
  const std::vector<plan::Action> actions = first ? with_whole_backwards(list) : list;
  ListWalk walk(actions, 1, edges, false);
  std::vector<Moment> moments;
  const auto parts = {
      &Moment::before,           &Moment::owed,          &Moment::receive_activations, &Moment::receive_gradients,
      &Moment::send_activations, &Moment::send_gradients};
  const auto no_more = [&](const Moment& a, const Moment& b) {
    return a.kind == b.kind && std::all_of(parts.begin(), parts.end(), [&](auto part) { return a.*part <= b.*part; });
  };
  const auto visit = [&](const plan::Action& action) {
    const Moment now{action.kind,
                     walk.before[0],
                     walk.owed[0],
                     walk.receive_activations[0],
                     walk.receive_gradients[0],
                     walk.send_activations[0],
                     walk.send_gradients[0]};
    if (std::any_of(moments.begin(), moments.end(), [&](const Moment& other) { return no_more(now, other); })) return;
    std::erase_if(moments, [&](const Moment& other) { return no_more(other, now); });
    moments.push_back(now);
  };
  walk.walk(visit, [](const plan::Action&) {});
  return moments;
}

std::int64_t most_held(const std::vector<Moment>& moments, const HeldRun& run, const EdgeBytes& edges, bool moves) {
  std::int64_t most = 0;
  for (const Moment& moment : moments) {
    const std::int64_t held = run.held(moment.kind, moment.before * run.all.kept, moment.owed * run.all.owed, moves);
    most = std::max(
        most, held + moment.receive_activations * edges.activation_in + moment.send_gradients * edges.gradient_in +
                  moment.receive_gradients * edges.gradient_out + moment.send_activations * edges.activation_out);
  }
  return most;
}

}  // namespace coxswain::cost_model
