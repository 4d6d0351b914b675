#include "launcher/control/journal.h"

#include <sqlite3.h>

#include <algorithm>

namespace coxswain::launcher {
namespace {

constexpr int kFormat = 1;

struct StatementEnder {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Statement = std::unique_ptr<sqlite3_stmt, StatementEnder>;

Error disk_error(sqlite3* database, const std::filesystem::path& file) {
  const std::string got = database == nullptr ? "no memory" : sqlite3_errmsg(database);
  return Error{ErrorCode::FailedPrecondition,
               "cannot write what the coordinator was told",
               file.string(),
               "a disk with room, a folder of this user",
               got,
               "make room or name another --run-dir, then go on with --resume"};
}

Error damaged(const std::filesystem::path& file, std::string expected, std::string got) {
  return Error{ErrorCode::DataLoss, "the coordinator's journal is damaged",
               file.string(),       std::move(expected),
               std::move(got),      "start the run again with --resume: checkpoints do not depend on it"};
}

Statement prepare(sqlite3* database, const char* text) {
  sqlite3_stmt* statement = nullptr;
  sqlite3_prepare_v2(database, text, -1, &statement, nullptr);
  return Statement(statement);
}

bool execute(sqlite3* database, const char* text) {
  return sqlite3_exec(database, text, nullptr, nullptr, nullptr) == SQLITE_OK;
}

/// The first column of the first row; "" where there is none.
std::string first_text(sqlite3* database, const char* text) {
  const Statement statement = prepare(database, text);
  if (!statement || sqlite3_step(statement.get()) != SQLITE_ROW) return "";
  const unsigned char* value = sqlite3_column_text(statement.get(), 0);
  return value == nullptr ? "" : std::string(reinterpret_cast<const char*>(value));
}

bool bind_and_step(sqlite3_stmt* statement, const Input& input) {
  const std::int64_t at = std::chrono::duration_cast<std::chrono::nanoseconds>(input.at.time_since_epoch()).count();
  sqlite3_reset(statement);
  sqlite3_bind_int64(statement, 1, at);
  sqlite3_bind_int(statement, 2, static_cast<int>(input.kind));
  sqlite3_bind_int(statement, 3, input.agent);
  sqlite3_bind_int64(statement, 4, static_cast<std::int64_t>(input.number));
  sqlite3_bind_int64(statement, 5, input.step);
  sqlite3_bind_blob64(statement, 6, input.body.data(), input.body.size(), SQLITE_STATIC);
  return sqlite3_step(statement) == SQLITE_DONE;
}

bool insert(sqlite3* database, const std::vector<Input>& inputs) {
  const Statement statement =
      prepare(database, "INSERT INTO inputs (at, kind, agent, number, step, body) VALUES (?, ?, ?, ?, ?, ?)");
  return statement != nullptr && std::all_of(inputs.begin(), inputs.end(),
                                             [&](const Input& input) { return bind_and_step(statement.get(), input); });
}

}  // namespace

void Journal::Closer::operator()(sqlite3* database) const { sqlite3_close_v2(database); }

Result<Journal> Journal::open(const std::filesystem::path& file, const std::string& run_id) {
  sqlite3* opened = nullptr;
  const int code =
      sqlite3_open_v2(file.c_str(), &opened, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  Journal journal(file, std::unique_ptr<sqlite3, Closer>(opened));
  if (code != SQLITE_OK) return disk_error(opened, file);
  if (const std::string said = first_text(opened, "PRAGMA integrity_check"); said != "ok")
    return damaged(file, "an SQLite file that is whole", said.empty() ? sqlite3_errmsg(opened) : said);
  // A commit is in the system's hands, which outlive this process; only the loss of the machine can take the last.
  if (!execute(opened,
               "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
               "CREATE TABLE IF NOT EXISTS run (id TEXT NOT NULL, format INTEGER NOT NULL);"
               "CREATE TABLE IF NOT EXISTS inputs (sequence INTEGER PRIMARY KEY, at INTEGER NOT NULL,"
               " kind INTEGER NOT NULL, agent INTEGER NOT NULL, number INTEGER NOT NULL, step INTEGER NOT NULL, body "
               "BLOB NOT NULL);"))
    return disk_error(opened, file);
  if (first_text(opened, "SELECT count(*) FROM run") == "0") {
    const Statement insert = prepare(opened, "INSERT INTO run VALUES (?, ?)");
    if (!insert) return disk_error(opened, file);
    sqlite3_bind_text(insert.get(), 1, run_id.c_str(), -1, SQLITE_STATIC);
    sqlite3_bind_int(insert.get(), 2, kFormat);
    if (sqlite3_step(insert.get()) != SQLITE_DONE) return disk_error(opened, file);
  }
  if (const std::string found = first_text(opened, "SELECT id || ', format ' || format FROM run");
      found != run_id + ", format " + std::to_string(kFormat))
    return damaged(file, "the journal of run " + run_id + ", format " + std::to_string(kFormat), found);
  return journal;
}

Result<std::vector<Input>> Journal::inputs() const {
  const Statement select =
      prepare(database_.get(), "SELECT at, kind, agent, number, step, body FROM inputs ORDER BY sequence");
  if (!select) return damaged(file_, "its inputs", sqlite3_errmsg(database_.get()));
  std::vector<Input> inputs;
  int code = SQLITE_ROW;
  while ((code = sqlite3_step(select.get())) == SQLITE_ROW) {
    Input input;
    input.at = TimePoint(std::chrono::nanoseconds(sqlite3_column_int64(select.get(), 0)));
    input.kind = static_cast<InputKind>(sqlite3_column_int(select.get(), 1));
    input.agent = sqlite3_column_int(select.get(), 2);
    input.number = static_cast<std::uint64_t>(sqlite3_column_int64(select.get(), 3));
    input.step = sqlite3_column_int64(select.get(), 4);
    const int size = sqlite3_column_bytes(select.get(), 5);
    if (size > 0)
      input.body.assign(static_cast<const char*>(sqlite3_column_blob(select.get(), 5)), static_cast<std::size_t>(size));
    inputs.push_back(std::move(input));
  }
  if (code != SQLITE_DONE) return damaged(file_, "its inputs", sqlite3_errmsg(database_.get()));
  return inputs;
}

Result<void> Journal::add(const std::vector<Input>& inputs) {
  return in_transaction([&] { return insert(database_.get(), inputs); });
}

Result<void> Journal::replace_steps(std::int64_t step, const Input& taken) {
  return in_transaction([&] {
    // A generation begins with the place that it recovers to; the first one has none. What followed from a plan, or
    // from a look at steps, depended on the steps before it.
    const Statement drop = prepare(database_.get(),
                                   "DELETE FROM inputs WHERE ((step > 0 AND step <= ?) OR kind = ?) AND sequence >"
                                   " (SELECT coalesce(max(sequence), 0) FROM inputs WHERE kind IN (?, ?, ?, ?))");
    if (!drop) return false;
    sqlite3_bind_int64(drop.get(), 1, step);
    sqlite3_bind_int(drop.get(), 2, static_cast<int>(InputKind::StepsTaken));
    int place = 3;
    for (const InputKind kind :
         {InputKind::RecoveryFound, InputKind::PlanChosen, InputKind::PlanFailed, InputKind::Calibrated})
      sqlite3_bind_int(drop.get(), place++, static_cast<int>(kind));
    return sqlite3_step(drop.get()) == SQLITE_DONE && insert(database_.get(), {taken});
  });
}

Result<void> Journal::in_transaction(const std::function<bool()>& write) {
  if (execute(database_.get(), "BEGIN IMMEDIATE") && write() && execute(database_.get(), "COMMIT")) return {};
  Error error = disk_error(database_.get(), file_);
  execute(database_.get(), "ROLLBACK");
  return error;
}

void Journal::remove() {
  database_.reset();
  std::error_code ignored;
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(file_.string() + suffix, ignored);
}

}  // namespace coxswain::launcher
