// Why not another plan, and what one change of the hardware would buy.
import { count, difference, seconds } from "./format";
import type { Rejected, Sensitivity } from "./types";

export function Rejections({ rejected }: { rejected: Rejected[] }) {
  return (
    <section aria-labelledby="rejected-title">
      <h2 id="rejected-title">Why not another one</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="rejected plans">
        <table>
          <thead>
            <tr>
              <th>family</th>
              <th>why not</th>
              <th>the best of them, or one of them</th>
              <th>looked at</th>
            </tr>
          </thead>
          <tbody>
            {rejected.map((one) => (
              <tr key={(one.family ?? "") + one.reason + one.example}>
                <th scope="row">{one.family ?? ""}</th>
                <td>{one.reason}</td>
                <td>{one.example}</td>
                <td>{count(one.count)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

export function Sensitivities({ sensitivities, step_seconds }: { sensitivities: Sensitivity[]; step_seconds: number }) {
  return (
    <section aria-labelledby="changes-title">
      <h2 id="changes-title">What one change would buy</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="changes of the hardware">
        <table>
          <thead>
            <tr>
              <th>change</th>
              <th>step</th>
              <th>against now</th>
              <th>plan then</th>
            </tr>
          </thead>
          <tbody>
            {sensitivities.map((one) => (
              <tr key={one.change}>
                <th scope="row">{one.change}</th>
                <td>{seconds(one.step_seconds)}</td>
                <td>{difference(one.step_seconds, step_seconds)}</td>
                <td>{one.summary ?? "the same"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
