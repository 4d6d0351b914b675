#include "plan/action.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "common/ensure.h"

namespace coxswain::plan {
namespace {

/// Which numbers an action of a kind carries in its text.
enum class Form { Plain, MicroBatch, MicroBatchBlocks, MaybeMicroBatchBlocks, Blocks, Tied };

struct KindRow {
  ActionKind kind;
  std::string_view name;
  std::string_view code;
  Stream stream;
  Form form;
};

// In the order of the enumerators.
constexpr std::array kRows{
    KindRow{ActionKind::Forward, "forward", "F", Stream::Compute, Form::MicroBatchBlocks},
    KindRow{ActionKind::Backward, "backward", "B", Stream::Compute, Form::MicroBatchBlocks},
    KindRow{ActionKind::BackwardInput, "backward_input", "I", Stream::Compute, Form::MicroBatchBlocks},
    KindRow{ActionKind::BackwardWeight, "backward_weight", "W", Stream::Compute, Form::MicroBatchBlocks},
    KindRow{ActionKind::CountLoss, "count_loss", "COUNT_LOSS", Stream::Compute, Form::Plain},
    KindRow{ActionKind::Optimizer, "optimizer", "OPTIMIZER", Stream::Compute, Form::Plain},
    KindRow{ActionKind::SendActivation, "send_activation", "SEND_F", Stream::ActivationOut, Form::MicroBatch},
    KindRow{ActionKind::ReceiveActivation, "receive_activation", "RECV_F", Stream::ActivationIn, Form::MicroBatch},
    KindRow{ActionKind::SendGradient, "send_gradient", "SEND_B", Stream::GradientOut, Form::MicroBatch},
    KindRow{ActionKind::ReceiveGradient, "receive_gradient", "RECV_B", Stream::GradientIn, Form::MicroBatch},
    KindRow{ActionKind::ReduceLossCount, "reduce_loss_count", "REDUCE_LOSS_COUNT", Stream::Reduce, Form::Plain},
    KindRow{ActionKind::ReduceGradient, "reduce_gradient", "REDUCE_GRAD", Stream::Reduce, Form::MaybeMicroBatchBlocks},
    KindRow{ActionKind::ReduceTied, "reduce_tied", "REDUCE_TIED", Stream::Reduce, Form::Tied},
    KindRow{ActionKind::ReduceShared, "reduce_shared", "REDUCE_SHARED", Stream::Reduce, Form::Plain},
    KindRow{ActionKind::ReduceNorm, "reduce_norm", "REDUCE_NORM", Stream::Reduce, Form::Plain},
    KindRow{ActionKind::ReduceReused, "reduce_reused", "REDUCE_REUSED", Stream::Reduce, Form::Plain},
    KindRow{ActionKind::GatherParameter, "gather_parameter", "GATHER_PARAM", Stream::Gather,
            Form::MaybeMicroBatchBlocks},
    KindRow{ActionKind::GatherReused, "gather_reused", "GATHER_REUSED", Stream::Gather, Form::Plain},
    KindRow{ActionKind::ReduceExperts, "reduce_experts", "REDUCE_EXPERTS", Stream::Reduce, Form::Blocks},
};

const KindRow& row_of(ActionKind kind) {
  const auto position = static_cast<std::size_t>(kind);
  COX_ENSURE(position < kRows.size() && kRows[position].kind == kind, position);
  return kRows[position];
}

/// Takes a number without leading zeros off the front of `text`.
std::optional<int> take_number(std::string_view& text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || text.front() == '-' || (text.front() == '0' && end != text.data() + 1))
    return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

bool take_character(std::string_view& text, char c) {
  if (text.empty() || text.front() != c) return false;
  text.remove_prefix(1);
  return true;
}

bool take_blocks(std::string_view& text, Action& action) {
  if (!take_character(text, '[') || text.empty()) return false;
  const auto first = take_number(text);
  if (!first || !take_character(text, ',') || text.empty()) return false;
  const auto end = take_number(text);
  if (!end || !take_character(text, ')')) return false;
  action.first_block = *first;
  action.end_block = *end;
  return *first < *end;
}

}  // namespace

Stream stream_of(ActionKind kind) { return row_of(kind).stream; }
bool is_compute(ActionKind kind) { return stream_of(kind) == Stream::Compute; }
bool is_collective(Stream stream) { return stream == Stream::Reduce || stream == Stream::Gather; }
bool is_edge(ActionKind kind) { return stream_of(kind) != Stream::Compute && !is_collective(stream_of(kind)); }

std::string_view to_text(Stream stream) {
  switch (stream) {
    case Stream::Compute: return "compute";
    case Stream::ActivationIn: return "activation_in";
    case Stream::ActivationOut: return "activation_out";
    case Stream::GradientIn: return "gradient_in";
    case Stream::GradientOut: return "gradient_out";
    case Stream::Reduce: return "reduce";
    case Stream::BackActivationIn: return "back_activation_in";
    case Stream::BackActivationOut: return "back_activation_out";
    case Stream::BackGradientIn: return "back_gradient_in";
    case Stream::BackGradientOut: return "back_gradient_out";
    case Stream::Gather: return "gather";
  }
  return "unknown";
}

std::string_view to_text(ActionKind kind) { return row_of(kind).name; }

std::string to_text(const Action& action) {
  std::string text(row_of(action.kind).code);
  if (action.micro_batch >= 0) text += std::to_string(action.micro_batch);
  if (action.chunk > 0) text += "." + std::to_string(action.chunk);
  if (action.tied >= 0) text += std::to_string(action.tied);
  if (action.first_block >= 0)
    text += "[" + std::to_string(action.first_block) + "," + std::to_string(action.end_block) + ")";
  return text;
}

std::optional<Action> parse_action(std::string_view text) {
  const auto code_end = std::find_if(text.begin(), text.end(), [](char c) { return c != '_' && (c < 'A' || c > 'Z'); });
  const std::string_view code = text.substr(0, static_cast<std::size_t>(code_end - text.begin()));
  const auto row = std::find_if(kRows.begin(), kRows.end(), [&](const KindRow& r) { return r.code == code; });
  if (row == kRows.end()) return std::nullopt;
  text.remove_prefix(code.size());

  Action action;
  action.kind = row->kind;
  if (row->form == Form::MicroBatch || row->form == Form::MicroBatchBlocks || row->form == Form::Tied) {
    const auto number = text.empty() ? std::nullopt : take_number(text);
    if (!number) return std::nullopt;
    (row->form == Form::Tied ? action.tied : action.micro_batch) = *number;
    if (row->form != Form::Tied && take_character(text, '.')) {
      const auto chunk = text.empty() ? std::nullopt : take_number(text);
      if (!chunk || *chunk == 0) return std::nullopt;
      action.chunk = *chunk;
    }
  }
  if (row->form == Form::MaybeMicroBatchBlocks && !text.empty() && text.front() != '[') {
    const auto number = take_number(text);
    if (!number) return std::nullopt;
    action.micro_batch = *number;
  }
  // The bare form "F3" is that of schedules, before a stage gives it blocks.
  const bool blocks = row->form == Form::MaybeMicroBatchBlocks || row->form == Form::Blocks ||
                      (row->form == Form::MicroBatchBlocks && !text.empty());
  if (blocks && !take_blocks(text, action)) return std::nullopt;
  if (!text.empty()) return std::nullopt;
  return action;
}

}  // namespace coxswain::plan
