#pragma once
// A replay of one block's forward and backward that follows every storage from first write to last use. Counted against
// the block: what it receives (the leaf that its gradient returns through), what it makes and keeps. Not counted:
// parameters, buffers, and what it sends, which is what the next block receives. Private to this folder. Threads: one.
// Source: docs/cost_model.md, C3, C15, C31.
#include <vector>

#include "model/model_graph.h"
#include "model/op_cost.h"
#include "model/storage.h"

namespace coxswain::model {

class BlockReplay {
 public:
  BlockReplay(const ModelGraph& graph, int block, std::int64_t samples, ExpertForm experts, Width width);

  enum class Role : char { Inside, Permanent, Input, Received, Shared };

  [[nodiscard]] const StorageMap& storage() const { return storage_; }
  [[nodiscard]] const std::vector<ValueId>& received() const { return received_; }
  [[nodiscard]] const std::vector<ValueId>& sent() const { return sent_; }
  /// Of a value that crosses a cut: rounded under mixed precision.
  [[nodiscard]] Bytes cut_bytes(const std::vector<ValueId>& values) const;

  /// Storages with a keeper, by role; each once.
  [[nodiscard]] Bytes kept(Role role) const;
  [[nodiscard]] Bytes hidden() const { return hidden_; }
  /// What lives from forward to backward besides inputs and what was received.
  [[nodiscard]] Bytes own_saved() const { return kept(Role::Inside) + hidden_; }

  /// `with_graph`: what backward keeps stays.
  [[nodiscard]] Bytes forward_peak(bool with_graph) const;

  struct Backward {
    Bytes whole{0};  // peak of B, above nothing
    Bytes input{0};  // of I
    Bytes owed{0};   // kept between I and W, besides inputs and what was received
    bool owes_received = false, owes_inputs = false;
    Bytes weight{0};  // of W, above nothing
  };
  [[nodiscard]] Backward backward() const;

  /// Storages with a keeper that operators [first, end) of the block make, with their hidden bytes.
  [[nodiscard]] Bytes own_saved_of(int first, int end) const;
  /// C31: what lives from forward to backward where what contracts no parameter runs again; names what does.
  [[nodiscard]] Bytes selective_saved(std::vector<int>& replayed) const;

 private:
  friend class BackwardReplay;
  void assign_roles();
  [[nodiscard]] bool runs_again(const Op& op) const;
  /// By operator: something in the block needs it, or it depends on a parameter. What only later blocks need (a mask)
  /// is made by the stages that hold those, and counts there (Role::Shared).
  [[nodiscard]] std::vector<char> find_needed() const;
  [[nodiscard]] bool stays(ValueId base) const { return keepers_[base] > 0 || is_sent_[base] != 0; }
  [[nodiscard]] const SavedStorages& saved_of(OpId id) const {
    return saved_[static_cast<std::size_t>(id - range_.first_op)];
  }

  const ModelGraph& graph_;
  const Block& range_;
  StorageMap storage_;
  std::vector<ValueId> received_, sent_;
  std::vector<Role> role_;     // by value
  std::vector<char> is_sent_;  // by base
  std::vector<int> keepers_;   // by base: operators whose backward needs it
  std::vector<SavedStorages> saved_;
  Bytes hidden_{0};
};

}  // namespace coxswain::model
