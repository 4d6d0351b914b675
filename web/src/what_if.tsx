// Constraints to drag and hardware to change: each move of a slider is a new plan.
import { link_names } from "./cluster";
import { is_changed, kNoChanges } from "./request";
import type { Changes, Cluster } from "./types";

interface Properties {
  cluster: Cluster; // before the changes
  changes: Changes;
  change: (changes: Changes) => void;
}

const kConstraints: { key: string; name: string; values: string[] }[] = [
  { key: "tensor", name: "tensor parallel", values: ["1", "2", "4", "8"] },
  { key: "pipeline", name: "pipeline stages", values: ["1", "2", "4", "8", "16"] },
  { key: "context", name: "context parallel", values: ["1", "2", "4", "8"] },
  { key: "zero", name: "ZeRO", values: ["0", "1", "2", "3"] },
  { key: "recompute", name: "recompute", values: ["none", "full"] },
  { key: "schedule", name: "schedule", values: ["gpipe", "1f1b", "interleaved", "zbh1", "zbh2", "zbv"] },
];

const kFactors = [0.25, 0.5, 1, 2, 4];

function without<T>(record: Record<string, T>, key: string): Record<string, T> {
  return Object.fromEntries(Object.entries(record).filter(([other]) => other !== key));
}

export function WhatIf({ cluster, changes, change }: Properties) {
  return (
    <section aria-labelledby="what-if-title">
      <h2 id="what-if-title">What if</h2>
      <div class="sliders">
        {kConstraints.map(({ key, name, values }) => {
          const position = values.indexOf(changes.constraints[key] ?? "") + 1;
          return (
            <Slider
              key={key}
              name={name}
              positions={["free", ...values]}
              position={position}
              set={(next) =>
                change({
                  ...changes,
                  constraints:
                    next === 0
                      ? without(changes.constraints, key)
                      : { ...changes.constraints, [key]: values[next - 1]! },
                })
              }
            />
          );
        })}
        {link_names(cluster).map((name) => (
          <Slider
            key={name}
            name={`bandwidth of ${name}`}
            positions={kFactors.map((factor) => (factor === 1 ? "as it is" : `${factor} times`))}
            position={kFactors.indexOf(changes.link_factors[name] ?? 1)}
            set={(next) => {
              const factor = kFactors[next]!;
              const others = without(changes.link_factors, name);
              change({ ...changes, link_factors: factor === 1 ? others : { ...others, [name]: factor } });
            }}
          />
        ))}
        {cluster.nodes.map((group, index) => {
          const choices = node_choices(group.count);
          const now = changes.node_counts[index] ?? group.count;
          return (
            <Slider
              key={`group ${index}`}
              name={`nodes ${group.node_class}`}
              positions={choices.map((count) => `${count}`)}
              position={choices.indexOf(now)}
              set={(next) => {
                const others = without(changes.node_counts as Record<string, number>, `${index}`);
                const count = choices[next]!;
                // A device that was taken away may be on a node that is gone too.
                change({
                  ...changes,
                  removed: [],
                  node_counts: count === group.count ? others : { ...others, [index]: count },
                });
              }}
            />
          );
        })}
      </div>
      {changes.removed.length > 0 && (
        <ul class="removed">
          {changes.removed.map((one, index) => (
            <li key={index}>
              one {one.device_class} less on node {one.node}{" "}
              {/* Later ones are numbered as the cluster was without it. */}
              {index === changes.removed.length - 1 && (
                <button
                  type="button"
                  class="quiet"
                  onClick={() => change({ ...changes, removed: changes.removed.slice(0, -1) })}
                >
                  Put it back
                </button>
              )}
            </li>
          ))}
        </ul>
      )}
      {is_changed(changes) && (
        <button type="button" onClick={() => change(kNoChanges)}>
          Take all of it back
        </button>
      )}
    </section>
  );
}

/// Some below and some above what is there; one that is far above one node goes in steps.
function node_choices(count: number): number[] {
  const near = count <= 8 ? Array.from({ length: 2 * count }, (_, i) => i + 1) : [];
  const shares = [0.25, 0.5, 0.75, 1, 1.25, 1.5, 2].map((share) => Math.max(1, Math.round(count * share)));
  return [...new Set([...near, ...shares, count, count - 1, count + 1])].filter((one) => one > 0).sort((a, b) => a - b);
}

interface SliderProperties {
  name: string;
  positions: string[];
  position: number;
  set: (position: number) => void;
}

function Slider({ name, positions, position, set }: SliderProperties) {
  return (
    <label class="slider">
      <span>{name}</span>
      <input
        type="range"
        min={0}
        max={positions.length - 1}
        step={1}
        value={position}
        aria-valuetext={positions[position]}
        onInput={(event) => set(event.currentTarget.valueAsNumber)}
      />
      <output>{positions[position]}</output>
    </label>
  );
}
