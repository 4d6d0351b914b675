// What is to be planned: a model and a cluster, picked, described or sent.
import { useState } from "preact/hooks";

import { send_model } from "./api";
import { type FormValues, kModels, make_request } from "./request";
import type { Catalogue, Cluster, PlanRequest } from "./types";

interface Properties {
  catalogue: Catalogue;
  busy: boolean;
  submit: (request: PlanRequest) => void;
  tell: (error: unknown) => void;
}

export function Form({ catalogue, busy, submit, tell }: Properties) {
  const [model, set_model] = useState("0");
  const [config, set_config] = useState(JSON.stringify(kModels[0]!.config, null, 1));
  const [file, set_file] = useState<File | null>(null);
  const [sequence, set_sequence] = useState(kModels[0]!.sequence_length);
  const [batch, set_batch] = useState(256);
  const [precision, set_precision] = useState("bfloat16");
  const [hardware, set_hardware] = useState("2x8xh100-sxm,ib400");
  const [cluster_file, set_cluster_file] = useState<Cluster | null>(null);
  const [objective, set_objective] = useState<FormValues["objective"]>("time");
  const [wrong, set_wrong] = useState("");

  const pick_model = (value: string) => {
    set_model(value);
    const picked = kModels[Number(value)];
    if (!picked) return;
    set_config(JSON.stringify(picked.config, null, 1));
    set_sequence(picked.sequence_length);
  };

  const read_cluster = async (chosen: File | undefined) => {
    set_wrong("");
    set_cluster_file(null);
    if (!chosen) return;
    try {
      const read = JSON.parse(await chosen.text()) as Cluster | null;
      const is_cluster = [read?.device_classes, read?.node_classes, read?.nodes, read?.tiers].every(Array.isArray);
      if (is_cluster) set_cluster_file(read);
      else set_wrong(`${chosen.name} is no cluster: it has no device_classes, node_classes, nodes and tiers`);
    } catch (error) {
      set_wrong(`${chosen.name} is no JSON: ${(error as Error).message}`);
    }
  };

  const go = async () => {
    set_wrong("");
    let described: FormValues["model"];
    if (model === "file") {
      if (!file) return set_wrong("pick a .pt2 file, such as python/coxswain's exporter writes");
      try {
        described = { pt2: await send_model(file) };
      } catch (error) {
        return tell(error);
      }
    } else {
      try {
        described = { config: JSON.parse(config) as Record<string, unknown> };
      } catch (error) {
        return set_wrong(`the configuration is no JSON: ${(error as Error).message}`);
      }
    }
    submit(
      make_request({
        model: described,
        sequence_length: sequence,
        global_batch: batch,
        precision,
        cluster: cluster_file ?? hardware.trim(),
        objective,
      }),
    );
  };

  return (
    <form
      class="request"
      onSubmit={(event) => {
        event.preventDefault();
        void go();
      }}
    >
      <fieldset>
        <legend>Model</legend>
        <label>
          Which
          <select value={model} onChange={(event) => pick_model(event.currentTarget.value)}>
            {kModels.map((one, index) => (
              <option key={one.name} value={`${index}`}>
                {one.name}
              </option>
            ))}
            <option value="file">A .pt2 file of mine</option>
          </select>
        </label>
        {model === "file" ? (
          <label>
            Exported model
            <input type="file" accept=".pt2" onChange={(event) => set_file(event.currentTarget.files?.[0] ?? null)} />
          </label>
        ) : (
          <details>
            <summary>Configuration</summary>
            <label>
              As transformers writes it (config.json)
              <textarea rows={8} spellcheck={false} value={config} onInput={(e) => set_config(e.currentTarget.value)} />
            </label>
          </details>
        )}
        <NumberField label="Sequence length" value={sequence} set={set_sequence} />
        <NumberField label="Samples of a step" value={batch} set={set_batch} />
        <label>
          Precision
          <select value={precision} onChange={(event) => set_precision(event.currentTarget.value)}>
            <option>bfloat16</option>
            <option>float16</option>
            <option>float32</option>
          </select>
        </label>
      </fieldset>
      <fieldset>
        <legend>Cluster</legend>
        <label>
          Hardware of the catalogue
          <input
            list="hardware"
            value={hardware}
            disabled={cluster_file !== null}
            onInput={(event) => set_hardware(event.currentTarget.value)}
          />
        </label>
        <datalist id="hardware">
          {catalogue.systems.map((one) => (
            <option key={one.name} value={`2x${one.name}`}>
              {one.title}
            </option>
          ))}
          {catalogue.devices.map((one) => (
            <option key={one.name} value={`2x8x${one.name},${catalogue.networks[0]?.name ?? ""}`}>
              {one.title}
            </option>
          ))}
        </datalist>
        <p class="hint">
          NODESxDEVICESxKIND,NETWORK. Networks: {catalogue.networks.map((one) => one.name).join(", ")}
        </p>
        <label>
          Or a cluster.json, as <code>launch probe</code> writes it
          <input type="file" accept=".json" onChange={(e) => void read_cluster(e.currentTarget.files?.[0])} />
        </label>
        <label>
          Best means
          <select
            value={objective}
            onChange={(event) => set_objective(event.currentTarget.value as FormValues["objective"])}
          >
            <option value="time">the shortest step</option>
            <option value="cost">the cheapest step</option>
          </select>
        </label>
        <button type="submit" aria-disabled={busy}>
          Plan
        </button>
        {wrong && (
          <p class="problem" role="alert">
            {wrong}
          </p>
        )}
      </fieldset>
    </form>
  );
}

function NumberField({ label, value, set }: { label: string; value: number; set: (value: number) => void }) {
  return (
    <label>
      {label}
      <input
        type="number"
        min={1}
        required
        value={value}
        onInput={(event) => set(event.currentTarget.valueAsNumber)}
      />
    </label>
  );
}
