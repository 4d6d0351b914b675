// The plan as `launch train --plan` takes it, the trace for Perfetto or chrome://tracing, the timeline as a picture.
import type { Shown, Timeline } from "./types";

function save(name: string, content: Blob): void {
  const url = URL.createObjectURL(content);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function save_json(name: string, value: unknown): void {
  save(name, new Blob([JSON.stringify(value, null, 2) + "\n"], { type: "application/json" }));
}

/// Chrome's trace format: a process for each role, a thread for each stream.
export function chrome_trace(timeline: Timeline): unknown {
  const streams = [...new Set(timeline.actions.map((action) => action.stream))].sort();
  const thread = (stream: string) => (stream === "compute" ? 0 : streams.indexOf(stream) + 1);
  const names = timeline.roles.flatMap((role, pid) => [
    { ph: "M", name: "process_name", pid, args: { name: `stage ${role.stage} on ${role.device}` } },
    ...streams.map((stream) => ({ ph: "M", name: "thread_name", pid, tid: thread(stream), args: { name: stream } })),
  ]);
  const events = timeline.actions.map((action) => {
    const start = action.stream === "compute" ? action.start_seconds : action.transfer_start_seconds;
    return {
      ph: "X",
      name: action.action,
      cat: action.kind,
      pid: action.role,
      tid: thread(action.stream),
      ts: start * 1e6,
      dur: Math.max(0, action.end_seconds - start) * 1e6,
      args: { micro_batch: action.micro_batch },
    };
  });
  return { displayTimeUnit: "ms", traceEvents: [...names, ...events] };
}

export function Downloads({ shown }: { shown: Shown }) {
  const picture = () => {
    const canvas = document.getElementById("timeline-canvas") as HTMLCanvasElement;
    canvas.toBlob((content) => content && save("timeline.png", content), "image/png");
  };
  return (
    <section aria-labelledby="downloads-title">
      <h2 id="downloads-title">Take it along</h2>
      <p class="tools">
        <button type="button" onClick={() => save_json("plan.json", shown.found)}>
          plan.json
        </button>
        <button type="button" onClick={() => save_json("trace.json", chrome_trace(shown.timeline))}>
          trace.json
        </button>
        <button type="button" onClick={picture}>
          timeline.png
        </button>
        <button type="button" onClick={() => save_json("request.json", shown.request)}>
          request.json
        </button>
        <button type="button" onClick={() => save_json("cluster.json", shown.cluster)}>
          cluster.json
        </button>
      </p>
      <p class="hint">
        <code>launch train JOB --plan plan.json</code> trains it; ui.perfetto.dev opens the trace;{" "}
        <code>POST /v1/plans</code> takes the request.
      </p>
    </section>
  );
}
