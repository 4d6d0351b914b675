#include "launcher/control/train.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <iostream>

#include "common/clock.h"
#include "common/hash.h"
#include "common/log.h"
#include "launcher/control/console.h"
#include "launcher/control/devices.h"
#include "launcher/control/follow.h"
#include "launcher/control/resume.h"
#include "launcher/control/run_directory.h"
#include "launcher/job/job_data.h"
#include "launcher/job/job_model.h"
#include "launcher/planning/planning_inputs.h"

namespace coxswain::launcher {
namespace {

struct Prepared {
  CoordinatorStart coordinator;
  AgentStart agent;
  std::optional<ScratchFolder> scratch;
};

std::string absolute_or_empty(const std::filesystem::path& path) {
  return path.empty() ? "" : std::filesystem::absolute(path).string();
}

/// Where this node is, the key, the programs: what every mode needs. Nothing is started yet.
Result<Prepared> prepare(RunMode mode, const NodeOptions& nodes, const std::string& devices, int processes,
                         const std::filesystem::path& worker_program) {
  Prepared prepared;
  COX_TRY(prepared.scratch, ScratchFolder::make());
  COX_TRY(prepared.agent.worker_program, find_worker_program(worker_program));
  prepared.agent.scratch_dir = prepared.scratch->path();
  prepared.agent.devices = devices;
  prepared.agent.processes_per_node = processes;
  prepared.agent.node_rank = 0;
  prepared.agent.local = true;
  prepared.agent.local_addr = nodes.local_addr;
  proto::Secret secret{random_hex(32), false};
  if (!nodes.token_file.empty()) {
    COX_TRY(secret.text, read_token(nodes.token_file));
    secret.is_token = true;
  }
  prepared.agent.secret = secret;
  prepared.coordinator.secret = secret;
  prepared.coordinator.mode = mode;
  prepared.coordinator.run_id = random_hex(8);
  prepared.coordinator.num_nodes = nodes.num_nodes;
  prepared.coordinator.max_nodes = nodes.max_nodes;
  prepared.coordinator.listen = nodes.rdzv_endpoint.empty() ? "127.0.0.1:0" : nodes.rdzv_endpoint;
  return prepared;
}

/// What can be refused before any process or file exists is refused here.
Result<void> check_devices(const std::string& spec, int processes) {
  COX_TRY(const auto devices,
          prepare_devices(spec, processes, cluster::take_inventory(), "coxswain-check-" + random_hex(4)));
  return {};
}

/// The model's hash.
Result<std::string> check_files(const Job& job) {
  COX_TRY(const auto graph, load_job_model(job));
  if (auto problems = check_data(job, graph); !problems.empty())
    return combine_errors(ErrorCode::InvalidArgument, "the data do not fit the model", std::move(problems));
  return model::model_hash(graph);
}

/// Where checkpoints go and where training begins.
Result<void> set_checkpoints(CoordinatorStart& coordinator, const TrainRequest& request,
                             const std::filesystem::path& run_dir, std::string model_hash, const NodeOptions& nodes) {
  ResumeRequest resume;
  resume.resume = request.resume;
  resume.is_new = request.job.checkpoint.directory.empty();
  resume.directory = resume.is_new ? run_dir / "checkpoints" : request.job.checkpoint.directory;
  resume.model_hash = model_hash;
  resume.steps = request.job.steps;
  resume.num_nodes = std::max(nodes.num_nodes, nodes.max_nodes);
  COX_TRY(const ResumePoint point, find_resume_point(resume));
  for (const Error& rejected : point.rejected) {
    log(LogLevel::Warn, "train", "left aside: " + rejected.message + " (" + rejected.path + ")");
    coordinator.rejected.push_back(rejected.path + ": " + rejected.message);
  }
  coordinator.checkpoint_directory = std::filesystem::absolute(resume.directory);
  coordinator.resume_from = point.folder;
  coordinator.resume_step = point.step;
  coordinator.resume_asks_nodes = point.asks_nodes;
  coordinator.model_hash = std::move(model_hash);
  coordinator.min_nodes = std::max(request.job.min_nodes, nodes.min_nodes);
  coordinator.max_restarts = request.max_restarts.value_or(request.job.max_restarts);
  return {};
}

void print_resolved(const std::vector<ResolvedValue>& values, const std::string& devices) {
  std::string text = "resolved:";
  for (const auto& value : values) text += " " + value.name + "=" + value.value + " (" + value.source + ")";
  text += " devices=" + (devices.empty() ? "auto (default)" : devices + " (flag)");
  log(LogLevel::Info, "train", text);
}

AgentRequest agent_only(const NodeOptions& nodes, const std::string& devices, int processes,
                        const std::filesystem::path& worker_program) {
  AgentRequest agent;
  agent.coordinator = nodes.rdzv_endpoint;
  agent.devices = devices;
  agent.processes_per_node = processes;
  agent.token_file = nodes.token_file;
  agent.local_addr = nodes.local_addr;
  agent.node_rank = nodes.node_rank;
  agent.worker_program = worker_program;
  return agent;
}

double number_in(const JsonObject& object, const std::string& key) {
  const auto found = object.find(key);
  return found != object.end() && found->second.is_number() ? found->second.number() : 0.0;
}

std::string bytes_by_rank(const JsonObject& outcome, const std::string& key) {
  std::string text;
  const auto found = outcome.find(key);
  if (found == outcome.end() || !found->second.is_array()) return text;
  for (const Json& bytes : found->second.array()) text += (text.empty() ? "" : ", ") + memory_text(bytes.integer());
  return text;
}

void print_goodput(const JsonObject& told) {
  const auto lines = told.find("goodput");
  if (lines == told.end() || !lines->second.is_array()) return;
  for (const Json& line : lines->second.array()) std::cout << line.string() << "\n";
  std::cout << std::flush;
}

void print_report(const TrainOutcome& outcome, const JsonObject& told) {
  char line[256];
  std::snprintf(line, sizeof line, "done: %lld steps, loss %.4f", static_cast<long long>(outcome.steps), outcome.loss);
  std::cout << line;
  if (outcome.validation_loss) {
    std::snprintf(line, sizeof line, ", validation loss %.4f", *outcome.validation_loss);
    std::cout << line;
  }
  const double error =
      outcome.median_step_seconds > 0 ? 100 * (outcome.predicted_step_seconds / outcome.median_step_seconds - 1) : 0;
  std::snprintf(line, sizeof line, "\nstep: median %.1f ms, predicted %.1f ms (%+.1f %%)\n",
                outcome.median_step_seconds * 1e3, outcome.predicted_step_seconds * 1e3, error);
  std::cout << line << "peak memory by rank: " << bytes_by_rank(told, "peak_memory_bytes") << " (predicted "
            << bytes_by_rank(told, "predicted_peak_memory_bytes") << "; resident set "
            << bytes_by_rank(told, "resident_bytes") << ")\n"
            << "files: " << outcome.run_dir.string() << "\n";
  print_goodput(told);
  if (const auto trace = told.find("trace"); trace != told.end())
    std::cout << "trace: " << (outcome.run_dir / trace->second.string()).string()
              << " (open it in ui.perfetto.dev or chrome://tracing)\n";
  std::cout << std::flush;
}

}  // namespace

Result<TrainOutcome> run_train(const TrainRequest& request) {
  ::umask(0077);
  const TimePoint began = steady_clock().now();
  NodeOptions nodes = request.nodes;
  // A job may let more nodes in than it begins with; where they meet is said on the command line.
  if (!nodes.rdzv_endpoint.empty()) nodes.max_nodes = std::max(nodes.max_nodes, request.job.max_nodes);
  COX_TRY(const auto resolved, resolve_nodes(nodes));
  TrainOutcome outcome;
  outcome.run_dir = request.run_dir.empty() ? default_run_directory(request.job.name, steady_clock()) : request.run_dir;
  if (nodes.node_rank > 0) {
    print_resolved(resolved, request.devices);
    AgentRequest agent = agent_only(nodes, request.devices, request.processes_per_node, request.worker_program);
    if (request.run_dir.empty()) outcome.run_dir += "-node" + std::to_string(nodes.node_rank);
    agent.run_dir = outcome.run_dir;
    agent.tee = request.tee;
    agent.metrics = request.metrics;
    agent.join_timeout_seconds = request.join_timeout_seconds;
    COX_TRY(outcome.exit_code, run_agent(agent));
    return outcome;
  }

  COX_TRY(std::string model_hash, check_files(request.job));
  // Read again by the coordinator; here it fails before anything starts.
  if (auto merged = merge_constraints(request.job.constraints, request.constraints); !merged) return merged.error();
  const std::filesystem::path plan_file = request.plan_file.empty() ? request.job.plan_file : request.plan_file;
  if (!plan_file.empty()) {
    if (auto plan = load_plan(plan_file.string()); !plan) return plan.error();
  }
  COX_TRY_VOID(check_devices(request.devices, request.processes_per_node));
  COX_TRY(Prepared prepared,
          prepare(RunMode::Train, nodes, request.devices, request.processes_per_node, request.worker_program));
  CoordinatorStart& coordinator = prepared.coordinator;
  coordinator.began = began;
  coordinator.join_timeout_seconds = request.join_timeout_seconds;
  coordinator.shutdown_timeout_seconds = request.shutdown_timeout_seconds;
  coordinator.backend = request.backend;
  coordinator.trace_steps = request.trace_steps;
  coordinator.job_file = absolute_or_empty(request.job.file);
  coordinator.job_text = to_yaml(request.job);
  coordinator.constraints = with_absolute_paths(request.constraints);
  coordinator.plan_file = absolute_or_empty(plan_file);
  coordinator.cluster_file = absolute_or_empty(request.cluster_file);
  COX_TRY_VOID(set_checkpoints(coordinator, request, outcome.run_dir, std::move(model_hash), nodes));
  const bool existed = std::filesystem::exists(outcome.run_dir);
  COX_TRY_VOID(make_run_directory(outcome.run_dir));
  coordinator.run_dir = std::filesystem::absolute(outcome.run_dir);
  prepared.agent.log_dir =
      request.log_dir.empty() ? coordinator.run_dir / "logs" : std::filesystem::absolute(request.log_dir);
  prepared.agent.tee = request.tee;
  prepared.agent.metrics = request.metrics;
  prepared.agent.join_timeout_seconds = request.join_timeout_seconds;
  print_resolved(resolved, request.devices);

  auto followed = start_and_follow(coordinator, std::move(prepared.agent));
  std::error_code ignored;
  if (!existed && std::filesystem::is_empty(coordinator.run_dir, ignored))
    std::filesystem::remove(coordinator.run_dir, ignored);  // it never began
  if (!followed) return followed.error();
  const JsonObject& told = followed->outcome;
  outcome.steps = static_cast<std::int64_t>(number_in(told, "steps"));
  outcome.loss = number_in(told, "loss");
  if (told.contains("validation_loss")) outcome.validation_loss = number_in(told, "validation_loss");
  outcome.median_step_seconds = number_in(told, "median_step_seconds");
  outcome.predicted_step_seconds = number_in(told, "predicted_step_seconds");
  if (followed->signal != 0 || followed->error) print_goodput(told);
  if (followed->signal != 0) {
    if (followed->error) std::cerr << to_text(*followed->error) << std::flush;
    const double told_code = number_in(told, "exit_code");
    outcome.exit_code = static_cast<ExitCode>(told_code > 0 ? static_cast<int>(told_code) : 128 + followed->signal);
    return outcome;
  }
  if (followed->error) return *followed->error;
  print_report(outcome, told);
  return outcome;
}

Result<ProbeOutcome> run_probe(const ProbeRequest& request) {
  ::umask(0077);
  NodeOptions nodes = request.nodes;
  COX_TRY(const auto resolved, resolve_nodes(nodes));
  ProbeOutcome outcome;
  if (nodes.node_rank > 0) {
    COX_TRY(const ExitCode code, run_agent(agent_only(nodes, request.devices, 0, request.worker_program)));
    if (code != ExitCode::Done)
      return Error{ErrorCode::Unavailable, "the probe failed", "", "", "", "see the output of node 0"};
    return outcome;
  }
  if (request.job) {
    COX_TRY(const std::string hash, check_files(*request.job));
    static_cast<void>(hash);
  }
  COX_TRY_VOID(check_devices(request.devices, 0));
  COX_TRY(Prepared prepared, prepare(RunMode::Probe, nodes, request.devices, 0, request.worker_program));
  prepared.coordinator.backend = request.backend;
  if (request.job) {
    prepared.coordinator.job_file = absolute_or_empty(request.job->file);
    prepared.coordinator.job_text = to_yaml(*request.job);
  }
  COX_TRY(const Followed followed, start_and_follow(prepared.coordinator, std::move(prepared.agent)));
  if (followed.error) return *followed.error;
  const auto resources = followed.outcome.find("resources");
  if (resources == followed.outcome.end()) return Error{ErrorCode::Internal, "the probe told nothing", "", "", "", ""};
  COX_TRY(outcome.resources, cluster::resource_graph_from_json(resources->second));
  if (const auto profile = followed.outcome.find("profile"); profile != followed.outcome.end()) {
    COX_TRY(outcome.profile, cluster::profile_from_json(profile->second));
  }
  return outcome;
}

Result<CheckOutcome> run_check(const std::filesystem::path& pt2, const std::filesystem::path& worker_program) {
  ::umask(0077);
  NodeOptions nodes;
  nodes.num_nodes = 1;
  nodes.node_rank = 0;
  COX_TRY(Prepared prepared, prepare(RunMode::Check, nodes, "1xcpu", 0, worker_program));
  prepared.coordinator.pt2 = std::filesystem::absolute(pt2);
  COX_TRY(const Followed followed, start_and_follow(prepared.coordinator, std::move(prepared.agent)));
  if (followed.error) return *followed.error;
  const auto found = followed.outcome.find("check");
  if (found == followed.outcome.end())
    return Error{ErrorCode::Internal, "the check told nothing", pt2.string(), "", "", ""};
  JsonReader reader(found->second, "check");
  CheckOutcome outcome;
  outcome.loss = reader.number("loss");
  outcome.recorded_loss = reader.number("recorded_loss");
  outcome.grad_norm = reader.number("grad_norm");
  outcome.recorded_grad_norm = reader.number("recorded_grad_norm");
  outcome.worst_gradient_error = reader.number("worst_gradient_error");
  outcome.worst_parameter = reader.string("worst_parameter");
  outcome.passed = reader.boolean("passed");
  COX_TRY_VOID(reader.finish());
  return outcome;
}

}  // namespace coxswain::launcher
