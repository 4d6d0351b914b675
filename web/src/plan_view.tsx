// One plan, from the number that matters down to every action.
import { ClusterMap } from "./cluster_map";
import { count, percent, seconds, usd } from "./format";
import { Memory } from "./memory";
import { Rejections, Sensitivities } from "./reasons";
import { RunnersUp } from "./runners_up";
import { StackedBar } from "./stacked_bar";
import { kStepParts } from "./colours";
import { Timeline } from "./timeline";
import type { Shown } from "./types";

interface Properties {
  shown: Shown;
  remove_device?: (node: number, device_class: string) => void;
}

export function PlanView({ shown, remove_device }: Properties) {
  const { found, timeline, cluster } = shown;
  const estimate = found.estimate;
  return (
    <>
      <section aria-labelledby="plan-title">
        <h2 id="plan-title">The plan</h2>
        <p class="summary" data-testid="summary">
          {found.summary}
        </p>
        <dl class="numbers">
          <Fact name="step" value={seconds(estimate.step_seconds)} />
          <Fact name="tokens a second" value={count(estimate.tokens_per_second)} />
          <Fact name="model FLOPs utilization" value={percent(estimate.model_flops_utilization)} />
          <Fact name="bubble" value={percent(estimate.bubble_fraction)} />
          {estimate.cost_per_step_usd ? <Fact name="cost of a step" value={usd(estimate.cost_per_step_usd)} /> : null}
          <Fact name="above the bound, at most" value={percent(found.optimality_gap)} />
        </dl>
        <p>
          What binds: <strong>{found.binding_constraint || "nothing that one change would buy"}</strong>. No plan is
          faster than {seconds(found.lower_bound_step_seconds)}. {count(found.search.candidates_costed)} candidates were
          costed in {seconds(found.search.seconds)}.
        </p>
        <h3>Where the time goes</h3>
        <StackedBar
          label="parts of a step"
          parts={kStepParts.map((part) => ({
            ...part,
            value: estimate.parts[part.key as keyof typeof estimate.parts] ?? 0,
          }))}
          total={estimate.step_seconds}
          text={seconds}
        />
      </section>
      <ClusterMap cluster={cluster} plan={found.plan} {...(remove_device ? { remove_device } : {})} />
      <Timeline timeline={timeline} />
      <Memory devices={estimate.devices} plan={found.plan} />
      <RunnersUp found={found} />
      {shown.has_reasons && (
        <>
          <Rejections rejected={found.rejected} />
          <Sensitivities sensitivities={found.sensitivities} step_seconds={estimate.step_seconds} />
        </>
      )}
    </>
  );
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}
