// Time against memory of the plan and of those that came close.
import { bytes, difference, seconds } from "./format";
import type { Estimate, FoundPlan } from "./types";

function fullest(estimate: Estimate): number {
  return Math.max(...estimate.devices.map((one) => one.peak_memory_bytes / one.capacity_bytes));
}

function peak(estimate: Estimate): number {
  return Math.max(...estimate.devices.map((one) => one.peak_memory_bytes));
}

const kWidth = 640;
const kHeight = 260;
const kLeft = 60;
const kBottom = 34;

export function RunnersUp({ found }: { found: FoundPlan }) {
  const plans = [
    { estimate: found.estimate, summary: found.summary },
    ...found.runners_up.map((one) => ({ estimate: one.estimate, summary: one.summary ?? one.plan.schedule })),
  ];
  const steps = plans.map((one) => one.estimate.step_seconds);
  const slowest = Math.max(...steps) * 1.02;
  const fastest = Math.min(...steps) * 0.98;
  const x_of = (step: number) => kLeft + ((step - fastest) / (slowest - fastest)) * (kWidth - kLeft - 16);
  const y_of = (share: number) => kHeight - kBottom - Math.min(1, share) * (kHeight - kBottom - 12);
  return (
    <section aria-labelledby="runners-title">
      <h2 id="runners-title">The best and its runners-up</h2>
      <svg viewBox={`0 0 ${kWidth} ${kHeight}`} role="img" aria-label="step time against memory of the fullest device">
        {[0, 0.25, 0.5, 0.75, 1].map((share) => (
          <g key={share}>
            <line class="grid" x1={kLeft} x2={kWidth} y1={y_of(share)} y2={y_of(share)} />
            <text x={kLeft - 8} y={y_of(share) + 4} text-anchor="end">
              {share * 100} %
            </text>
          </g>
        ))}
        {[fastest, (fastest + slowest) / 2, slowest].map((step, i) => (
          <text key={i} x={x_of(step)} y={kHeight - 14} text-anchor={i === 0 ? "start" : i === 1 ? "middle" : "end"}>
            {seconds(step)}
          </text>
        ))}
        <text x={kLeft} y={kHeight - 1}>
          step time; upwards: how full the fullest device is
        </text>
        {plans.map((one, i) => (
          <g key={i}>
            <circle
              class={i === 0 ? "best" : "other"}
              cx={x_of(one.estimate.step_seconds)}
              cy={y_of(fullest(one.estimate))}
              r={i === 0 ? 8 : 6}
            />
            <text x={x_of(one.estimate.step_seconds) + 10} y={y_of(fullest(one.estimate)) - 8}>
              {i === 0 ? "best" : i}
            </text>
          </g>
        ))}
      </svg>
      <div class="scroll" tabIndex={0} role="region" aria-label="runners-up">
        <table>
          <thead>
            <tr>
              <th />
              <th>plan</th>
              <th>step</th>
              <th>slower by</th>
              <th>fullest device</th>
            </tr>
          </thead>
          <tbody>
            {plans.map((one, i) => (
              <tr key={i}>
                <th scope="row">{i === 0 ? "best" : i}</th>
                <td>{one.summary}</td>
                <td>{seconds(one.estimate.step_seconds)}</td>
                <td>{i === 0 ? "" : difference(one.estimate.step_seconds, found.estimate.step_seconds)}</td>
                <td>{bytes(peak(one.estimate))}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
