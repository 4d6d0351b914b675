// What the service answers (INTERFACE section 4, openapi.json), as far as the page reads it.

export interface StepParts {
  forward: number;
  backward: number;
  recompute: number;
  communication_exposed: number;
  bubble: number;
  optimizer: number;
}

export interface DeviceEstimate {
  role: number;
  ranks: number[];
  device: string;
  peak_memory_bytes: number;
  capacity_bytes: number;
  busy_fraction: number;
  parts: Record<string, number>;
}

export interface Estimate {
  step_seconds: number;
  tokens_per_second: number;
  model_flops_utilization: number;
  bubble_fraction: number;
  cost_per_step_usd?: number;
  parts: StepParts;
  devices: DeviceEstimate[];
}

export interface DeviceId {
  device_class: number;
  index: number;
}

export interface Replica {
  devices: DeviceId[];
  samples: number;
  tensor: number;
  context: number;
  expert: number;
}

export interface Stage {
  first_block: number;
  end_block: number;
  replicas: Replica[];
  zero_stage?: number;
  offload: string;
  recompute: string[];
}

export interface Plan {
  schedule: string;
  precision: string;
  batch: { global: number; micro: number; count: number };
  stages: Stage[];
  roles: { stage: number; replicas: number[]; actions: string[] }[];
  [key: string]: unknown;
}

export interface RunnerUp {
  plan: Plan;
  estimate: Estimate;
  summary?: string;
}

export interface Rejected {
  reason: string;
  count: number;
  example: string;
  family?: string;
  step_seconds?: number;
}

export interface Sensitivity {
  change: string;
  step_seconds: number;
  summary?: string;
}

export interface FoundPlan {
  plan: Plan;
  estimate: Estimate;
  summary: string;
  lower_bound_step_seconds: number;
  optimality_gap: number;
  binding_constraint: string;
  runners_up: RunnerUp[];
  rejected: Rejected[];
  sensitivities: Sensitivity[];
  search: { seconds: number; candidates_costed: number };
}

export interface Explanation extends FoundPlan {
  against?: { verdict: string; reasons: string[]; summary: string };
}

export interface TimelineAction {
  role: number;
  stream: string;
  action: string;
  kind: string;
  micro_batch: number;
  start_seconds: number;
  transfer_start_seconds: number;
  end_seconds: number;
}

export interface Timeline {
  step_seconds: number;
  roles: { stage: number; blocks: [number, number][]; ranks: number[]; device: string }[];
  actions: TimelineAction[];
}

export interface Sourced {
  value: number;
  source: string;
}

export interface Link {
  name: string;
  bandwidth_bytes_per_second: Sourced;
  latency_seconds: Sourced;
  sharing: number;
}

export interface NodeClass {
  name: string;
  devices: { device_class: string; count: number }[];
  link: Link;
  [key: string]: unknown;
}

export interface NodeGroup {
  node_class: string;
  count: number;
  tiers?: { link: Link; nodes_per_domain: number }[];
  continues?: boolean;
}

export interface Cluster {
  device_classes: { name: string; kind: string; memory_bytes: Sourced; [key: string]: unknown }[];
  node_classes: NodeClass[];
  nodes: NodeGroup[];
  tiers: { link: Link; nodes_per_domain: number }[];
  [key: string]: unknown;
}

export interface Catalogue {
  devices: { name: string; title: string }[];
  networks: { name: string; title: string }[];
  systems: { name: string; title: string; network: string }[];
}

export interface PlanRequest {
  job: Record<string, unknown>;
  cluster: Cluster | string;
  options?: { constrain?: string[]; objective?: "time" | "cost"; reasons?: boolean };
}

export interface Problem {
  status: number;
  title: string;
  detail: string;
  errors?: { pointer: string; detail: string; expected?: string; got?: string; hint?: string }[];
}

/// What is asked beside the form: all of it can be taken back, one by one.
export interface Changes {
  constraints: Record<string, string>; // "tensor" -> "4"
  link_factors: Record<string, number>;
  node_counts: Record<number, number>; // by group
  removed: { node: number; device_class: string }[];
}

/// A request and what was found for it.
export interface Shown {
  id: string;
  request: PlanRequest;
  cluster: Cluster;
  found: FoundPlan;
  timeline: Timeline;
  changes: Changes; // of the form's request
  has_reasons: boolean;
}

export interface StepRow {
  step: number;
  loss: number | null;
  step_seconds: number;
  predicted_step_seconds?: number;
  tokens_per_second?: number;
  [key: string]: unknown;
}

export interface Node {
  name: string;
  cores: number;
  cpu_model: string;
  memory_bytes: number;
  cuda_devices: { name: string; memory_bytes: number }[];
  running: string | null;
}

export interface Job {
  id: string;
  name: string;
  state: "queued" | "running" | "finished" | "failed" | "cancelled";
  nodes: string;
  steps: number;
  attempts: number;
  submitted: string | null;
  started: string | null;
  ended: string | null;
  exit_code: number | null;
  failure: string;
  last: StepRow | null;
  remaining_seconds: number | null;
}

export interface JobEvent {
  id: string;
  type: string;
  data: Record<string, unknown>;
}
