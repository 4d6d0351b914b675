// The step in virtual time, of one replica of each role.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { kKinds, kind_of } from "./colours";
import { ranges, seconds } from "./format";
import { Swatch } from "./stacked_bar";
import { type Window, action_at, draw_timeline, kLabels, rows_of } from "./timeline_draw";
import type { Timeline as Data, TimelineAction } from "./types";

interface Properties {
  timeline: Data;
  title?: string;
  id?: string;
  longest?: number; // seconds that the width stands for; default: the step
}

export function Timeline({ timeline, title = "The step, action by action", id = "timeline", longest }: Properties) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, set_width] = useState(900);
  const whole = useMemo<Window>(() => ({ from: 0, to: longest ?? timeline.step_seconds }), [timeline, longest]);
  const [view, set_view] = useState<Window>(whole);
  const [picked, set_picked] = useState<{ of: Data; action: TimelineAction | null }>({ of: timeline, action: null });
  // One that was picked in another timeline is none of this one.
  const chosen = picked.of === timeline ? picked.action : null;
  const set_chosen = (action: TimelineAction | null) => set_picked({ of: timeline, action });
  const rows = useMemo(() => rows_of(timeline), [timeline]);
  const dragged = useRef<{ x: number; view: Window; moved: boolean } | null>(null);

  useEffect(() => {
    const element = canvas.current!;
    const observer = new ResizeObserver(() => set_width(element.clientWidth || 900));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useEffect(() => set_view(whole), [whole]);
  useEffect(() => {
    draw_timeline(canvas.current!, timeline, rows, { width, window: view, chosen, text: seconds });
  }, [timeline, rows, width, view, chosen]);

  const show = (from: number, span: number) => {
    const shorter = Math.min(whole.to, Math.max(whole.to / 20000, span));
    const start = Math.min(whole.to - shorter, Math.max(0, from));
    set_view({ from: start, to: start + shorter });
  };
  const zoom = (factor: number, around: number) => {
    const span = (view.to - view.from) * factor;
    show(around - (around - view.from) * factor, span);
  };
  const middle = () => (chosen ? (chosen.start_seconds + chosen.end_seconds) / 2 : (view.from + view.to) / 2);
  const choose = (action: TimelineAction | undefined) => {
    if (!action) return;
    set_chosen(action);
    const span = view.to - view.from;
    if (action.start_seconds < view.from || action.end_seconds > view.to)
      show((action.start_seconds + action.end_seconds - span) / 2, span);
  };
  const at = (event: MouseEvent) => {
    const box = canvas.current!.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  const key = (event: KeyboardEvent) => {
    const row = rows[chosen?.role ?? 0];
    const list = row ? (chosen && chosen.stream !== "compute" ? row.travel : row.compute) : [];
    const position = chosen ? list.indexOf(chosen) : -1;
    const span = view.to - view.from;
    const beside = (role: number) => {
      const other = rows[role]?.compute;
      const from = chosen?.start_seconds ?? 0;
      choose(other?.find((one) => one.end_seconds > from) ?? other?.at(-1));
    };
    // From what computes to what travels at that time, and back.
    const beside_lane = () => {
      const other = chosen && chosen.stream !== "compute" ? row?.compute : row?.travel;
      const from = chosen?.start_seconds ?? 0;
      return other?.find((one) => one.end_seconds > from) ?? other?.at(-1);
    };
    if (event.key === "+" || event.key === "=") zoom(0.5, middle());
    else if (event.key === "-") zoom(2, middle());
    else if (event.key === "0") set_view(whole);
    else if (event.key === "ArrowRight" && event.shiftKey) show(view.from + span / 4, span);
    else if (event.key === "ArrowLeft" && event.shiftKey) show(view.from - span / 4, span);
    else if (event.key === "ArrowRight") choose(list[position + 1]);
    else if (event.key === "ArrowLeft") choose(list[position - 1]);
    else if (event.key === "t") choose(beside_lane());
    else if (event.key === "ArrowDown") beside(chosen ? chosen.role + 1 : 0);
    else if (event.key === "ArrowUp") beside((chosen?.role ?? 0) - 1);
    else return;
    event.preventDefault();
  };

  const kinds = useMemo(() => {
    const there = new Set(timeline.actions.map((action) => kind_of(action.kind).name));
    return kKinds.filter((one) => there.has(one.name));
  }, [timeline]);
  return (
    <section aria-labelledby={`${id}-title`}>
      <h2 id={`${id}-title`}>{title}</h2>
      <p class="tools">
        <button type="button" onClick={() => zoom(0.5, middle())}>
          Zoom in
        </button>
        <button type="button" onClick={() => zoom(2, middle())}>
          Zoom out
        </button>
        <button type="button" onClick={() => set_view(whole)}>
          Whole step
        </button>
        <span class="hint">Drag to move, Ctrl and wheel or + and - to zoom, arrow keys from action to action, t to what travels and back.</span>
      </p>
      <canvas
        ref={canvas}
        id={`${id}-canvas`}
        class="timeline"
        tabIndex={0}
        role="img"
        aria-label={`${timeline.actions.length} actions of ${timeline.roles.length} roles over ${seconds(timeline.step_seconds)}`}
        aria-describedby={`${id}-action`}
        onKeyDown={key}
        onWheel={(event) => {
          if (!event.ctrlKey) return;
          event.preventDefault();
          const share = (at(event).x - kLabels) / (width - kLabels);
          zoom(event.deltaY > 0 ? 1.25 : 0.8, view.from + share * (view.to - view.from));
        }}
        onPointerDown={(event) => {
          if (event.button !== 0) return;
          canvas.current!.setPointerCapture(event.pointerId);
          dragged.current = { x: event.clientX, view, moved: false };
        }}
        onPointerMove={(event) => {
          const drag = dragged.current;
          if (!drag || event.buttons === 0 || Math.abs(event.clientX - drag.x) < 3) return;
          drag.moved = true;
          const span = drag.view.to - drag.view.from;
          show(drag.view.from - ((event.clientX - drag.x) / (width - kLabels)) * span, span);
        }}
        onPointerCancel={() => {
          dragged.current = null;
        }}
        onPointerUp={(event) => {
          if (dragged.current && !dragged.current.moved) set_chosen(action_at(rows, at(event), width, view));
          dragged.current = null;
        }}
      />
      <p id={`${id}-action`} role="status">
        {chosen ? describe(chosen, timeline) : "Click an action to see what it is."}
      </p>
      <p class="legend">
        {kinds.map((one) => (
          <span key={one.name} class="key">
            <Swatch colour={one.colour} /> {one.name}
          </span>
        ))}
        <span class="key">
          <i class="swatch idle" aria-hidden="true" /> bubble
        </span>
      </p>
    </section>
  );
}

function describe(action: TimelineAction, timeline: Data): string {
  const role = timeline.roles[action.role]!;
  const begins = action.stream === "compute" ? action.start_seconds : action.transfer_start_seconds;
  return (
    `${action.action}, ${kind_of(action.kind).name}: from ${seconds(begins)} to ${seconds(action.end_seconds)}` +
    ` (${seconds(action.end_seconds - begins)}), stage ${role.stage} on ${role.device}, ranks ${ranges(role.ranks)}.`
  );
}
