// A `launch serve` of its own for each file of tests: a free port, a fresh state folder, ended with the tests.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Served {
  url: string;
  token: string; // may plan
  run_token: string;
  root: string; // whose files jobs may name
  stop: () => Promise<void>;
}

export async function serve(): Promise<Served> {
  const program = process.env.COX_LAUNCH ?? join(import.meta.dirname, "../../build/release/bin/launch");
  const state = mkdtempSync(join(tmpdir(), "coxswain-web-"));
  const root = join(state, "root");
  mkdirSync(root);
  const child: ChildProcess = spawn(program, ["serve", "--listen", "127.0.0.1:0", "--state", state, "--root", root], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const told = await new Promise<string>((resolve, reject) => {
    let text = "";
    child.stdout!.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      if (text.includes("serving ")) resolve(text);
    });
    child.once("error", reject);
    child.once("exit", () => reject(new Error(`launch serve ended: ${text}`)));
  });
  return {
    url: /serving (\S+)/.exec(told)![1]!,
    token: /plan +(\S+)/.exec(told)![1]!,
    run_token: /run +(\S+)/.exec(told)![1]!,
    root,
    stop: async () => {
      child.kill("SIGTERM");
      await ended;
      rmSync(state, { recursive: true, force: true });
    },
  };
}
