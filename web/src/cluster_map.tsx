// Every device in its node, coloured by the stage that it computes.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { type DrawnDevice, drawn_nodes } from "./cluster";
import { stage_colour } from "./colours";
import { ranges } from "./format";
import { Swatch } from "./stacked_bar";
import type { Cluster, Plan, Stage } from "./types";

interface Properties {
  cluster: Cluster;
  plan: Plan;
  remove_device?: (node: number, device_class: string) => void;
}

interface Cell {
  device: DrawnDevice;
  node: number;
  x: number;
  y: number;
}

const kRow = 8; // devices of a node beside each other

/// Nodes fill rows from left to right; the more devices, the smaller their cells.
function lay_out(nodes: ReturnType<typeof drawn_nodes>, width: number) {
  const total = nodes.reduce((sum, node) => sum + node.devices.length, 0);
  const cell = total > 20000 ? 3 : total > 4000 ? 6 : total > 600 ? 11 : 18;
  const gap = cell > 6 ? 2 : 1;
  const padding = cell > 6 ? 4 : 2;
  const cells: Cell[] = [];
  const boxes: { x: number; y: number; width: number; height: number }[] = [];
  let x = 0;
  let y = 0;
  let row_height = 0;
  nodes.forEach((node, index) => {
    const columns = Math.min(kRow, Math.max(1, node.devices.length));
    const rows = Math.max(1, Math.ceil(node.devices.length / kRow));
    const box = { width: columns * (cell + gap) - gap + 2 * padding, height: rows * (cell + gap) - gap + 2 * padding };
    if (x > 0 && x + box.width > width) {
      x = 0;
      y += row_height + padding;
      row_height = 0;
    }
    boxes.push({ x, y, ...box });
    node.devices.forEach((device, i) =>
      cells.push({
        device,
        node: index,
        x: x + padding + (i % kRow) * (cell + gap),
        y: y + padding + Math.floor(i / kRow) * (cell + gap),
      }),
    );
    x += box.width + padding;
    row_height = Math.max(row_height, box.height);
  });
  return { cells, boxes, cell, height: y + row_height };
}

export function ClusterMap({ cluster, plan, remove_device }: Properties) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, set_width] = useState(900);
  const [chosen, set_chosen] = useState<number | null>(null);
  const nodes = useMemo(() => drawn_nodes(cluster, plan), [cluster, plan]);
  const layout = useMemo(() => lay_out(nodes, width), [nodes, width]);

  useEffect(() => {
    const element = canvas.current!;
    const observer = new ResizeObserver(() => set_width(element.clientWidth || 900));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useEffect(() => set_chosen(null), [nodes]);
  useEffect(() => draw(canvas.current!, layout, width, chosen), [layout, width, chosen]);

  const find = (event: MouseEvent) => {
    const box = canvas.current!.getBoundingClientRect();
    const at = { x: event.clientX - box.left, y: event.clientY - box.top };
    return layout.cells.findIndex(
      (one) => at.x >= one.x && at.x < one.x + layout.cell && at.y >= one.y && at.y < one.y + layout.cell,
    );
  };
  const move = (event: KeyboardEvent) => {
    const steps: Record<string, number> = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: kRow, ArrowUp: -kRow };
    const last = layout.cells.length - 1;
    if (event.key === "Home") set_chosen(0);
    else if (event.key === "End") set_chosen(last);
    else if (event.key in steps) set_chosen(Math.min(last, Math.max(0, (chosen ?? -1) + steps[event.key]!)));
    else return;
    event.preventDefault();
  };

  const cell = chosen === null ? undefined : layout.cells[chosen];
  const unused = layout.cells.filter((one) => one.device.place === null).length;
  return (
    <section aria-labelledby="cluster-title">
      <h2 id="cluster-title">What each device does</h2>
      <canvas
        ref={canvas}
        class="map"
        tabIndex={0}
        role="img"
        aria-label={`${layout.cells.length} devices on ${nodes.length} nodes, by stage; arrow keys go from device to device`}
        aria-describedby="cluster-device"
        onClick={(event) => {
          const found = find(event);
          set_chosen(found < 0 ? null : found);
        }}
        onKeyDown={move}
      />
      <p id="cluster-device" role="status">
        {cell ? describe(cell, cluster, plan) : "Click a device, or reach it with the arrow keys."}{" "}
        {cell && remove_device && (
          <button
            type="button"
            onClick={() => remove_device(cell.node, cluster.device_classes[cell.device.device_class]!.name)}
          >
            What if it were not there
          </button>
        )}
      </p>
      <StageTable plan={plan} unused={unused} />
    </section>
  );
}

function describe({ device, node }: Cell, cluster: Cluster, plan: Plan): string {
  const name = `${cluster.device_classes[device.device_class]?.name ?? "device"} ${device.index}, node ${node}`;
  if (!device.place) return `${name}: not used.`;
  const { stage, replica, rank } = device.place;
  const here = plan.stages[stage]!.replicas[replica]!;
  const groups = [
    here.tensor > 1 ? `1 of ${here.tensor} tensor parallel` : "",
    here.context > 1 ? `1 of ${here.context} context parallel` : "",
    here.expert > 1 ? `1 of ${here.expert} expert parallel` : "",
  ].filter((text) => text !== "");
  return `${name}: rank ${rank}, stage ${stage}, replica ${replica}, ${here.samples} samples a micro-batch${
    groups.length > 0 ? `, ${groups.join(", ")}` : ""
  }.`;
}

function degrees(stage: Stage, of: (replica: Stage["replicas"][number]) => number): string {
  return ranges([...new Set(stage.replicas.map(of))].sort((a, b) => a - b));
}

function StageTable({ plan, unused }: { plan: Plan; unused: number }) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="stages">
      <table>
        <thead>
          <tr>
            <th>stage</th>
            <th>blocks</th>
            <th>replicas</th>
            <th>devices</th>
            <th>tensor</th>
            <th>context</th>
            <th>expert</th>
            <th>samples</th>
            <th>ZeRO</th>
            <th>recomputed blocks</th>
            <th>offload</th>
          </tr>
        </thead>
        <tbody>
          {plan.stages.map((stage, index) => (
            <tr key={index}>
              <th scope="row">
                <Swatch colour={stage_colour(index)} /> {index}
              </th>
              <td>
                {stage.first_block}-{stage.end_block - 1}
              </td>
              <td>{stage.replicas.length}</td>
              <td>{stage.replicas.reduce((sum, replica) => sum + replica.devices.length, 0)}</td>
              <td>{degrees(stage, (replica) => replica.tensor)}</td>
              <td>{degrees(stage, (replica) => replica.context)}</td>
              <td>{degrees(stage, (replica) => replica.expert)}</td>
              <td>{degrees(stage, (replica) => replica.samples)}</td>
              <td>{stage.zero_stage ?? 0}</td>
              <td>{stage.recompute.filter((one) => one !== "none").length}</td>
              <td>{stage.offload}</td>
            </tr>
          ))}
          {unused > 0 && (
            <tr>
              <th scope="row">none</th>
              <td colSpan={10}>{unused} devices are not used</td>
            </tr>
          )}
        </tbody>
      </table>
    </div>
  );
}

function draw(canvas: HTMLCanvasElement, layout: ReturnType<typeof lay_out>, width: number, chosen: number | null) {
  const scale = window.devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = layout.height * scale;
  canvas.style.height = `${layout.height}px`;
  const context = canvas.getContext("2d")!;
  const style = getComputedStyle(canvas);
  context.scale(scale, scale);
  context.strokeStyle = style.getPropertyValue("--line");
  for (const box of layout.boxes) context.strokeRect(box.x + 0.5, box.y + 0.5, box.width - 1, box.height - 1);
  const none = style.getPropertyValue("--unused");
  for (const one of layout.cells) {
    context.fillStyle = one.device.place ? stage_colour(one.device.place.stage) : none;
    context.fillRect(one.x, one.y, layout.cell, layout.cell);
  }
  const cell = chosen === null ? undefined : layout.cells[chosen];
  if (!cell) return;
  context.strokeStyle = style.color;
  context.lineWidth = 2;
  context.strokeRect(cell.x - 1, cell.y - 1, layout.cell + 2, layout.cell + 2);
}
