#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <thread>

#include "collective/host/host_communicator.h"
#include "collective/host/socket.h"
#include "tests/collective/ranks.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::collective;

namespace {

constexpr int kReady = 0;  // marks on the board
constexpr int kDone = 1;
constexpr int kNever = 2;
constexpr int kPaired = 3;

/// The error of a wait, or one that says that there was none.
Error error_of(Handle handle) {
  const auto result = handle.wait(soon());
  return result ? Error{ErrorCode::Unknown, "no error", "", "", "", ""} : result.error();
}

void expect_error(Report& report, const Error& error, ErrorCode code, const std::string& text) {
  report.expect(error.code == code && error.message.find(text) != std::string::npos, "got: " + to_text(error));
}

std::size_t num_open_files() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

std::vector<std::string> nodes_of(const std::string& letters) {
  std::vector<std::string> nodes;
  for (const char letter : letters) nodes.emplace_back(1, letter);
  return nodes;
}

}  // namespace

TEST_CASE("kill -9 of a rank: every survivor names it, whatever it was waiting for") {
  const std::string nodes = GENERATE("aaaa", "aabb", "abab");
  const std::string operation = GENERATE("all_reduce", "exchange", "all_gather");
  CAPTURE(nodes, operation);
  constexpr int kVictim = 2;
  const auto body = [&](Rank& rank) {
    const auto communicator = rank.communicator();
    if (!communicator) return;
    std::vector<float> data(300000, 1.0f);
    const auto count = static_cast<std::int64_t>(data.size());
    const BufferView view{data.data(), count, DType::Float32};
    std::vector<float> gathered(data.size() * 4);
    Handle handle;
    // The victim takes part in one operation, so that all are connected, and then hangs.
    (void)communicator->barrier(soon()).wait(soon());
    if (rank.rank == kVictim) {
      rank.board.mark(kReady);
      rank.board.await(kNever, 1, soon());
      return;
    }
    if (operation == "all_reduce") handle = communicator->all_reduce(view, ReduceOp::Sum, soon());
    if (operation == "exchange") handle = communicator->recv(view, kVictim, soon());
    if (operation == "all_gather") {
      handle = communicator->all_gather(view, {gathered.data(), count * 4, DType::Float32},
                                        {count, count, count, count}, soon());
    }
    rank.board.mark(kReady);
    expect_error(rank.report, error_of(handle), ErrorCode::Unavailable, "lost rank 2");
    // It is dead for good, and says the same.
    expect_error(rank.report, error_of(communicator->barrier(soon())), ErrorCode::Unavailable, "lost rank 2");
    rank.board.mark(kDone);
    rank.board.await(kDone, 3, soon());
  };
  CHECK(run_processes(nodes_of(nodes), body, kVictim, [&](Board& board, const std::vector<pid_t>& processes) {
          board.await(kReady, 4, soon());
          ::kill(processes[kVictim], SIGKILL);
        }) == "");
}

TEST_CASE("survivors that leave one after another still name the rank that died first") {
  const auto body = [&](Rank& rank) {
    const auto communicator = rank.communicator();
    if (!communicator) return;
    (void)communicator->barrier(soon()).wait(soon());
    rank.board.mark(kReady);
    if (rank.rank == 0) rank.board.await(kNever, 1, soon());
    expect_error(rank.report, error_of(communicator->barrier(soon())), ErrorCode::Unavailable, "lost rank 0");
    // No waiting for the others here: their connections to this rank close as well.
  };
  CHECK(run_processes(nodes_of("aaabb"), body, 0, [&](Board& board, const std::vector<pid_t>& processes) {
          board.await(kReady, 5, soon());
          ::kill(processes[0], SIGKILL);
        }) == "");
}

TEST_CASE("abort frees blocked peers and every later operation, in communicators split from it too") {
  const std::string nodes = GENERATE("aaa", "abc", "aab");
  CAPTURE(nodes);
  CHECK(run_threads(nodes_of(nodes), [](Rank& rank) {
          const auto communicator = rank.communicator();
          if (!communicator) return;
          auto child = communicator->split({0, 1, 2}, soon());
          rank.report.expect(child.has_value(), "split failed");
          if (!child) return;
          if (rank.rank == 1) {
            rank.board.await(kReady, 2, soon());
            communicator->abort("the test says so");
            expect_error(rank.report, error_of(communicator->barrier(soon())), ErrorCode::Aborted, "the test says so");
            expect_error(rank.report, error_of((*child)->barrier(soon())), ErrorCode::Aborted, "the test says so");
          } else {
            Handle world = communicator->barrier(soon());
            Handle inner = (*child)->barrier(soon());
            rank.board.mark(kReady);
            expect_error(rank.report, error_of(world), ErrorCode::Aborted, "rank 1 ended the communicator");
            expect_error(rank.report, error_of(inner), ErrorCode::Aborted, "the test says so");
          }
          rank.board.mark(kDone);
          rank.board.await(kDone, 3, soon());
        }) == "");
}

TEST_CASE("abort from another thread frees this rank's own waiter") {
  CHECK(run_threads(nodes_of("aa"), [](Rank& rank) {
          const auto communicator = rank.communicator();
          if (!communicator) return;
          if (rank.rank == 0) {
            Handle blocked = communicator->barrier(soon());
            std::jthread other([&] { communicator->abort("from outside"); });
            expect_error(rank.report, error_of(blocked), ErrorCode::Aborted, "from outside");
          }
          rank.board.mark(kDone);
          rank.board.await(kDone, 2, soon());
        }) == "");
}

TEST_CASE("an operation that nobody joins ends at its deadline and names who was missing") {
  const std::string nodes = GENERATE("aa", "ab");
  CAPTURE(nodes);
  CHECK(run_threads(nodes_of(nodes), [](Rank& rank) {
          const auto communicator = rank.communicator();
          if (!communicator) return;
          if (rank.rank == 0)
            expect_error(rank.report, error_of(communicator->barrier(in_milliseconds(30))), ErrorCode::DeadlineExceeded,
                         "rank 1");
          if (rank.rank == 0) rank.board.mark(kReady);
          rank.board.await(kReady, 1, soon());
          // The other one learns that the communicator is over: at once, or, where rank 0's own arrival was still on
          // record, at the barrier after.
          if (rank.rank == 1) {
            const auto first = communicator->barrier(soon()).wait(soon());
            const Error error = first ? error_of(communicator->barrier(soon())) : first.error();
            expect_error(rank.report, error, ErrorCode::Aborted, "rank 0 ended the communicator");
          }
          rank.board.mark(kDone);
          rank.board.await(kDone, 2, soon());
        }) == "");
}

TEST_CASE("a waiter's own deadline ends the communicator") {
  CHECK(run_threads(nodes_of("aa"), [](Rank& rank) {
          const auto communicator = rank.communicator();
          if (!communicator) return;
          if (rank.rank == 0) {
            Handle handle = communicator->barrier(soon());
            const auto result = handle.wait(in_milliseconds(20));
            rank.report.expect(!result && result.error().code == ErrorCode::DeadlineExceeded, "no deadline");
            expect_error(rank.report, error_of(handle), ErrorCode::DeadlineExceeded, "barrier");
          }
          rank.board.mark(kDone);
          rank.board.await(kDone, 2, soon());
        }) == "");
}

TEST_CASE("a rank that leaves in good order is missed only by who waits for it") {
  const std::string nodes = GENERATE("aaa", "abc");
  CAPTURE(nodes);
  CHECK(run_threads(nodes_of(nodes), [](Rank& rank) {
          auto communicator = rank.communicator();
          if (!communicator) return;
          float value = 1;
          (void)communicator->all_reduce({&value, 1, DType::Float32}, ReduceOp::Sum, soon()).wait(soon());
          if (rank.rank == 2) {
            communicator.reset();
            rank.board.mark(kReady);
            return;
          }
          rank.board.await(kReady, 1, soon());
          // Ranks 0 and 1 still reach each other.
          Handle pair = rank.rank == 0 ? communicator->send({&value, 1, DType::Float32}, 1, soon())
                                       : communicator->recv({&value, 1, DType::Float32}, 0, soon());
          rank.report.expect(pair.wait(soon()).has_value(), "the others are cut off");
          rank.board.mark(kPaired);
          rank.board.await(kPaired, 2, soon());
          expect_error(rank.report, error_of(communicator->barrier(soon())), ErrorCode::Unavailable,
                       "lost rank 2: it left");
          rank.board.mark(kDone);
          rank.board.await(kDone, 2, soon());
        }) == "");
}

TEST_CASE("a communicator is rebuilt generation after generation and leaves nothing behind") {
  const std::string nodes = GENERATE("aaa", "aab");
  CAPTURE(nodes);
  CHECK(run_processes(nodes_of(nodes), [](Rank& rank) {
          std::size_t open_files = 0;
          for (int generation = 1; generation <= 20; ++generation) {
            auto communicator = rank.connect(rank.options(generation), generation);
            if (!communicator) return rank.report.expect(false, to_text(communicator.error()));
            auto pair = (*communicator)->split(rank.rank == 1 ? std::vector<int>{} : std::vector<int>{2, 0}, soon());
            rank.report.expect(pair.has_value(), "split failed");
            std::int64_t value = rank.rank == 0 ? 1 : rank.rank == 1 ? 10 : 100;
            (void)(*communicator)->all_reduce({&value, 1, DType::Int64}, ReduceOp::Sum, soon()).wait(soon());
            rank.report.expect(value == 111, "generation " + std::to_string(generation) + " has the wrong sum");
            // Every third generation ends by an abort.
            if (generation % 3 == 0 && rank.rank == 0) (*communicator)->abort("next generation");
            if (pair) pair->reset();
            communicator->reset();
            if (generation == 2) open_files = num_open_files();
          }
          rank.report.expect(num_open_files() == open_files, "descriptors leak");
          rank.board.mark(kDone);
          rank.board.await(kDone, 3, soon());
          rank.report.expect(std::filesystem::is_empty(rank.scratch), "files stay in the scratch folder");
        }) == "");
}

TEST_CASE("a rank with another key is refused on both sides") {
  const std::string nodes = GENERATE("aa", "ab");
  CAPTURE(nodes);
  CHECK(run_threads(nodes_of(nodes), [](Rank& rank) {
          EndpointOptions options = rank.options();
          if (rank.rank == 1) options.job_key = "another key";
          auto endpoint = open_endpoint(options);
          rank.board.publish(0, rank.rank, (*endpoint)->address());
          const auto addresses = rank.board.collect(0, 2, soon());
          const auto result = (*endpoint)->connect(addresses, rank.rank == 0 ? in_milliseconds(300) : soon());
          if (result) return rank.report.expect(false, "connected");
          expect_error(rank.report, result.error(), ErrorCode::Unauthenticated, "");
          rank.report.expect(to_text(result.error()).find("another key") == std::string::npos, "a key is shown");
          rank.board.mark(kDone);
          rank.board.await(kDone, 2, soon());
        }) == "");
}

TEST_CASE("a rank of a stale generation, another run or no key is refused") {
  CHECK(run_threads(nodes_of("aa"), [](Rank& rank) {
          for (int round = 0; round < 2; ++round) {
            EndpointOptions options = rank.options(2);
            if (rank.rank == 1 && round == 0) options.generation = 1;
            if (rank.rank == 1 && round == 1) options.run_id = "another-run";
            auto endpoint = open_endpoint(options);
            rank.board.publish(round, rank.rank, (*endpoint)->address());
            const auto addresses = rank.board.collect(round, 2, soon());
            const auto result = (*endpoint)->connect(addresses, rank.rank == 0 ? in_milliseconds(200) : soon());
            if (result) return rank.report.expect(false, "connected");
            if (rank.rank == 1)
              expect_error(rank.report, result.error(), ErrorCode::FailedPrecondition,
                           round == 0 ? "another generation" : "another run");
            if (rank.rank == 0 && round == 0)
              expect_error(rank.report, result.error(), ErrorCode::FailedPrecondition, "not connected to by rank 1");
            if (rank.rank == 0 && round == 1)
              expect_error(rank.report, result.error(), ErrorCode::DeadlineExceeded, "not connected to by rank 1");
            rank.board.mark(kDone);
            rank.board.await(kDone, 2 * round + 2, soon());
          }
        }) == "");
  EndpointOptions keyless;
  keyless.size = 2;
  const auto refused = open_endpoint(keyless);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == ErrorCode::FailedPrecondition);
}

TEST_CASE("strangers that say nothing, or nonsense, keep nobody out") {
  CHECK(run_threads(nodes_of("aab"), [](Rank& rank) {
          auto endpoint = open_endpoint(rank.options());
          rank.board.publish(0, rank.rank, (*endpoint)->address());
          const auto addresses = rank.board.collect(0, 3, soon());
          std::vector<UniqueFd> strangers;
          if (rank.rank == 2) {
            for (int target = 0; target < 2; ++target) {
              const auto address = parse_host_address(addresses[static_cast<std::size_t>(target)]);
              for (int i = 0; i < 10; ++i) {
                auto by_tcp = connect_tcp(address->tcp, soon());
                auto by_path = connect_unix(address->unix_path, soon());
                rank.report.expect(by_tcp && by_path, "cannot reach a rank");
                if (!by_tcp || !by_path) return;
                const std::string nonsense(static_cast<std::size_t>(i) * 60, 'x');
                (void)send_all(*by_tcp, std::as_bytes(std::span(nonsense)), {}, soon());
                (void)send_all(*by_path, std::as_bytes(std::span(nonsense)), {}, soon());
                strangers.push_back(std::move(*by_tcp));
                strangers.push_back(std::move(*by_path));
              }
            }
          }
          auto communicator = (*endpoint)->connect(addresses, soon());
          if (!communicator) return rank.report.expect(false, to_text(communicator.error()));
          std::int64_t value = rank.rank == 0 ? 1 : rank.rank == 1 ? 10 : 100;
          (void)(*communicator)->all_reduce({&value, 1, DType::Int64}, ReduceOp::Sum, soon()).wait(soon());
          rank.report.expect(value == 111, "wrong sum");
        }) == "");
}

TEST_CASE("sockets work in a folder whose path is longer than a socket's address") {
  CHECK(run_threads(nodes_of("aa"), [](Rank& rank) {
          EndpointOptions options = rank.options();
          options.scratch_dir += "/" + std::string(150, 'd');
          std::filesystem::create_directories(options.scratch_dir);
          auto communicator = rank.connect(options);
          if (!communicator) return rank.report.expect(false, to_text(communicator.error()));
          rank.report.expect((*communicator)->barrier(soon()).wait(soon()).has_value(), "barrier failed");
        }) == "");
}

TEST_CASE("shared memory collectives take the steps and bytes of their cost") {
  const int size = GENERATE(2, 3, 4);
  CAPTURE(size);
  CHECK(run_threads(one_node(size), [](Rank& rank) {
          const auto communicator = rank.communicator();
          if (!communicator) return;
          auto& host = static_cast<HostCommunicator&>(*communicator);
          const std::int64_t payload = 64 * 3 * 4 * 8192;  // divides into slices for 2, 3 and 4 ranks; two chunks
          std::vector<std::byte> data(static_cast<std::size_t>(payload)), whole(static_cast<std::size_t>(payload));
          const std::vector<std::int64_t> counts(static_cast<std::size_t>(rank.size), payload / rank.size);
          const BufferView view{data.data(), payload, DType::UInt8};
          const BufferView piece{whole.data(), payload / rank.size, DType::UInt8};
          StageTraffic before = host.shared_traffic();
          const auto expect_cost = [&](CollectiveKind kind, Bytes bytes, bool sends) {
            const AlgorithmCost cost = cost_of(kind, Algorithm::SharedMemory, bytes, rank.size);
            const StageTraffic after = host.shared_traffic();
            const std::string name = "kind " + std::to_string(static_cast<int>(kind)) + ": ";
            rank.report.expect(after.num_steps - before.num_steps == cost.num_steps,
                               name + std::to_string(after.num_steps - before.num_steps) + " steps, not " +
                                   std::to_string(cost.num_steps));
            if (sends)
              rank.report.expect(after.sent_bytes - before.sent_bytes == cost.sent_bytes.value,
                                 name + std::to_string(after.sent_bytes - before.sent_bytes) + " bytes, not " +
                                     std::to_string(cost.sent_bytes.value));
            before = after;
          };
          (void)communicator->all_reduce(view, ReduceOp::Sum, soon()).wait(soon());
          expect_cost(CollectiveKind::AllReduce, Bytes(payload), true);
          (void)communicator->all_reduce({data.data(), 1000, DType::UInt8}, ReduceOp::Sum, soon()).wait(soon());
          expect_cost(CollectiveKind::AllReduce, Bytes(1000), true);
          (void)communicator->all_gather(piece, view, counts, soon()).wait(soon());
          expect_cost(CollectiveKind::AllGather, Bytes(payload), true);
          (void)communicator->reduce_scatter(view, piece, counts, ReduceOp::Sum, soon()).wait(soon());
          expect_cost(CollectiveKind::ReduceScatter, Bytes(payload), true);
          (void)communicator->broadcast(view, 1, soon()).wait(soon());
          expect_cost(CollectiveKind::Broadcast, Bytes(payload), rank.rank == 1);
          (void)communicator->barrier(soon()).wait(soon());
          expect_cost(CollectiveKind::Barrier, Bytes(0), true);
        }) == "");
}

TEST_CASE("completions raise the signal") {
  CHECK(run_threads(nodes_of("aa"), [](Rank& rank) {
          CompletionSignal signal;
          EndpointOptions options = rank.options();
          options.signal = &signal;
          auto communicator = rank.connect(options);
          if (!communicator) return rank.report.expect(false, to_text(communicator.error()));
          const std::uint64_t before = signal.count();
          Handle one = (*communicator)->barrier(soon());
          Handle two = (*communicator)->barrier(soon());
          for (std::uint64_t seen = before; seen < before + 2; seen = signal.count()) {
            if (!signal.wait_change(seen, soon())) return rank.report.expect(false, "no signal");
          }
          rank.report.expect(one.done() && two.done() && signal.count() == before + 2, "one raise a completion");
          rank.report.expect(!signal.wait_change(signal.count(), in_milliseconds(5)), "raised without cause");
        }) == "");
}
