// Calls of the service. The token is in a header alone, never in a URL; it lives as long as the tab.
import type {
  Catalogue,
  Cluster,
  Explanation,
  FoundPlan,
  Job,
  JobEvent,
  Node,
  PlanRequest,
  Problem,
  StepRow,
  Timeline,
} from "./types";

const kToken = "coxswain-token";
const kMostModelBytes = 64 << 20;

export class Refused extends Error {
  constructor(public readonly problem: Problem) {
    super(problem.detail);
  }
}

export function known_token(): string {
  return sessionStorage.getItem(kToken) ?? "";
}

export function keep_token(token: string): void {
  if (token) sessionStorage.setItem(kToken, token);
  else sessionStorage.removeItem(kToken);
}

async function call(path: string, options: RequestInit = {}): Promise<Response> {
  const headers = new Headers(options.headers);
  headers.set("Authorization", `Bearer ${known_token()}`);
  let response: Response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Refused({ status: 0, title: "no answer", detail: "the service does not answer; does it still run?" });
  }
  if (response.ok) return response;
  const text = await response.text();
  let problem: Problem;
  try {
    problem = JSON.parse(text) as Problem;
  } catch {
    problem = { status: response.status, title: response.statusText, detail: text };
  }
  throw new Refused(problem);
}

/// Whatever went wrong, as a problem that can be shown.
export function problem_of(error: unknown): Problem {
  if (error instanceof Refused) return error.problem;
  return { status: 0, title: "error", detail: error instanceof Error ? error.message : String(error) };
}

async function json<T>(path: string, options: RequestInit = {}): Promise<T> {
  return (await (await call(path, options)).json()) as T;
}

export function catalogue(): Promise<Catalogue> {
  return json("/v1/catalogue");
}

export function catalogue_cluster(name: string, signal?: AbortSignal): Promise<Cluster> {
  return json(`/v1/catalogue?cluster=${encodeURIComponent(name)}`, { signal: signal ?? null });
}

export function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

/// Waits as long as the search takes; one that nobody waits for any more is stopped.
export async function find_plan(
  request: PlanRequest,
  signal: AbortSignal,
): Promise<{ id: string; found: FoundPlan }> {
  // Not cut off: only its answer tells which search is to be stopped.
  let response = await call("/v1/plans", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request),
  });
  const location = response.headers.get("Location") ?? "";
  try {
    signal.throwIfAborted();
    while (response.status === 202) {
      await pause(200, signal);
      response = await call(location, { signal });
    }
    return { id: location.slice(location.lastIndexOf("/") + 1), found: (await response.json()) as FoundPlan };
  } catch (error) {
    if (signal.aborted && response.status === 202) call(location, { method: "DELETE" }).catch(() => undefined);
    // Somebody else who asked the same stopped it.
    const is_gone = error instanceof Refused && response.status === 202 && [404, 409].includes(error.problem.status);
    if (is_gone && !signal.aborted) return find_plan(request, signal);
    throw error;
  }
}

export function timeline(id: string, signal: AbortSignal): Promise<Timeline> {
  return json(`/v1/plans/${id}/timeline`, { signal });
}

export function explain_against(id: string, against: string, signal: AbortSignal): Promise<Explanation> {
  return json(`/v1/plans/${id}/explain?against=${against}`, { signal });
}

/// The name under which a job may use the model.
export async function send_model(file: File): Promise<string> {
  if (file.size > kMostModelBytes)
    throw new Error(`${file.name} has ${file.size} bytes, and the service takes ${kMostModelBytes}: export it without weights`);
  if (!crypto.subtle) throw new Error("this browser hashes files on https and on localhost alone");
  const content = await file.arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  await call(`/v1/models/${hex}`, {
    method: "PUT",
    headers: { "Content-Type": "application/octet-stream" },
    body: content,
  });
  return `sha256:${hex}`;
}

export async function jobs(): Promise<Job[]> {
  return (await json<{ jobs: Job[] }>("/v1/jobs?limit=100")).jobs;
}

export async function nodes(): Promise<Node[]> {
  return (await json<{ nodes: Node[] }>("/v1/cluster")).nodes;
}

export function job(id: string, signal: AbortSignal): Promise<Job> {
  return json(`/v1/jobs/${id}`, { signal });
}

export async function metrics(id: string, after: number, signal: AbortSignal): Promise<StepRow[]> {
  return (await json<{ metrics: StepRow[] }>(`/v1/jobs/${id}/metrics?after=${after}`, { signal })).metrics;
}

export async function cancel_job(id: string): Promise<void> {
  await call(`/v1/jobs/${id}/cancel`, { method: "POST" });
}

/// Server-sent events, read by fetch so that the token stays in a header: those after `last`. Ends with the job, or
/// with the service.
export async function follow_events(
  id: string,
  last: string,
  take: (event: JobEvent) => void,
  signal: AbortSignal,
): Promise<void> {
  const headers: Record<string, string> = { Accept: "text/event-stream" };
  if (last) headers["Last-Event-ID"] = last;
  const response = await call(`/v1/jobs/${id}/events`, { signal, headers });
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    pending += part.value;
    const blocks = pending.split("\n\n");
    pending = blocks.pop()!;
    for (const block of blocks) {
      const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(block)?.[1];
      const data = field("data");
      if (data) take({ id: field("id") ?? "", type: field("event") ?? "", data: JSON.parse(data) as JobEvent["data"] });
    }
  }
}
