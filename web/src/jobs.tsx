// Jobs of this service: how far each is, and one of them live, measured beside predicted.
import { useCallback, useEffect, useState } from "preact/hooks";

import * as api from "./api";
import { count, seconds } from "./format";
import { ProblemView } from "./problem_view";
import { Curve } from "./curve";
import { Nodes } from "./nodes";
import type { Job, JobEvent, Problem, StepRow } from "./types";

const kLookMilliseconds = 1000;
const kMostEvents = 500; // that are listed, the newest

function has_ended(job: Job): boolean {
  return job.state !== "queued" && job.state !== "running";
}

export function Jobs() {
  const [jobs, set_jobs] = useState<Job[] | null>(null);
  const [chosen, set_chosen] = useState<string | null>(null);
  const [problem, set_problem] = useState<Problem | null>(null);
  const look = useCallback(async () => {
    try {
      set_jobs(await api.jobs());
      set_problem(null);
    } catch (error) {
      set_problem(api.problem_of(error));
    }
  }, []);
  useEffect(() => {
    void look();
    const timer = setInterval(() => void look(), 5 * kLookMilliseconds);
    return () => clearInterval(timer);
  }, [look]);
  return (
    <>
      <section aria-labelledby="jobs-title">
        <h2 id="jobs-title">Jobs</h2>
        {problem?.status === 403 ? (
          <p>
            This token may plan; jobs need the other one that <code>launch serve</code> told: <code>cox-run-...</code>.
          </p>
        ) : (
          problem && <ProblemView problem={problem} />
        )}
        {jobs && jobs.length === 0 && (
          <p>
            None was sent yet: <code>POST /v1/jobs</code>.
          </p>
        )}
        {jobs && jobs.length > 0 && (
          <div class="scroll" tabIndex={0} role="region" aria-label="jobs">
            <table>
              <thead>
                <tr>
                  <th>job</th>
                  <th>name</th>
                  <th>state</th>
                  <th>nodes</th>
                  <th>steps</th>
                  <th>loss</th>
                  <th>ends in</th>
                </tr>
              </thead>
              <tbody>
                {jobs.map((one) => (
                  <tr key={one.id}>
                    <th scope="row">
                      <button type="button" class="quiet" onClick={() => set_chosen(one.id)}>
                        {one.id}
                      </button>
                    </th>
                    <td>{one.name}</td>
                    <td>{one.state}</td>
                    <td>{one.nodes}</td>
                    <td>
                      {count(one.last?.step ?? 0)} of {count(one.steps)}
                    </td>
                    <td>{one.last?.loss?.toFixed(4) ?? ""}</td>
                    <td>{one.remaining_seconds === null ? "" : seconds(one.remaining_seconds)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </section>
      {chosen && <LiveJob key={chosen} id={chosen} changed={look} />}
      <Nodes />
    </>
  );
}

function LiveJob({ id, changed }: { id: string; changed: () => Promise<void> }) {
  const [job, set_job] = useState<Job | null>(null);
  const [rows, set_rows] = useState<StepRow[]>([]);
  const [events, set_events] = useState<JobEvent[]>([]);
  const [problem, set_problem] = useState<Problem | null>(null);
  useEffect(() => {
    const control = new AbortController();
    let ended = false;
    /// Again and again until the job has ended: the service may be busy, or be started again.
    const keep_on = async (look: () => Promise<void>) => {
      while (!ended && !control.signal.aborted) {
        try {
          await look();
          set_problem(null);
        } catch (error) {
          if (control.signal.aborted) return;
          set_problem(api.problem_of(error));
        }
        await api.pause(kLookMilliseconds, control.signal).catch(() => undefined);
      }
    };
    let last = 0;
    void keep_on(async () => {
      const now = await api.job(id, control.signal);
      let more: StepRow[];
      do {
        more = await api.metrics(id, last, control.signal);
        last = more.at(-1)?.step ?? last;
        const added = more;
        if (added.length > 0) set_rows((before) => [...before, ...added]);
      } while (more.length > 0);
      set_job(now);
      if (!has_ended(now)) return;
      ended = true;
      await changed();
    });
    let last_event = "";
    void keep_on(() =>
      api.follow_events(
        id,
        last_event,
        (event) => {
          last_event = event.id || last_event;
          set_events((before) => [...before.slice(-kMostEvents), event]);
        },
        control.signal,
      ),
    );
    return () => control.abort();
  }, [id, changed]);

  const cancel = () => {
    api.cancel_job(id).catch((error: unknown) => set_problem(api.problem_of(error)));
  };
  if (!job) return problem && <ProblemView problem={problem} />;
  const last = rows.at(-1);
  return (
    <section aria-labelledby="job-title">
      <h2 id="job-title">
        {job.name}: {job.state}
      </h2>
      {!has_ended(job) && (
        <button type="button" onClick={cancel}>
          Save a checkpoint and end it
        </button>
      )}
      {problem && <ProblemView problem={problem} />}
      {job.failure && <pre class="problem">{job.failure}</pre>}
      {last && (
        <p>
          Step {last.step} of {job.steps}: loss {last.loss?.toFixed(4) ?? "not finite"}, {seconds(last.step_seconds)} a
          step
          {last.predicted_step_seconds ? `, ${seconds(last.predicted_step_seconds)} predicted` : ""}
          {job.remaining_seconds === null ? "" : `, ${seconds(job.remaining_seconds)} to go`}.
        </p>
      )}
      {rows.length > 1 && (
        <div class="beside">
          <Curve
            title="Seconds of a step, measured and predicted"
            lines={[
              { name: "measured", colour: "#0072b2", points: rows.map((row) => [row.step, row.step_seconds]) },
              {
                name: "predicted",
                colour: "#e69f00",
                points: rows
                  .filter((row) => row.predicted_step_seconds)
                  .map((row) => [row.step, row.predicted_step_seconds!]),
              },
            ]}
            text={seconds}
          />
          <Curve
            title="Loss"
            lines={[
              {
                name: "loss",
                colour: "#009e73",
                points: rows.filter((row) => row.loss !== null).map((row) => [row.step, row.loss!]),
              },
            ]}
            text={(value) => value.toFixed(3)}
          />
        </div>
      )}
      <h3>What happened</h3>
      <ul class="events">
        {events.map((event, index) => (
          <li key={index}>
            <strong>{event.type === "state" ? String(event.data.state) : event.type}</strong> {told(event)}
          </li>
        ))}
      </ul>
    </section>
  );
}

/// The event's own fields, without its time and those that hold whole structures.
function told(event: JobEvent): string {
  return Object.entries(event.data)
    .filter(([key, value]) => !["type", "time", event.type].includes(key) && typeof value !== "object")
    .map(([key, value]) => `${key} ${typeof value === "number" ? Number(value.toPrecision(6)) : String(value)}`)
    .join(", ");
}
