// A timeline as rows and rectangles: two lanes a role, computing above, what travels below.
import { kind_of } from "./colours";
import type { Timeline, TimelineAction } from "./types";

export const kRowHeight = 34;
const kCompute = 20;
const kTravel = 8;
export const kAxis = 18;
export const kLabels = 84; // pixels left of the first action

export interface Row {
  compute: TimelineAction[]; // by start
  travel: TimelineAction[];
}

/// What is looked at, in seconds.
export interface Window {
  from: number;
  to: number;
}

export function rows_of(timeline: Timeline): Row[] {
  const rows: Row[] = timeline.roles.map(() => ({ compute: [], travel: [] }));
  for (const action of timeline.actions) {
    const row = rows[action.role];
    if (!row) continue;
    (action.stream === "compute" ? row.compute : row.travel).push(action);
  }
  for (const row of rows) {
    row.compute.sort((a, b) => a.start_seconds - b.start_seconds);
    row.travel.sort((a, b) => a.transfer_start_seconds - b.transfer_start_seconds);
  }
  return rows;
}

/// The first action of `actions` that ends after `seconds`. Requires: none overlaps the next.
export function first_after(actions: TimelineAction[], seconds: number): number {
  let low = 0;
  let high = actions.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (actions[middle]!.end_seconds <= seconds) low = middle + 1;
    else high = middle;
  }
  return low;
}

function nice_step(span: number, most: number): number {
  const raw = span / most;
  const unit = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((factor) => factor * unit).find((step) => step >= raw)!;
}

interface Look {
  width: number;
  window: Window;
  chosen: TimelineAction | null;
  text: (seconds: number) => string;
}

export function draw_timeline(canvas: HTMLCanvasElement, timeline: Timeline, rows: Row[], look: Look): void {
  const scale = window.devicePixelRatio || 1;
  const height = kAxis + rows.length * kRowHeight;
  canvas.width = look.width * scale;
  canvas.height = height * scale;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d")!;
  const style = getComputedStyle(canvas);
  const ink = style.color;
  const line = style.getPropertyValue("--line");
  const idle = style.getPropertyValue("--idle");
  context.scale(scale, scale);
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  const { from, to } = look.window;
  const per_second = (look.width - kLabels) / (to - from);
  const x_of = (seconds: number) => kLabels + (seconds - from) * per_second;

  const step = nice_step(to - from, Math.max(2, (look.width - kLabels) / 90));
  for (let tick = Math.ceil(from / step) * step; tick <= to; tick += step) {
    context.fillStyle = line;
    context.fillRect(x_of(tick), kAxis - 4, 1, height);
    context.fillStyle = ink;
    context.fillText(look.text(tick), x_of(tick) + 3, 8);
  }

  const box = (action: TimelineAction, start: number, top: number, tall: number, labelled: boolean) => {
    const x = x_of(start);
    const width = Math.max(0.4, (action.end_seconds - start) * per_second);
    if (x > look.width || x + width < kLabels) return;
    context.fillStyle = kind_of(action.kind).colour;
    context.fillRect(x, top, width > 3 ? width - 0.6 : width, tall);
    if (!labelled || width < 26) return;
    context.save();
    context.beginPath();
    context.rect(x, top, width, tall);
    context.clip();
    context.fillStyle = "#fff";
    context.fillText(action.action, x + 3, top + tall / 2 + 1);
    context.restore();
  };

  rows.forEach((row, index) => {
    const top = kAxis + index * kRowHeight + 2;
    context.fillStyle = idle;
    context.fillRect(x_of(Math.max(0, from)), top, (Math.min(to, timeline.step_seconds) - Math.max(0, from)) * per_second, kCompute);
    for (let i = first_after(row.compute, from); i < row.compute.length; ++i) {
      const action = row.compute[i]!;
      if (action.start_seconds > to) break;
      box(action, action.start_seconds, top, kCompute, true);
    }
    // Streams of one role overlap here, so none can be skipped by search.
    for (const action of row.travel) {
      if (action.transfer_start_seconds > to) break;
      if (action.end_seconds >= from) box(action, action.transfer_start_seconds, top + kCompute + 1, kTravel, false);
    }
  });

  context.clearRect(0, kAxis - 4, kLabels - 2, height);
  timeline.roles.forEach((role, index) => {
    context.fillStyle = ink;
    const top = kAxis + index * kRowHeight + 2;
    context.fillText(`stage ${role.stage}`, 0, top + 6);
    context.fillText(role.device, 0, top + 19, kLabels - 4);
  });

  if (look.chosen) {
    const travels = look.chosen.stream !== "compute";
    const start = travels ? look.chosen.transfer_start_seconds : look.chosen.start_seconds;
    const top = kAxis + look.chosen.role * kRowHeight + 2 + (travels ? kCompute + 1 : 0);
    context.strokeStyle = ink;
    context.lineWidth = 2;
    const x = Math.max(kLabels, x_of(start));
    context.strokeRect(x, top, Math.max(2, x_of(look.chosen.end_seconds) - x), travels ? kTravel : kCompute);
  }
}

/// What lies at a point of the canvas.
export function action_at(
  rows: Row[],
  point: { x: number; y: number },
  width: number,
  { from, to }: Window,
): TimelineAction | null {
  const index = Math.floor((point.y - kAxis) / kRowHeight);
  const row = rows[index];
  if (!row || point.x < kLabels) return null;
  const seconds = from + ((point.x - kLabels) / (width - kLabels)) * (to - from);
  const below = point.y - kAxis - index * kRowHeight - 2 > kCompute;
  // Of several the one that was drawn last.
  const found = (below ? row.travel : row.compute).findLast(
    (one) => (below ? one.transfer_start_seconds : one.start_seconds) <= seconds && one.end_seconds > seconds,
  );
  return found ?? null;
}
