import { useState } from "preact/hooks";

import { ProblemView } from "./problem_view";
import type { Problem } from "./types";

export function SignIn({ enter, problem }: { enter: (token: string) => void; problem: Problem | null }) {
  const [token, set_token] = useState("");
  return (
    <form
      class="sign-in"
      onSubmit={(event) => {
        event.preventDefault();
        if (token.trim()) enter(token.trim());
      }}
    >
      <h2>Sign in</h2>
      <label>
        Token
        <input
          type="password"
          autocomplete="off"
          required
          value={token}
          onInput={(event) => set_token(event.currentTarget.value)}
        />
      </label>
      <p class="hint">
        <code>launch serve</code> printed it at its first start: <code>cox-plan-...</code>. It stays in this tab.
      </p>
      <button type="submit">Sign in</button>
      {problem && <ProblemView problem={problem} />}
    </form>
  );
}
