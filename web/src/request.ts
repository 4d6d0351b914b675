// From what the form holds to a request, and from a request and changes to another one.
import { with_faster_link, with_nodes, without_device } from "./cluster";
import type { Changes, Cluster, PlanRequest } from "./types";

export const kModels: { name: string; sequence_length: number; config: Record<string, unknown> }[] = [
  {
    name: "GPT-2, 124 million",
    sequence_length: 1024,
    config: { model_type: "gpt2", n_layer: 12, n_head: 12, n_embd: 768, n_positions: 1024, vocab_size: 50257 },
  },
  {
    name: "Llama, 1.1 billion",
    sequence_length: 2048,
    config: {
      model_type: "llama",
      hidden_size: 2048,
      intermediate_size: 5632,
      num_hidden_layers: 22,
      num_attention_heads: 32,
      num_key_value_heads: 4,
      vocab_size: 32000,
      max_position_embeddings: 2048,
      tie_word_embeddings: false,
    },
  },
  {
    name: "Llama, 8 billion",
    sequence_length: 8192,
    config: {
      model_type: "llama",
      hidden_size: 4096,
      intermediate_size: 14336,
      num_hidden_layers: 32,
      num_attention_heads: 32,
      num_key_value_heads: 8,
      vocab_size: 128256,
      max_position_embeddings: 8192,
      tie_word_embeddings: false,
    },
  },
  {
    name: "Llama, 70 billion",
    sequence_length: 8192,
    config: {
      model_type: "llama",
      hidden_size: 8192,
      intermediate_size: 28672,
      num_hidden_layers: 80,
      num_attention_heads: 64,
      num_key_value_heads: 8,
      vocab_size: 128256,
      max_position_embeddings: 8192,
      tie_word_embeddings: false,
    },
  },
  {
    name: "GPT-3, 175 billion",
    sequence_length: 2048,
    config: {
      model_type: "gpt2",
      n_layer: 96,
      n_head: 96,
      n_embd: 12288,
      n_positions: 2048,
      vocab_size: 51200,
      activation_function: "gelu_new",
      attn_pdrop: 0,
      embd_pdrop: 0,
      resid_pdrop: 0,
    },
  },
];

export interface FormValues {
  model: { config: Record<string, unknown> } | { pt2: string };
  sequence_length: number;
  global_batch: number;
  precision: string;
  cluster: Cluster | string;
  objective: "time" | "cost";
}

export function make_request(values: FormValues): PlanRequest {
  return {
    job: {
      name: "explored",
      model: values.model,
      data: { text: "not-read.txt", sequence_length: values.sequence_length },
      batch: { global: values.global_batch },
      precision: values.precision,
      train: { steps: 1 },
    },
    cluster: values.cluster,
    options: values.objective === "cost" ? { objective: "cost" } : {},
  };
}

export const kNoChanges: Changes = { constraints: {}, link_factors: {}, node_counts: {}, removed: [] };

export function is_changed(changes: Changes): boolean {
  return [changes.constraints, changes.link_factors, changes.node_counts, changes.removed].some(
    (one) => Object.keys(one).length > 0,
  );
}

export function changed_cluster(cluster: Cluster, changes: Changes): Cluster {
  let changed = cluster;
  for (const [group, count] of Object.entries(changes.node_counts)) changed = with_nodes(changed, Number(group), count);
  for (const [link, factor] of Object.entries(changes.link_factors)) changed = with_faster_link(changed, link, factor);
  for (const { node, device_class } of changes.removed) changed = without_device(changed, node, device_class);
  return changed;
}

export function apply_changes(base: PlanRequest, cluster: Cluster, changes: Changes): PlanRequest {
  if (!is_changed(changes)) return base;
  const constrain = Object.entries(changes.constraints).map(([key, value]) => `${key}=${value}`);
  return {
    ...base,
    cluster: changed_cluster(cluster, changes),
    options: { ...base.options, ...(constrain.length > 0 ? { constrain } : {}) },
  };
}
