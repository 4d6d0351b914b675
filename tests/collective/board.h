#pragma once
// Memory that the ranks of a test share, as threads or as forked processes: addresses handed round, marks reached,
// reports.
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/clock.h"

namespace coxswain::collective {

class Board {
 public:
  static constexpr int kMaxRanks = 8;
  static constexpr int kMaxRounds = 32;
  static constexpr int kMaxMarks = 16;
  static constexpr std::size_t kTextBytes = 1024;

  Board()
      : memory_(static_cast<Memory*>(
            ::mmap(nullptr, sizeof(Memory), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
    if (memory_ == MAP_FAILED) throw std::runtime_error("no shared memory for the test");
    new (memory_) Memory{};
  }
  Board(const Board&) = delete;
  Board& operator=(const Board&) = delete;
  ~Board() { ::munmap(memory_, sizeof(Memory)); }

  void publish(int round, int rank, const std::string& text) {
    Slot& slot = memory_->slots[round][rank];
    std::strncpy(slot.text, text.c_str(), kTextBytes - 1);
    slot.written.store(1);
    changed();
  }
  /// What ranks 0 .. size - 1 published. Throws when the deadline passes first.
  std::vector<std::string> collect(int round, int size, Deadline deadline) {
    std::vector<std::string> texts;
    for (int rank = 0; rank < size; ++rank) {
      Slot& slot = memory_->slots[round][rank];
      wait(deadline, [&] { return slot.written.load() != 0; });
      texts.emplace_back(slot.text);
    }
    return texts;
  }
  /// Counts up; `await` waits for a count.
  void mark(int which) {
    memory_->marks[which].fetch_add(1);
    changed();
  }
  void await(int which, int count, Deadline deadline) {
    wait(deadline, [&] { return memory_->marks[which].load() >= count; });
  }

 private:
  struct Slot {
    std::atomic<int> written;
    char text[kTextBytes];
  };
  struct Memory {
    std::atomic<std::uint32_t> changes;
    std::atomic<int> marks[kMaxMarks];
    Slot slots[kMaxRounds][kMaxRanks];
  };

  void changed() {
    memory_->changes.fetch_add(1);
    ::syscall(SYS_futex, &memory_->changes, FUTEX_WAKE, 1 << 20, nullptr, nullptr, 0);
  }
  template <class Ready>
  void wait(Deadline deadline, Ready ready) {
    while (true) {
      const std::uint32_t seen = memory_->changes.load();
      if (ready()) return;
      if (deadline.passed(steady_clock())) throw std::runtime_error("the test's ranks did not meet in time");
      timespec pause{0, 50'000'000};
      ::syscall(SYS_futex, &memory_->changes, FUTEX_WAIT, seen, &pause, nullptr, 0);
    }
  }

  Memory* memory_;
};

}  // namespace coxswain::collective
