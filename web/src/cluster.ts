// A cluster as the planner counts it (cluster/resource_graph.h): nodes group by group, devices of a class node by node.
import type { Cluster, DeviceId, Link, Plan } from "./types";

export interface Place {
  stage: number;
  replica: number;
  rank: number;
}

export interface DrawnDevice {
  device_class: number;
  index: number; // of its class
  place: Place | null; // what the plan does with it
}

export interface DrawnNode {
  node_class: string;
  devices: DrawnDevice[];
}

function key_of(device: DeviceId): string {
  return `${device.device_class}:${device.index}`;
}

function places(plan: Plan): Map<string, Place> {
  const found = new Map<string, Place>();
  let rank = 0;
  plan.stages.forEach((stage, stage_index) =>
    stage.replicas.forEach((replica, replica_index) =>
      replica.devices.forEach((device) =>
        found.set(key_of(device), { stage: stage_index, replica: replica_index, rank: rank++ }),
      ),
    ),
  );
  return found;
}

export function drawn_nodes(cluster: Cluster, plan: Plan): DrawnNode[] {
  const used = places(plan);
  const class_index = new Map(cluster.device_classes.map((one, index) => [one.name, index]));
  const counted = new Map<number, number>();
  const nodes: DrawnNode[] = [];
  for (const group of cluster.nodes) {
    const node_class = cluster.node_classes.find((one) => one.name === group.node_class);
    if (!node_class) continue;
    for (let node = 0; node < group.count; ++node) {
      const devices: DrawnDevice[] = [];
      for (const { device_class: name, count } of node_class.devices) {
        const device_class = class_index.get(name) ?? 0;
        for (let i = 0; i < count; ++i) {
          const index = counted.get(device_class) ?? 0;
          counted.set(device_class, index + 1);
          devices.push({ device_class, index, place: used.get(key_of({ device_class, index })) ?? null });
        }
      }
      nodes.push({ node_class: node_class.name, devices });
    }
  }
  return nodes;
}

/// Every link by name: those inside nodes, and tiers.
function links_of(cluster: Cluster): Link[] {
  return [
    ...cluster.node_classes.map((one) => one.link),
    ...cluster.nodes.flatMap((group) => (group.tiers ?? []).map((tier) => tier.link)),
    ...cluster.tiers.map((tier) => tier.link),
  ];
}

export function link_names(cluster: Cluster): string[] {
  return [...new Set(links_of(cluster).map((link) => link.name))].filter((name) => name !== "");
}

export function with_faster_link(cluster: Cluster, name: string, factor: number): Cluster {
  const changed = structuredClone(cluster);
  for (const link of links_of(changed)) {
    if (link.name !== name) continue;
    link.bandwidth_bytes_per_second.value *= factor;
    link.bandwidth_bytes_per_second.source = "assumed";
  }
  return changed;
}

export function with_nodes(cluster: Cluster, group: number, count: number): Cluster {
  const changed = structuredClone(cluster);
  changed.nodes[group]!.count = count;
  return changed;
}

/// Node number `node` has one device of the class less. Its group is cut around it; the pieces stay one network.
export function without_device(cluster: Cluster, node: number, device_class: string): Cluster {
  const changed = structuredClone(cluster);
  let first = 0;
  for (let at = 0; at < changed.nodes.length; ++at) {
    const group = changed.nodes[at]!;
    if (node >= first + group.count) {
      first += group.count;
      continue;
    }
    const whole = changed.node_classes.find((one) => one.name === group.node_class)!;
    const less = structuredClone(whole);
    less.devices = less.devices
      .map((one) => (one.device_class === device_class ? { ...one, count: one.count - 1 } : one))
      .filter((one) => one.count > 0);
    less.name = `${whole.name} without ${device_class}`;
    for (let i = 2; changed.node_classes.some((one) => one.name === less.name); ++i)
      less.name = `${whole.name} without ${device_class} (${i})`;
    changed.node_classes.push(less);
    const before = node - first;
    const after = group.count - before - 1;
    const pieces = [
      { node_class: whole.name, count: before },
      ...(less.devices.length > 0 ? [{ node_class: less.name, count: 1 }] : []),
      { node_class: whole.name, count: after },
    ].filter((piece) => piece.count > 0);
    if (less.devices.length === 0) changed.node_classes.pop();
    const tiers = group.tiers;
    changed.nodes.splice(
      at,
      1,
      ...pieces.map((piece, i) => {
        if (i > 0) return tiers || group.continues ? { ...piece, continues: true } : piece;
        return { ...piece, ...(tiers ? { tiers } : {}), ...(group.continues ? { continues: true } : {}) };
      }),
    );
    return changed;
  }
  return changed;
}
