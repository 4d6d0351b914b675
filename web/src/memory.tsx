// Memory of the fullest device of each role, by part, against what it has.
import { useState } from "preact/hooks";

import { kMemoryParts } from "./colours";
import { bytes, percent, ranges } from "./format";
import { Piece, Swatch } from "./stacked_bar";
import type { DeviceEstimate, Plan } from "./types";

const kMostRows = 32;

export function Memory({ devices, plan }: { devices: DeviceEstimate[]; plan: Plan }) {
  const [all, set_all] = useState(false);
  const largest = Math.max(...devices.map((one) => Math.max(one.capacity_bytes, one.peak_memory_bytes)));
  const parts = kMemoryParts.filter((part) => devices.some((one) => (one.parts[part.key] ?? 0) > 0));
  const shown = all ? devices : devices.slice(0, kMostRows);
  return (
    <section aria-labelledby="memory-title">
      <h2 id="memory-title">Memory per device</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="memory per device">
        <table class="memory">
          <thead>
            <tr>
              <th>stage</th>
              <th>ranks</th>
              <th>device</th>
              <th class="wide">parts, against capacity</th>
              <th>peak</th>
              <th>of</th>
              <th>busy</th>
            </tr>
          </thead>
          <tbody>
            {shown.map((one, index) => (
              <tr key={index}>
                <th scope="row">{plan.roles[one.role]?.stage ?? one.role}</th>
                <td>{ranges(one.ranks)}</td>
                <td>{one.device}</td>
                <td>
                  <Bar one={one} largest={largest} />
                </td>
                <td>{bytes(one.peak_memory_bytes)}</td>
                <td>{bytes(one.capacity_bytes)}</td>
                <td>{percent(one.busy_fraction)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {devices.length > kMostRows && (
        <button type="button" onClick={() => set_all(!all)}>
          {all ? "Fewer" : `All ${devices.length}`}
        </button>
      )}
      <p class="legend">
        {parts.map((part) => (
          <span key={part.key} class="key">
            <Swatch colour={part.colour} /> {part.name}
          </span>
        ))}
        <span class="key">
          <i class="swatch capacity" aria-hidden="true" /> capacity
        </span>
      </p>
    </section>
  );
}

function Bar({ one, largest }: { one: DeviceEstimate; largest: number }) {
  const there = kMemoryParts.filter((part) => (one.parts[part.key] ?? 0) > 0);
  const told = there.map((part) => `${part.name} ${bytes(one.parts[part.key]!)}`).join(", ");
  return (
    <div class="bar" role="img" aria-label={told} title={told}>
      {there.map((part) => (
        <Piece key={part.key} colour={part.colour} share={one.parts[part.key]! / largest} />
      ))}
      <span class="limit" style={{ left: `${(one.capacity_bytes / largest) * 100}%` }} />
    </div>
  );
}
