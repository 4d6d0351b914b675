// Colours that stay apart for most eyes, on light and on dark; text or a table says the same beside every one of them.

const kStages = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8172b3", "#b3a100"];

export function stage_colour(stage: number): string {
  if (stage < kStages.length) return kStages[stage]!;
  return `hsl(${Math.round((stage * 137.5) % 360)} 55% 52%)`;
}

export const kKinds: { match: (kind: string) => boolean; name: string; colour: string }[] = [
  { match: (kind) => kind === "forward", name: "forward", colour: "#0072b2" },
  { match: (kind) => kind === "backward", name: "backward", colour: "#009e73" },
  { match: (kind) => kind === "backward_input", name: "backward, inputs", colour: "#35b98f" },
  { match: (kind) => kind === "backward_weight", name: "backward, weights", colour: "#e69f00" },
  { match: (kind) => kind === "optimizer", name: "optimizer", colour: "#cc79a7" },
  { match: (kind) => /^(send|receive)_/.test(kind), name: "send, receive", colour: "#d55e00" },
  { match: (kind) => kind.startsWith("reduce"), name: "reduce gradients", colour: "#8172b3" },
  { match: (kind) => kind.startsWith("gather"), name: "gather parameters", colour: "#56b4e9" },
  { match: () => true, name: "other", colour: "#808080" },
];

export function kind_of(kind: string): { name: string; colour: string } {
  return kKinds.find((one) => one.match(kind))!;
}

export const kStepParts: { key: string; name: string; colour: string }[] = [
  { key: "forward", name: "forward", colour: "#0072b2" },
  { key: "backward", name: "backward", colour: "#009e73" },
  { key: "recompute", name: "recompute", colour: "#e69f00" },
  { key: "communication_exposed", name: "communication not hidden", colour: "#d55e00" },
  { key: "bubble", name: "bubble", colour: "#9a9a9a" },
  { key: "optimizer", name: "optimizer", colour: "#cc79a7" },
];

export const kMemoryParts: { key: string; name: string; colour: string }[] = [
  { key: "parameters", name: "parameters", colour: "#0072b2" },
  { key: "gradients", name: "gradients", colour: "#009e73" },
  { key: "optimizer", name: "optimizer", colour: "#cc79a7" },
  { key: "activations", name: "activations", colour: "#e69f00" },
  { key: "transfers", name: "transfers", colour: "#d55e00" },
  { key: "workspace", name: "workspace", colour: "#56b4e9" },
  { key: "margin", name: "margin", colour: "#9a9a9a" },
];
