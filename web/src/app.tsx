// The visit: sign in, describe, look, change, compare.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import * as api from "./api";
import { Compare } from "./compare";
import { Downloads } from "./downloads";
import { Form } from "./form";
import { Jobs } from "./jobs";
import { PlanView } from "./plan_view";
import { ProblemView } from "./problem_view";
import { apply_changes, changed_cluster, kNoChanges } from "./request";
import { SignIn } from "./sign_in";
import type { Catalogue, Changes, Cluster, PlanRequest, Problem, Shown } from "./types";
import { WhatIf } from "./what_if";

type Tab = "plan" | "jobs";

interface Asked {
  request: PlanRequest; // of the form
  cluster: Cluster; // its cluster, whole
}

const kPatienceMilliseconds = 200; // that a slider rests before it is asked for

export function App() {
  const [catalogue, set_catalogue] = useState<Catalogue | null>(null);
  const [asked, set_asked] = useState<Asked | null>(null);
  const [changes, set_changes] = useState<Changes>(kNoChanges);
  const [shown, set_shown] = useState<Shown | null>(null);
  const [pinned, set_pinned] = useState<Shown | null>(null);
  const [problem, set_problem] = useState<Problem | null>(null);
  const [busy, set_busy] = useState("");
  const [tab, set_tab] = useState<Tab>("plan");
  const running = useRef<AbortController | null>(null);

  const tell = useCallback((error: unknown) => {
    const told = api.problem_of(error);
    if (told.status === 401) {
      api.keep_token("");
      set_catalogue(null);
    }
    set_problem(told);
  }, []);

  const sign_in = useCallback(async () => {
    try {
      set_catalogue(await api.catalogue());
      set_problem(null);
    } catch (error) {
      tell(error);
    }
  }, [tell]);
  useEffect(() => {
    if (api.known_token()) void sign_in();
  }, [sign_in]);

  /// The plan at once; why it is the best when that is known too.
  const search = useCallback(
    async (asked_now: Asked, changes_now: Changes, patience: number) => {
      running.current?.abort();
      const control = new AbortController();
      running.current = control;
      const request = apply_changes(asked_now.request, asked_now.cluster, changes_now);
      const cluster = changed_cluster(asked_now.cluster, changes_now);
      const find = (reasons: boolean) =>
        api.find_plan({ ...request, options: { ...request.options, reasons } }, control.signal);
      set_problem(null);
      set_busy("searching");
      try {
        await api.pause(patience, control.signal);
        const first = await find(false);
        const timeline = await api.timeline(first.id, control.signal);
        set_asked(asked_now);
        set_shown({ ...first, request, cluster, timeline, changes: changes_now, has_reasons: false });
        set_busy("asking why");
        const whole = await find(true);
        // Mostly it is the same plan: what is zoomed and picked stays.
        const is_same = JSON.stringify(whole.found.plan) === JSON.stringify(first.found.plan);
        const found = is_same ? { ...whole.found, plan: first.found.plan } : whole.found;
        const shown_timeline = is_same ? timeline : await api.timeline(whole.id, control.signal);
        set_shown({
          id: whole.id,
          found,
          request,
          cluster,
          timeline: shown_timeline,
          changes: changes_now,
          has_reasons: true,
        });
      } catch (error) {
        if (!control.signal.aborted) tell(error);
      } finally {
        if (running.current === control) set_busy("");
      }
    },
    [tell],
  );

  const plan_form = async (request: PlanRequest) => {
    running.current?.abort();
    const control = new AbortController();
    running.current = control;
    set_busy("reading the cluster");
    try {
      const cluster =
        typeof request.cluster === "string"
          ? await api.catalogue_cluster(request.cluster, control.signal)
          : request.cluster;
      if (control.signal.aborted) return;
      set_changes(kNoChanges);
      await search({ request, cluster }, kNoChanges, 0);
    } catch (error) {
      if (control.signal.aborted) return;
      set_busy("");
      tell(error);
    }
  };

  const change = (next: Changes) => {
    set_changes(next);
    if (asked) void search(asked, next, kPatienceMilliseconds);
  };

  if (!catalogue) {
    return (
      <Page>
        <SignIn
          problem={problem}
          enter={(token) => {
            api.keep_token(token);
            void sign_in();
          }}
        />
      </Page>
    );
  }
  const sign_out = () => {
    api.keep_token("");
    location.reload();
  };
  return (
    <Page sign_out={sign_out} tab={tab} set_tab={set_tab}>
      {tab === "jobs" && <Jobs />}
      <div hidden={tab === "jobs"}>
      <Form catalogue={catalogue} busy={busy !== ""} submit={plan_form} tell={tell} />
      <p class="busy" role="status">
        {busy ? `${busy} ...` : ""}
      </p>
      {problem && <ProblemView problem={problem} />}
      {shown && asked && (
        <>
          {shown.changes !== changes && <p class="hint">This is the plan before the last change.</p>}
          <PlanView
            shown={shown}
            // Nodes are numbered as they are shown: not while that is another cluster.
            {...(shown.changes === changes
              ? {
                  remove_device: (node: number, device_class: string) =>
                    change({ ...changes, removed: [...changes.removed, { node, device_class }] }),
                }
              : {})}
          />
          <WhatIf cluster={asked.cluster} changes={changes} change={change} />
          <section aria-labelledby="compare-title">
            <h2 id="compare-title">Compare</h2>
            <p>
              <button type="button" onClick={() => set_pinned(shown)}>
                Keep this plan to compare with
              </button>{" "}
              {pinned && (
                <button type="button" class="quiet" onClick={() => set_pinned(null)}>
                  Forget the kept one
                </button>
              )}
            </p>
            {pinned && <Compare kept={pinned} shown={shown} />}
          </section>
          <Downloads shown={shown} />
        </>
      )}
      </div>
    </Page>
  );
}

interface PageProperties {
  children: preact.ComponentChildren;
  sign_out?: () => void;
  tab?: Tab;
  set_tab?: (tab: Tab) => void;
}

function Page({ children, sign_out, tab, set_tab }: PageProperties) {
  return (
    <>
      <header>
        <h1>Coxswain</h1>
        <p>How to cut a model over machines, before paying for them</p>
        {set_tab && (
          <nav>
            {(["plan", "jobs"] as const).map((one) => (
              <button
                key={one}
                type="button"
                class={one === tab ? "" : "quiet"}
                aria-current={one === tab ? "page" : undefined}
                onClick={() => set_tab(one)}
              >
                {one === "plan" ? "Plans" : "Jobs"}
              </button>
            ))}
          </nav>
        )}
        {sign_out && (
          <button type="button" class="quiet" onClick={sign_out}>
            Sign out
          </button>
        )}
      </header>
      <main>{children}</main>
    </>
  );
}
