// The machines that jobs run on: the service's own, then those that agents lend.
import { useEffect, useState } from "preact/hooks";

import * as api from "./api";
import { bytes } from "./format";
import { ProblemView } from "./problem_view";
import type { Node, Problem } from "./types";

const kLookMilliseconds = 5000;

export function Nodes() {
  const [nodes, set_nodes] = useState<Node[]>([]);
  const [problem, set_problem] = useState<Problem | null>(null);
  useEffect(() => {
    const look = async () => {
      try {
        set_nodes(await api.nodes());
        set_problem(null);
      } catch (error) {
        set_problem(api.problem_of(error));
      }
    };
    void look();
    const timer = setInterval(() => void look(), kLookMilliseconds);
    return () => clearInterval(timer);
  }, []);
  return (
    <section aria-labelledby="nodes-title">
      <h2 id="nodes-title">Nodes</h2>
      {problem && <ProblemView problem={problem} />}
      <div class="scroll" tabIndex={0} role="region" aria-label="nodes">
        <table>
          <thead>
            <tr>
              <th>node</th>
              <th>cores</th>
              <th>memory</th>
              <th>GPUs</th>
              <th>works for</th>
            </tr>
          </thead>
          <tbody>
            {nodes.map((node) => (
              <tr key={node.name}>
                <th scope="row">{node.name}</th>
                <td>{node.cores}</td>
                <td>{bytes(node.memory_bytes)}</td>
                <td>{gpus(node)}</td>
                <td>{node.running ?? "nobody"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p>
        <code>launch agent --coordinator {location.origin} --token-file FILE</code> lends another one.
      </p>
    </section>
  );
}

function gpus(node: Node): string {
  const first = node.cuda_devices[0];
  return first ? `${node.cuda_devices.length} x ${first.name}` : "none";
}
