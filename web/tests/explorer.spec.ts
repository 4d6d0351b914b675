// The whole visit, as a person makes it, against a real `launch serve`. What the page says is held against what the
// service answers to the same request, asked apart from the page.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import AxeBuilder from "@axe-core/playwright";
import { type Page, expect, test } from "@playwright/test";

import type { FoundPlan } from "../src/types";
import { type Served, serve } from "./served";

let served: Served;
test.beforeAll(async () => {
  served = await serve();
});
test.afterAll(async () => served.stop());

let foreign: string[];
let errors: string[];
test.beforeEach(async ({ page }) => {
  foreign = [];
  errors = [];
  page.on("request", (request) => {
    const { protocol, origin } = new URL(request.url());
    if (!["data:", "blob:"].includes(protocol) && origin !== served.url) foreign.push(request.url());
    if (request.url().includes(served.token)) errors.push("the token is in a URL");
  });
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error" && !/status of (401|403|422)/.test(message.text())) errors.push(message.text());
  });
  await page.goto(served.url);
});
test.afterEach(() => {
  expect(foreign).toEqual([]);
  expect(errors).toEqual([]);
});

async function sign_in(page: Page, token = served.token) {
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByRole("button", { name: "Plan", exact: true })).toBeVisible();
}

async function plan(page: Page, hardware: string) {
  await page.getByLabel("Hardware of the catalogue").fill(hardware);
  await page.getByRole("button", { name: "Plan", exact: true }).first().click();
  await expect(page.getByTestId("summary")).toBeVisible();
}

/// Nothing is searched any more.
async function settled(page: Page) {
  await expect(page.locator(".busy")).toHaveText("");
}

async function ask(request: unknown): Promise<FoundPlan> {
  const headers = { Authorization: `Bearer ${served.token}`, "Content-Type": "application/json" };
  let response = await fetch(`${served.url}/v1/plans`, { method: "POST", headers, body: JSON.stringify(request) });
  const path = response.headers.get("Location");
  while (response.status === 202) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    response = await fetch(served.url + path, { headers });
  }
  return (await response.json()) as FoundPlan;
}

async function download(page: Page, button: string): Promise<Buffer> {
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: button, exact: true }).click()]);
  return readFileSync(await file.path());
}

async function no_serious_issue(page: Page) {
  const found = await new AxeBuilder({ page }).analyze();
  const serious = found.violations.filter((one) => ["serious", "critical"].includes(one.impact ?? ""));
  expect(serious.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`)).toEqual([]);
}

test("a wrong token is told so, and forgotten", async ({ page }) => {
  await page.getByLabel("Token").fill("cox-plan-nothing");
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByRole("alert")).toContainText("bearer token");
  await no_serious_issue(page);
  await sign_in(page);
  await expect(page.getByRole("alert")).toHaveCount(0);
});

test("a plan is shown as the service finds it, with why and what changes would buy", async ({ page }) => {
  await sign_in(page);
  await plan(page, "1x4xa100-40gb-sxm");
  await settled(page);
  const found = await ask(JSON.parse((await download(page, "request.json")).toString()));
  await expect(page.getByTestId("summary")).toHaveText(found.summary);
  await expect(page.getByText(found.binding_constraint)).toBeVisible();
  for (const one of found.rejected.filter((one) => one.family))
    await expect(page.getByRole("region", { name: "rejected plans" })).toContainText(one.reason);
  for (const one of found.sensitivities)
    await expect(page.getByRole("rowheader", { name: one.change, exact: true })).toBeVisible();
  const memory = page.getByRole("region", { name: "memory per device" }).getByRole("row");
  await expect(memory).toHaveCount(found.estimate.devices.length + 1);
  const written = JSON.parse((await download(page, "plan.json")).toString()) as FoundPlan;
  expect(written.plan).toEqual(found.plan);
  await no_serious_issue(page);
  await page.screenshot({ path: "test-results/plan.png", fullPage: true });
});

test("by keyboard alone: sign in, plan, look at devices and actions, constrain, compare, download", async ({ page }) => {
  await page.getByLabel("Token").focus();
  await page.keyboard.type(served.token);
  await page.keyboard.press("Enter");
  const hardware = page.getByLabel("Hardware of the catalogue");
  await expect(hardware).toBeVisible();
  await hardware.focus();
  await page.keyboard.press("Control+A");
  await page.keyboard.type("1x4xa100-40gb-sxm");
  await page.keyboard.press("Enter");
  await expect(page.getByTestId("summary")).toBeVisible();
  await settled(page);
  const reached = async (selector: string) => {
    for (let i = 0; i < 60; ++i) {
      await page.keyboard.press("Tab");
      if (await page.evaluate((wanted) => document.activeElement?.matches(wanted) ?? false, selector)) return;
    }
    throw new Error(`no Tab reaches ${selector}`);
  };
  const reached_button = async (name: string) => {
    for (let i = 0; i < 60; ++i) {
      await page.keyboard.press("Tab");
      const here = await page.evaluate(() => [document.activeElement?.tagName, document.activeElement?.textContent?.trim()]);
      if (here[0] === "BUTTON" && here[1] === name) return;
    }
    throw new Error(`no Tab reaches the button ${name}`);
  };
  const before = (await page.getByTestId("summary").textContent())!;
  await reached_button("Keep this plan to compare with");
  await page.keyboard.press("Enter");
  await reached("canvas.map");
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowRight");
  await expect(page.locator("#cluster-device")).toContainText("a100-40gb-sxm 1, node 0: rank 1, stage");
  await reached("canvas.timeline");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("+");
  await expect(page.locator("#timeline-action")).toContainText(/, stage 0 on a100-40gb-sxm, ranks 0/);
  await reached(".slider input");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  await expect(page.getByTestId("summary")).toContainText("tp2");
  await settled(page);
  const compare = page.getByTestId("compare");
  await expect(compare.getByRole("cell", { name: before, exact: true })).toBeVisible();
  await expect(compare).toContainText("The kept one:");
  await reached_button("plan.json");
  const [file] = await Promise.all([page.waitForEvent("download"), page.keyboard.press("Enter")]);
  const written = JSON.parse(readFileSync(await file.path()).toString()) as FoundPlan;
  expect(written.summary).toBe(await page.getByTestId("summary").textContent());
});

test("constraints and hardware are dragged, and two plans compared", async ({ page }) => {
  await sign_in(page);
  await plan(page, "2x4xa100-40gb-sxm,ib100");
  await settled(page);
  const before = (await page.getByTestId("summary").textContent())!;
  await page.getByRole("button", { name: "Keep this plan" }).click();
  await page.getByLabel("pipeline stages").fill("2");
  await expect(page.getByTestId("summary")).toContainText("pp2");
  await settled(page);
  const compare = page.getByTestId("compare");
  await expect(compare.getByRole("cell", { name: before, exact: true })).toBeVisible();
  await expect(compare).toContainText("The kept one:");
  await page.screenshot({ path: "test-results/compare.png", fullPage: true });
  await no_serious_issue(page);

  await page.getByRole("button", { name: "Take all of it back" }).click();
  await expect(page.getByTestId("summary")).toHaveText(before);
  await settled(page);
  await page.locator("canvas.map").focus();
  await page.keyboard.press("End");
  await page.getByRole("button", { name: "What if it were not there" }).click();
  await expect(page.getByText("one a100-40gb-sxm less on node 1")).toBeVisible();
  await settled(page);
  const request = JSON.parse((await download(page, "request.json")).toString()) as { cluster: { nodes: unknown[] } };
  expect(request.cluster.nodes).toEqual([
    { node_class: "4xa100-40gb-sxm", count: 1 },
    { node_class: "4xa100-40gb-sxm without a100-40gb-sxm", count: 1 },
  ]);
  await expect(page.getByTestId("summary")).toHaveText((await ask(request)).summary);
});

test("the trace holds every action with its time", async ({ page }) => {
  await sign_in(page);
  await plan(page, "1x2xt4");
  await settled(page);
  const trace = JSON.parse((await download(page, "trace.json")).toString()) as {
    traceEvents: { ph: string; ts: number; dur: number; cat: string }[];
  };
  const found = JSON.parse((await download(page, "plan.json")).toString()) as FoundPlan;
  const events = trace.traceEvents.filter((event) => event.ph === "X");
  expect(events.length).toBe(found.plan.roles.reduce((sum, role) => sum + role.actions.length, 0));
  const last = Math.max(...events.map((event) => event.ts + event.dur));
  expect(Math.abs(last / 1e6 / found.estimate.step_seconds - 1)).toBeLessThan(0.01);
  expect((await download(page, "timeline.png")).subarray(1, 4).toString()).toBe("PNG");
});

test("a cluster file and a model file are sent; what is wrong is told where it is", async ({ page }) => {
  await sign_in(page);
  await page.getByLabel("Or a cluster.json").setInputFiles({
    name: "cluster.json",
    mimeType: "application/json",
    buffer: Buffer.from("{"),
  });
  await expect(page.getByRole("alert")).toContainText("cluster.json is no JSON");
  await page.getByLabel("Or a cluster.json").setInputFiles([]);
  await page.getByLabel("Hardware of the catalogue").fill("2xnothing");
  await page.getByRole("button", { name: "Plan", exact: true }).first().click();
  await expect(page.getByRole("alert")).toContainText("nothing");
  await page.getByLabel("Which").selectOption("A .pt2 file of mine");
  await page.getByLabel("Exported model").setInputFiles({
    name: "model.pt2",
    mimeType: "application/octet-stream",
    buffer: Buffer.from("no archive"),
  });
  await page.getByRole("button", { name: "Plan", exact: true }).first().click();
  await expect(page.getByRole("alert")).toContainText("archive");
});

test("a thousand devices", async ({ page }) => {
  await page.emulateMedia({ colorScheme: "dark" });
  await sign_in(page);
  await page.getByLabel("Which").selectOption("GPT-3, 175 billion");
  await page.getByLabel("Samples of a step").fill("3072");
  await plan(page, "128x8xh100-sxm,ib400");
  const drawn = await page.evaluate(async () => {
    const canvas = document.querySelector<HTMLCanvasElement>("canvas.timeline")!;
    const times: number[] = [];
    for (let i = 0; i < 10; ++i) {
      const start = performance.now();
      canvas.dispatchEvent(new KeyboardEvent("keydown", { key: i < 5 ? "+" : "-", bubbles: true }));
      await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
      times.push(performance.now() - start);
    }
    const paint = performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? 0;
    return { first_paint_ms: Math.round(paint), redraw_ms: times.sort((a, b) => a - b)[5]! };
  });
  console.log(`1,024 devices: ${JSON.stringify(drawn)}`);
  await page.screenshot({ path: "test-results/thousand.png", fullPage: true });
  await no_serious_issue(page);
});

test("a job is seen to train, measured beside predicted, and to end", async ({ page }) => {
  await sign_in(page);
  await page.getByRole("button", { name: "Jobs" }).click();
  await expect(page.getByText("jobs need the other one")).toBeVisible();
  await page.getByRole("button", { name: "Sign out" }).click();
  await sign_in(page, served.run_token);
  writeFileSync(join(served.root, "text.txt"), "In the beginning God created the heaven and the earth. ".repeat(2000));
  const model = { model_type: "gpt2", n_layer: 2, n_head: 2, n_embd: 32, vocab_size: 256, n_positions: 32 };
  const sent = await fetch(`${served.url}/v1/jobs`, {
    method: "POST",
    headers: { Authorization: `Bearer ${served.run_token}`, "Content-Type": "application/json" },
    body: JSON.stringify({
      job: {
        name: "seen",
        model: { config: model },
        data: { text: "text.txt", sequence_length: 32 },
        batch: { global: 8 },
        train: { steps: 200 },
      },
      devices: "1xcpu",
    }),
  });
  const { id } = (await sent.json()) as { id: string };
  await page.getByRole("button", { name: "Jobs" }).click();
  await page.getByRole("button", { name: id }).click();
  await expect(page.getByText("Step 200 of 200: loss")).toBeVisible();
  await expect(page.getByRole("heading", { name: "seen: finished" })).toBeVisible();
  await expect(page.getByText("job_finished")).toBeVisible();
  await expect(page.getByRole("row", { name: /^this machine \d/ })).toContainText("nobody");
  await expect(page.getByRole("img", { name: "Seconds of a step, measured and predicted, steps 1 to 200" })).toBeVisible();
  await no_serious_issue(page);
  await page.screenshot({ path: "test-results/job.png", fullPage: true });
});
