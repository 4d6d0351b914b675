// The visit: sign in, describe, look, change, compare.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import * as api from "./api";
import { Compare } from "./compare";
import { Downloads } from "./downloads";
import { Form } from "./form";
import { Jobs } from "./jobs";
import { PlanView } from "./plan_view";
import { ProblemView } from "./problem_view";
import { type Changes, apply_changes, changed_cluster, kNoChanges } from "./request";
import { SignIn } from "./sign_in";
import type { Catalogue, Cluster, PlanRequest, Problem, Shown } from "./types";
import { WhatIf } from "./what_if";

type Tab = "plan" | "jobs";

interface Asked {
  request: PlanRequest; // of the form
  cluster: Cluster; // its cluster, whole
}

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
    if (!(error instanceof api.Refused)) throw error;
    if (error.problem.status === 401) {
      api.keep_token("");
      set_catalogue(null);
    }
    set_problem(error.problem);
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
    async (request: PlanRequest, cluster: Cluster) => {
      running.current?.abort();
      const control = new AbortController();
      running.current = control;
      const look = async (with_reasons: boolean) => {
        const options = { ...request.options, reasons: with_reasons };
        const { id, found } = await api.find_plan({ ...request, options }, control.signal);
        const timeline = await api.timeline(id, control.signal);
        if (!control.signal.aborted)
          set_shown({ id, request, cluster, found, timeline, has_reasons: with_reasons });
      };
      set_problem(null);
      set_busy("searching");
      try {
        await look(false);
        set_busy("asking why");
        await look(true);
      } catch (error) {
        if (!control.signal.aborted) tell(error);
      }
      if (running.current === control) set_busy("");
    },
    [tell],
  );

  const plan_form = async (request: PlanRequest) => {
    set_busy("reading the cluster");
    try {
      const cluster =
        typeof request.cluster === "string" ? await api.catalogue_cluster(request.cluster) : request.cluster;
      set_asked({ request, cluster });
      set_changes(kNoChanges);
      await search(request, cluster);
    } catch (error) {
      set_busy("");
      tell(error);
    }
  };

  const change = (next: Changes) => {
    set_changes(next);
    if (!asked) return;
    void search(apply_changes(asked.request, asked.cluster, next), changed_cluster(asked.cluster, next));
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
  if (tab === "jobs") {
    return (
      <Page sign_out={sign_out} tab={tab} set_tab={set_tab}>
        <Jobs />
      </Page>
    );
  }
  return (
    <Page sign_out={sign_out} tab={tab} set_tab={set_tab}>
      <Form catalogue={catalogue} busy={busy !== ""} submit={plan_form} tell={tell} />
      <p class="busy" role="status">
        {busy ? `${busy} ...` : ""}
      </p>
      {problem && <ProblemView problem={problem} />}
      {shown && asked && (
        <>
          <PlanView
            shown={shown}
            remove_device={(node, device_class) =>
              change({ ...changes, removed: [...changes.removed, { node, device_class }] })
            }
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
