// Two plans beside each other. Why the one and not the other is asked of the service where both are for one cluster.
import { useEffect, useState } from "preact/hooks";

import { explain_against } from "./api";
import { kStepParts } from "./colours";
import { bytes, count, difference, percent, seconds } from "./format";
import { StackedBar } from "./stacked_bar";
import { Timeline } from "./timeline";
import type { Estimate, Explanation, Shown } from "./types";

export function Compare({ kept, shown }: { kept: Shown; shown: Shown }) {
  const [verdict, set_verdict] = useState<Explanation["against"] | null>(null);
  useEffect(() => {
    const control = new AbortController();
    set_verdict(null);
    const same = kept.found.plan.cluster_hash === shown.found.plan.cluster_hash;
    // Not while the plan itself is still looked for.
    if (same && kept.id !== shown.id && shown.has_reasons)
      explain_against(shown.id, kept.id, control.signal)
        .then((told) => set_verdict(told.against ?? null))
        .catch(() => undefined); // of another job: the numbers below tell all there is
    return () => control.abort();
  }, [kept.id, shown.id, shown.has_reasons]);

  const ours = shown.found.estimate;
  const theirs = kept.found.estimate;
  const longest = Math.max(ours.step_seconds, theirs.step_seconds);
  const rows: [string, (estimate: Estimate) => string][] = [
    ["step", (one) => seconds(one.step_seconds)],
    ["tokens a second", (one) => count(one.tokens_per_second)],
    ["model FLOPs utilization", (one) => percent(one.model_flops_utilization)],
    ["bubble", (one) => percent(one.bubble_fraction)],
    ["fullest device", (one) => bytes(Math.max(...one.devices.map((device) => device.peak_memory_bytes)))],
  ];
  return (
    <div data-testid="compare">
      <p>
        The plan shown is <strong>{difference(ours.step_seconds, theirs.step_seconds)}</strong> in time of a step against
        the kept one.
        {verdict && ` The kept one: ${verdict.verdict}`}
      </p>
      {verdict && verdict.reasons.length > 0 && (
        <ul>
          {verdict.reasons.map((reason) => (
            <li key={reason}>{reason}</li>
          ))}
        </ul>
      )}
      <div class="scroll" tabIndex={0} role="region" aria-label="two plans">
        <table>
          <thead>
            <tr>
              <th />
              <th>shown</th>
              <th>kept</th>
            </tr>
          </thead>
          <tbody>
            <tr>
              <th scope="row">plan</th>
              <td>{shown.found.summary}</td>
              <td>{kept.found.summary}</td>
            </tr>
            {rows.map(([name, text]) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                <td>{text(ours)}</td>
                <td>{text(theirs)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <div class="beside">
        {[
          { name: "shown", one: shown },
          { name: "kept", one: kept },
        ].map(({ name, one }) => (
          <div key={name}>
            <StackedBar
              label={`parts of a step, ${name}`}
              parts={kStepParts.map((part) => ({
                ...part,
                value: one.found.estimate.parts[part.key as keyof Estimate["parts"]] ?? 0,
              }))}
              total={longest}
              text={seconds}
            />
            <Timeline timeline={one.timeline} title={`Actions, ${name}`} id={`timeline-${name}`} longest={longest} />
          </div>
        ))}
      </div>
    </div>
  );
}
