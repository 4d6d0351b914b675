import type { Problem } from "./types";

/// Every thing that is wrong, with where and how to mend it.
export function ProblemView({ problem }: { problem: Problem }) {
  return (
    <div class="problem" role="alert">
      <strong>{problem.detail || problem.title}</strong>
      {problem.errors && (
        <ul>
          {problem.errors.map((one) => (
            <li key={one.pointer + one.detail}>
              {one.pointer && <code>{one.pointer}</code>} {one.detail}
              {one.expected && `; expected ${one.expected}`}
              {one.got && `, got ${one.got}`}
              {one.hint && <em>. {one.hint}</em>}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
