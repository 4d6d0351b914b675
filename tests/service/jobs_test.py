"""Jobs of `launch serve` and the nodes that agents lend it, as a client and an agent of another machine meet them."""

import json
import re
import socket
import subprocess
import threading
import time
import unittest

from serve_case import JOB, LAUNCH, ServeCase, launch


# One plan, whatever was measured.
PINNED = {**JOB, "batch": {"global": 8, "micro": 8}, "plan": {"recompute": "none"}}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Jobs(ServeCase):
    def serve_jobs(self, *flags):
        root = self.folder / "root"
        root.mkdir(exist_ok=True)
        (root / "text.txt").write_text("In the beginning God created the heaven and the earth. " * 200)
        return self.serve("--root", "/proc/self/cwd/root", *flags)  # that no process in another folder finds

    def send(self, server, steps, name="tiny", job=PINNED, nodes=None, **headers):
        answer = self.ask(server, "POST", "/v1/jobs", {"job": {**job, "name": name, "train": {"steps": steps}}, "devices": "1xcpu",
                                                       **({"nodes": nodes} if nodes else {})}, token="run",
                          headers={key.replace("_", "-"): value for key, value in headers.items()})
        self.assertEqual(answer.status, 201, answer.body)
        return answer.headers["Location"]

    def remote(self, server, *arguments, token="run", scheme="http"):
        """A command on another machine."""
        (self.folder / "token").write_text(self.tokens[token] + "\n")
        return launch(*arguments, "--service", f"{scheme}://127.0.0.1:{server.port}", "--token-file", "token", folder=self.folder)

    def events(self, server, path, **headers):
        """To the job's end."""
        answer = self.ask(server, "GET", path + "/events", token="run", headers={key.replace("_", "-"): value for key, value in headers.items()})
        return re.findall(r"^event: (.*)\ndata: (.*)$", answer.body.decode(), re.MULTILINE)

    def test_a_job_trains_as_launch_train_does_and_shows_what_it_left(self):
        server = self.serve_jobs()
        path = self.send(server, 5, Idempotency_Key="one")
        self.assertEqual(self.send(server, 5, Idempotency_Key="one"), path)
        events = self.events(server, path)
        self.assertEqual([data for kind, data in events if kind == "state"][-1], '{"state":"finished"}')
        self.assertIn("job_finished", [kind for kind, _ in events])
        job = self.ask(server, "GET", path, token="run").json()
        self.assertEqual((job["state"], job["exit_code"], job["attempts"], job["last"]["step"]), ("finished", 0, 1, 5))
        (self.folder / "job.json").write_text(json.dumps({**PINNED, "train": {"steps": 5}}))
        (self.folder / "text.txt").write_text((self.folder / "root" / "text.txt").read_text())
        alone = launch("train", "job.json", "--devices", "1xcpu", "--run-dir", "alone", folder=self.folder)
        self.assertEqual(alone.returncode, 0, alone.stderr)
        losses = [json.loads(line)["loss"] for line in (self.folder / "alone" / "metrics.jsonl").read_text().splitlines()]
        metrics = self.ask(server, "GET", path + "/metrics", token="run").json()["metrics"]
        self.assertEqual([row["loss"] for row in metrics], losses)
        self.assertEqual([row["step"] for row in self.ask(server, "GET", path + "/metrics?after=3", token="run").json()["metrics"]], [4, 5])
        self.assertIn(b"loss", self.ask(server, "GET", path + "/logs", token="run").body)
        self.assertEqual(self.ask(server, "GET", path + "/logs?rank=x", token="run").status, 400)
        self.assertEqual([one["id"] for one in self.ask(server, "GET", "/v1/jobs", token="run").json()["jobs"]], [job["id"]])
        told = self.remote(server, "status", job["id"], "--format", "json")
        self.assertEqual((told.returncode, json.loads(told.stdout)), (0, job))
        self.assertEqual(self.remote(server, "status").stdout.split()[:3], [job["id"], "tiny", "finished,"])
        printed = self.remote(server, "logs", job["id"], "-f")
        self.assertEqual(printed.stdout.encode(), self.ask(server, "GET", path + "/logs", token="run").body)
        for arguments, code, words in [(("status", "nothing"), 65, "no job of this id"), (("cancel", job["id"]), 71, "the job has ended"),
                                       (("logs", job["id"], "--grep", "a"), 64, "--rank N")]:
            refused = self.remote(server, *arguments)
            self.assertEqual(refused.returncode, code, refused.stderr)
            self.assertIn(words, refused.stderr)
        refused = self.remote(server, "status", job["id"], token="plan")
        self.assertIn("--token-file", refused.stderr)
        self.assertNotEqual(self.remote(server, "status", job["id"], scheme="https").returncode, 0)
        kept = self.folder / "state" / "jobs" / job["id"]
        self.assertTrue(kept.exists())
        self.assertEqual(self.ask(server, "DELETE", path, token="run").status, 204)
        self.assertFalse(kept.exists())
        self.assertEqual(self.ask(server, "GET", path, token="run").status, 404)
        self.assertEqual(self.ask(server, "DELETE", path, token="run").status, 404)
        self.assertNotEqual(self.send(server, 5, Idempotency_Key="one"), path)

    def test_a_job_goes_on_after_the_service_was_ended_and_is_cancelled(self):
        server = self.serve_jobs()
        path, waiting = self.send(server, 1000000), self.send(server, 5, name="next")
        self.until(lambda: self.ask(server, "GET", path, token="run").json()["last"])
        self.assertEqual(self.ask(server, "GET", waiting, token="run").json()["state"], "queued")
        self.assertEqual(server.end(), 0)
        server = self.serve_jobs()
        job = self.until(lambda: (lambda job: job if job["attempts"] == 2 and job["state"] == "running" else None)(
            self.ask(server, "GET", path, token="run").json()))
        saved = job["last"]["step"]
        self.until(lambda: self.ask(server, "GET", path, token="run").json()["last"]["step"] > saved)
        first = self.ask(server, "GET", path + "/metrics?limit=1", token="run").json()["metrics"][0]["step"]
        self.assertEqual(first, 1)
        self.assertEqual(self.ask(server, "DELETE", path, token="run").status, 409)
        cancelled = self.remote(server, "cancel", path.rsplit("/", 1)[1])
        self.assertEqual(cancelled.returncode, 0, cancelled.stderr)
        self.assertEqual(self.events(server, path)[-1], ("state", '{"state":"cancelled"}'))
        self.assertEqual(self.ask(server, "POST", path + "/cancel", token="run").status, 409)
        self.assertEqual(self.events(server, waiting)[-1], ("state", '{"state":"finished"}'))

    def test_a_job_that_cannot_run_says_why(self):
        server = self.serve_jobs()
        answer = self.ask(server, "POST", "/v1/jobs", {"job": JOB, "devices": "1xcpu"}, token="plan")
        self.assertEqual(answer.status, 403)
        (self.folder / "root" / "text.txt").unlink()
        path = self.send(server, 5)
        self.assertEqual(self.events(server, path)[-1], ("state", '{"state":"failed"}'))
        job = self.ask(server, "GET", path, token="run").json()
        self.assertEqual(job["exit_code"], 65)
        self.assertIn("text.txt", job["failure"])
        self.assertEqual(self.ask(server, "GET", "/v1/cluster").json()["nodes"][0]["running"], None)
        for path in ["/v1/jobs/nothing", "/v1/jobs/..", "/v1/jobs/nothing/events", "/v1/jobs/nothing/logs"]:
            self.assertIn(self.ask(server, "GET", path, token="run").status, (400, 404))

    def agent(self, server, *flags):
        """A node of another machine, as far as the service can tell, which does not have the service's files."""
        self.away = self.folder / "away"
        self.away.mkdir(exist_ok=True)
        (self.away / "run-token").write_text(self.tokens["run"] + "\n")
        with open(self.folder / "agent.log", "a") as log:
            process = subprocess.Popen([LAUNCH, "agent", "--coordinator", f"http://127.0.0.1:{server.port}", "--token-file", "run-token", "--devices", "1xcpu",
                                        "--run-dir", "agents", *flags], cwd=self.away, stderr=log)
        self.addCleanup(process.wait, 60)
        self.addCleanup(process.terminate)
        return process

    def nodes(self, server):
        """What each node but the service's own works for."""
        return [node["running"] for node in self.ask(server, "GET", "/v1/cluster").json()["nodes"][1:]]

    def test_nodes_that_agents_lend_work_for_jobs(self):
        server = self.serve_jobs("--run-port", free_port())
        (self.folder / "root" / "gpt.pt2").write_bytes((self.folder / "gpt.pt2").read_bytes())
        (self.folder / "root" / "digits.txt").write_text("3.14159 26535; 89793 23846. " * 200)  # of that model's vocabulary
        both = {**PINNED, "model": {"pt2": "gpt.pt2"}, "data": {"text": "digits.txt", "sequence_length": 16}, "plan": {"data": 2, "recompute": "none"}}
        path = self.send(server, 5, job=both, nodes="2")
        self.assertEqual(self.ask(server, "GET", path, token="run").json()["state"], "queued")
        first = self.agent(server)
        self.assertEqual(self.events(server, path)[-1], ("state", '{"state":"finished"}'), self.ask(server, "GET", path, token="run").json()["failure"])
        (self.folder / "job.json").write_text(json.dumps({**both, "train": {"steps": 5}}))
        (self.folder / "digits.txt").write_text((self.folder / "root" / "digits.txt").read_text())
        alone = launch("train", "job.json", "--devices", "2xcpu", "--run-dir", "alone", folder=self.folder)
        self.assertEqual(alone.returncode, 0, alone.stderr)
        losses = [json.loads(line)["loss"] for line in (self.folder / "alone" / "metrics.jsonl").read_text().splitlines()]
        metrics = self.ask(server, "GET", path + "/metrics", token="run").json()["metrics"]
        self.assertEqual(len(metrics), 5)
        for row, loss in zip(metrics, losses):  # plans for one node and for two may differ
            self.assertLess(abs(row["loss"] / loss - 1), 1e-5)
        for name in ("gpt.pt2", "digits.txt"):
            self.assertIn(f"fetches /proc/self/cwd/root/{name}", (self.folder / "agent.log").read_text())
        self.until(lambda: self.nodes(server) == [None])

        # The same agent works for the next one; another one may come and go meanwhile.
        path = self.send(server, 1000000, nodes="1:3")
        job = path.rsplit("/", 1)[1]
        self.until(lambda: self.nodes(server) == [job])
        self.until(lambda: self.ask(server, "GET", path, token="run").json()["last"])
        second = self.agent(server)
        self.until(lambda: self.nodes(server) == [job, job])
        events = self.folder / "state" / "jobs" / job / "run-1" / "events.jsonl"
        self.until(lambda: events.read_text().count('"node_joined"') == 3)
        second.kill()
        self.until(lambda: '"node_lost"' in events.read_text())
        first.terminate()  # a node that is taken away has the run saved, and the job goes on without it
        self.assertEqual(first.wait(60), 75)
        again = self.until(lambda: (lambda job: job if job["attempts"] == 2 and job["last"] else None)(self.ask(server, "GET", path, token="run").json()))
        self.until(lambda: self.ask(server, "GET", path, token="run").json()["last"]["step"] > again["last"]["step"])
        self.assertEqual(self.ask(server, "GET", path + "/metrics?limit=1", token="run").json()["metrics"][0]["step"], 1)
        self.assertEqual(self.remote(server, "cancel", job).returncode, 0)
        self.assertEqual(self.events(server, path)[-1], ("state", '{"state":"cancelled"}'))

    def test_an_agent_that_waits_ends_at_once_and_one_without_the_token_to_run_is_refused(self):
        server = self.serve_jobs()
        agent = self.agent(server)
        self.until(lambda: self.nodes(server) == [None])
        agent.terminate()
        self.assertEqual(agent.wait(60), 0)
        self.assertEqual(self.nodes(server), [])
        (self.folder / "plan-token").write_text(self.tokens["plan"])
        refused = launch("agent", "--coordinator", f"http://127.0.0.1:{server.port}", "--token-file", "plan-token", folder=self.folder)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("may plan, and not run", refused.stderr)
        for nodes in ("0", "3:2", "many"):
            answer = self.ask(server, "POST", "/v1/jobs", {"job": PINNED, "nodes": nodes}, token="run")
            self.assertEqual((answer.status, answer.json()["errors"][0]["pointer"]), (422, "/nodes"))
        answer = self.ask(server, "PUT", "/v1/cluster/nodes/a", {"cores": -1}, token="run")
        self.assertEqual(answer.status, 422)
        self.assertEqual(self.ask(server, "DELETE", "/v1/cluster/nodes/a", token="run").status, 404)

    def until(self, look):
        """Asks often, and leaves the cores to what runs."""
        end, pace = time.monotonic() + 120, threading.Event()
        while time.monotonic() < end:
            if found := look():
                return found
            pace.wait(0.05)
        self.fail("not within two minutes")


if __name__ == "__main__":
    unittest.main()
