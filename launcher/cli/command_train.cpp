// launch train, probe, agent and the hidden verbs: everything that starts processes.
#include <CLI/CLI.hpp>

#include <cstdio>

#include "common/bytes_io.h"
#include "launcher/cli/command.h"
#include "launcher/cli/hostfile.h"
#include "launcher/cli/remote_job.h"
#include "launcher/control/local_start.h"
#include "launcher/control/node_environment.h"
#include "launcher/control/train.h"
#include "launcher/job/job_model.h"
#include "launcher/rest/joined_node.h"

namespace coxswain::launcher {
namespace {

void add_device_option(CLI::App& command, std::string& devices) {
  command.add_option("--devices", devices, "`2xcpu`, `cpu@1.0,cpu@0.4`, `8xcuda`, `cuda:0-3`, `auto`");
}

void add_metrics_option(CLI::App& command, std::string& metrics) {
  command.add_option("--metrics", metrics,
                     "ADDRESS:PORT where this node's agent serves /metrics for Prometheus (nowhere)");
}

void add_node_options(CLI::App& command, NodeOptions& nodes) {
  command.add_option_function<std::string>(
      "--nnodes",
      [&nodes](const std::string& text) {
        const auto range = parse_node_range(text);
        if (!range) throw CLI::ValidationError("--nnodes", "expected a number of nodes or MIN:MAX, got `" + text + "`");
        set_node_range(nodes, *range);
      },
      "number of nodes; the same line runs on each (1). MIN:MAX: begins with MIN or more, takes up to MAX while it "
      "trains");
  command.add_option("--node-rank", nodes.node_rank, "this node's rank; rank 0 coordinates")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--rdzv-endpoint,--master-addr", nodes.rdzv_endpoint, "HOST:PORT of node 0 (port 29400)");
  command.add_option("--local-addr", nodes.local_addr, "address that other nodes reach this one by");
  command.add_option("--token-file", nodes.token_file, "secret shared by the nodes (needed for several)");
}

struct TrainOptions {
  std::string job;
  TrainRequest request;
  std::string processes = "auto";
  bool standalone = false;
  std::string hostfile;
  std::string trace_steps;
  bool traces = false;
};

/// The hostfile gives order and slots; what flags say holds over it.
Result<void> apply_hostfile(const TrainOptions& options, TrainRequest& request) {
  if (options.hostfile.empty()) return {};
  COX_TRY(std::string text, read_file(options.hostfile));
  COX_TRY(auto hosts, parse_hostfile(text, options.hostfile));
  auto& nodes = request.nodes;
  if (nodes.num_nodes == 0) nodes.num_nodes = static_cast<int>(hosts.size());
  if (nodes.rdzv_endpoint.empty()) nodes.rdzv_endpoint = hosts.front().name;
  if (nodes.node_rank < 0) nodes.node_rank = find_this_host(hosts);
  if (nodes.node_rank < 0)
    return usage_error("this machine is not in the hostfile", "a line with this machine's host name, or --node-rank R",
                       options.hostfile, "add it, or say which line this node is with --node-rank");
  if (nodes.node_rank < static_cast<int>(hosts.size()) && request.devices.empty() && request.processes_per_node == 0)
    request.processes_per_node = hosts[static_cast<std::size_t>(nodes.node_rank)].slots;
  return {};
}

Result<ExitCode> train(const TrainOptions& options) {
  TrainRequest request = options.request;
  COX_TRY(request.job, load_job_argument(options.job));
  if (options.processes != "auto") {
    if (options.processes.find_first_not_of("0123456789") != std::string::npos || options.processes.size() > 4 ||
        std::stoi(options.processes) < 1)
      return usage_error("wrong --nproc-per-node", "a number or `auto`", options.processes, "");
    request.processes_per_node = std::stoi(options.processes);
  }
  if (options.standalone && std::max(request.nodes.num_nodes, request.nodes.max_nodes) > 1)
    return usage_error("--standalone means one node", "no --nnodes", std::to_string(request.nodes.num_nodes),
                       "leave one of them out");
  if (options.traces) {
    auto steps = parse_trace_steps(options.trace_steps, request.job.steps);
    if (!steps)
      return usage_error(steps.error().message, steps.error().expected, steps.error().got, steps.error().hint);
    request.trace_steps = *steps;
  }
  COX_TRY_VOID(apply_hostfile(options, request));
  if (!request.plan_file.empty()) request.job.plan_file = request.plan_file;
  COX_TRY(auto outcome, run_train(request));
  return outcome.exit_code;
}

struct ProbeOptions {
  ProbeRequest request;
  std::string job, out, format = "table", inventory;
};

std::string rate_text(double value, const char* unit) {
  char text[40];
  std::snprintf(text, sizeof text, "%.1f G%s/s", value / 1e9, unit);
  return text;
}

std::string to_table(const cluster::ResourceGraph& graph) {
  std::string text = "device class      count  memory GiB  bandwidth     matmul float32  overhead us  source\n";
  char line[240];
  for (std::size_t c = 0; c < graph.device_classes.size(); ++c) {
    const auto& d = graph.device_classes[c];
    std::snprintf(line, sizeof line, "%-16s %6lld  %10.2f  %-12s  %-14s  %11.2f  %s\n", d.name.c_str(),
                  static_cast<long long>(cluster::num_devices(graph, static_cast<int>(c))),
                  static_cast<double>(d.memory.value.value) / (1 << 30),
                  rate_text(d.memory_bandwidth.value.value, "B").c_str(),
                  rate_text(d.peak_float32.value.value, "FLOP").c_str(), d.launch_overhead.value.value * 1e6,
                  std::string(cluster::to_text(d.peak_float32.source)).c_str());
    text += line;
  }
  const auto add_link = [&](const std::string& where, const cluster::LinkClass& link) {
    std::snprintf(line, sizeof line, "link %-24s %-14s latency %8.1f us  bandwidth %-12s %s\n", where.c_str(),
                  link.name.c_str(), link.latency.value.value * 1e6, rate_text(link.bandwidth.value.value, "B").c_str(),
                  std::string(cluster::to_text(link.bandwidth.source)).c_str());
    text += line;
  };
  for (const auto& node : graph.node_classes) add_link("inside " + node.name, node.link);
  for (const auto& tier : graph.tiers) add_link("between nodes", tier.link);
  for (const auto& other : graph.link_overrides)
    add_link("node " + std::to_string(other.node_a) + " to " + std::to_string(other.node_b), other.link);
  return text;
}

Result<ExitCode> probe(const ProbeOptions& options) {
  ProbeRequest request = options.request;
  if (!options.job.empty()) {
    COX_TRY(auto job, load_job_argument(options.job));
    request.job = std::move(job);
  }
  COX_TRY(auto outcome, run_probe(request));
  if (outcome.resources.device_classes.empty()) return ExitCode::Done;  // a node other than 0
  const std::string json = to_text(cluster::to_json(outcome.resources), 2) + "\n";
  if (!options.out.empty()) COX_TRY_VOID(write_output(json, options.out));
  if (outcome.profile) {
    const auto file = (options.out.empty() ? std::filesystem::path("profile.json")
                                           : std::filesystem::path(options.out).parent_path() / "profile.json")
                          .string();
    COX_TRY_VOID(write_output(to_text(cluster::to_json(*outcome.profile), 2) + "\n", file));
    std::fprintf(stderr, "profile written to %s\n", file.c_str());
  }
  COX_TRY_VOID(write_output(options.format == "json" ? json : to_table(outcome.resources), ""));
  return ExitCode::Done;
}

}  // namespace

Result<ExitCode> run_model_check(const std::string& file, const std::string& format) {
  if (std::filesystem::path(file).extension() != ".pt2")
    return Error{ErrorCode::InvalidArgument,
                 "only a .pt2 holds a recorded step",
                 file,
                 "a .pt2 file written by coxswain.export",
                 file,
                 "export the model again"};
  COX_TRY(auto outcome, run_check(file));
  if (format == "json") {
    const Json json = JsonObject{{"loss", outcome.loss},
                                 {"recorded_loss", outcome.recorded_loss},
                                 {"grad_norm", outcome.grad_norm},
                                 {"recorded_grad_norm", outcome.recorded_grad_norm},
                                 {"worst_gradient_error", outcome.worst_gradient_error},
                                 {"worst_parameter", outcome.worst_parameter},
                                 {"passed", outcome.passed}};
    COX_TRY_VOID(write_output(to_text(json, 2) + "\n", ""));
  } else {
    std::printf(
        "loss       %.9g  (PyTorch %.9g)\ngrad norm  %.9g  (PyTorch %.9g)\nworst gradient  %s: %.3g of the global "
        "norm\n%s\n",
        outcome.loss, outcome.recorded_loss, outcome.grad_norm, outcome.recorded_grad_norm,
        outcome.worst_parameter.c_str(), outcome.worst_gradient_error,
        outcome.passed ? "equal: the model trains here as it did in PyTorch" : "NOT equal");
  }
  if (outcome.passed) return ExitCode::Done;
  return Error{ErrorCode::InvalidArgument,
               "the recorded step came out differently",
               file,
               "loss and every gradient within 1e-6",
               "worst " + outcome.worst_parameter,
               "export the model again; if it stays, report it with the model's configuration"};
}

void add_train_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("train", "probe, plan, run; predicted beside measured");
  auto options = std::make_shared<TrainOptions>();
  auto& request = options->request;
  command->add_option("JOB", options->job, "job file (YAML or JSON)")->required();
  command->add_option("--plan", request.plan_file, "run this plan instead of searching");
  add_device_option(*command, request.devices);
  add_node_options(*command, request.nodes);
  command->add_option("--nproc-per-node", options->processes, "devices of this node when --devices is not given");
  command->add_option("--hostfile", options->hostfile, "nodes in order, `HOST [slots=N]` a line; starts nothing")
      ->check(CLI::ExistingFile);
  command->add_flag("--standalone", options->standalone, "one node, any port");
  command->add_option("--backend", request.backend, "auto, host, mpi or nccl")
      ->check(CLI::IsMember({"auto", "host", "mpi", "nccl"}));
  command->add_option("--run-dir", request.run_dir, "where the run's files go (runs/NAME-DATE-TIME)");
  command->add_option("--log-dir", request.log_dir, "where the ranks' output goes (RUN-DIR/logs)");
  command->add_flag("--tee", request.tee, "also show the ranks' output here");
  add_metrics_option(*command, request.metrics);
  command->add_option("--shutdown-timeout", request.shutdown_timeout_seconds, "seconds from SIGTERM to SIGKILL (30)")
      ->check(CLI::Range(0.0, 3600.0));
  command->add_option_function<std::string>(
      "--trace-steps",
      [options](const std::string& text) {
        options->trace_steps = text;
        options->traces = true;
      },
      "A-B: Chrome/Perfetto trace of these steps, predicted beside measured (RUN-DIR/trace)");
  command
      ->add_option("--max-restarts", request.max_restarts,
                   "how often within an hour a run whose rank failed goes on from its newest checkpoint (3)")
      ->check(CLI::Range(0, 1000000));
  command->add_option("--resume", request.resume,
                      "auto: from the newest whole checkpoint in the job's checkpoint.directory; never; or PATH of a "
                      "checkpoint, of a folder of them, or of a run");
  command->callback([&action, options] { action = [options] { return train(*options); }; });
}

void add_probe_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("probe", "measure this node (or several): devices, memory, links");
  auto options = std::make_shared<ProbeOptions>();
  add_device_option(*command, options->request.devices);
  add_node_options(*command, options->request.nodes);
  command->add_option("--job", options->job, "also time each distinct block of this job's model (profile.json)");
  command->add_option("--out", options->out, "also write the cluster as JSON");
  command->add_option("--format", options->format, "table or json")->check(CLI::IsMember({"table", "json"}));
  command->add_option("--backend", options->request.backend, "auto, host, mpi or nccl")
      ->check(CLI::IsMember({"auto", "host", "mpi", "nccl"}));
  add_missing_option(*command, "--inventory", "probe the nodes of an inventory file");
  command->callback([&action, options] { action = [options] { return probe(*options); }; });
}

namespace {

struct AgentOptions {
  AgentRequest request;
  std::string ca_file;
};

bool is_service(const std::string& coordinator) {
  return coordinator.starts_with("http://") || coordinator.starts_with("https://");
}

/// Works for a service's jobs until it is ended.
Result<ExitCode> join_service(const AgentOptions& options) {
  const AgentRequest& request = options.request;
  JoinedNodeOptions joined;
  COX_TRY(joined.service, service_place({request.coordinator, request.token_file.string(), options.ca_file}));
  if (request.node_rank >= 0)
    return usage_error("a service gives its nodes their rank", "no --node-rank", std::to_string(request.node_rank), "");
  joined.program = own_program();
  joined.run_dir = request.run_dir;
  joined.join_timeout_seconds = request.join_timeout_seconds;
  const auto pass_on = [&joined](const char* flag, const std::string& value) {
    if (!value.empty()) joined.arguments.insert(joined.arguments.end(), {flag, value});
  };
  pass_on("--devices", request.devices);
  pass_on("--local-addr", request.local_addr);
  pass_on("--metrics", request.metrics);
  if (request.tee) joined.arguments.emplace_back("--tee");
  return run_joined_node(joined);
}

}  // namespace

void add_agent_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("agent", "join this node to a coordinator: of one run, or of a service's jobs");
  auto options = std::make_shared<AgentOptions>();
  AgentRequest& request = options->request;
  command
      ->add_option(
          "--coordinator", request.coordinator,
          "ADDR:PORT of a run; or http://HOST:PORT, https://HOST:PORT of a `launch serve`, whose jobs this node "
          "then works for, one after another, until it is ended")
      ->required();
  add_device_option(*command, request.devices);
  command
      ->add_option("--token-file", request.token_file,
                   "secret shared by the run's nodes; or the service's token to run")
      ->required();
  command->add_option("--local-addr", request.local_addr, "address that other nodes reach this one by");
  command->add_option("--node-rank", request.node_rank, "this node's rank")->check(CLI::NonNegativeNumber);
  command->add_option("--run-dir", request.run_dir, "where logs go");
  command->add_flag("--tee", request.tee, "also show the ranks' output here");
  add_metrics_option(*command, request.metrics);
  command->add_option("--tls-ca", options->ca_file,
                      "certificates that a service's is trusted by; default: those of this machine");
  command->callback([&action, options] {
    action = [options]() -> Result<ExitCode> {
      if (is_service(options->request.coordinator)) return join_service(*options);
      if (!options->ca_file.empty())
        return usage_error("a run's coordinator speaks no TLS", "--tls-ca beside https://HOST:PORT",
                           options->request.coordinator, "leave it out; the token authenticates both ends");
      return run_agent(options->request);
    };
  });
}

void add_coordinator_command(CLI::App& app, Action& action) {
  for (const auto& [name, run] :
       {std::pair{"coordinator", &run_coordinator_process}, std::pair{"local-agent", &run_local_agent_process}}) {
    auto* command = app.add_subcommand(name, "started by `launch train`");
    command->group("");
    command->callback([&action, run = run] { action = [run]() -> Result<ExitCode> { return run(); }; });
  }
}

Result<std::unique_ptr<PlanningInputs>> load_planning_inputs(const std::string& job_file,
                                                             const PlanningOptions& options) {
  auto inputs = std::make_unique<PlanningInputs>();
  COX_TRY(inputs->job, load_job_argument(job_file));
  COX_TRY(inputs->job.constraints, merge_constraints(inputs->job.constraints, options.constraints));
  COX_TRY(inputs->model, know_job_model(inputs->job));
  const std::string cluster_file =
      options.cluster_file.empty() ? inputs->job.cluster_file.string() : options.cluster_file;
  if (cluster_file.empty()) {
    std::fprintf(stderr, "no cluster given: probing this machine\n");
    COX_TRY(
        auto probed,
        run_probe(
            {.devices = options.devices, .nodes = {}, .job = inputs->job, .backend = "auto", .worker_program = {}}));
    inputs->resources = std::move(probed.resources);
    inputs->profile = std::move(probed.profile);
  } else {
    COX_TRY(inputs->resources, load_cluster(cluster_file));
  }
  if (!options.profile_file.empty()) {
    COX_TRY(Json json, load_json(options.profile_file));
    auto profile = cluster::profile_from_json(json);
    if (!profile) return with_path_prefix(profile.error(), options.profile_file);
    const std::string wanted(plan::to_text(inputs->job.precision));
    if (!profile->precision.empty() && profile->precision != wanted)
      return Error{ErrorCode::InvalidArgument,
                   "the profile was measured in another precision",
                   options.profile_file + "  precision",
                   wanted,
                   profile->precision,
                   "measure anew with `launch probe --job`, or plan without --profile"};
    inputs->profile = std::move(*profile);
  }
  inputs->price();
  return inputs;
}

}  // namespace coxswain::launcher
