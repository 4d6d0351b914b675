"""Nodes that agents lend a `launch serve`, which works for jobs on them."""

import json
import socket
import subprocess
import unittest

from jobs_case import JobsCase, PINNED
from serve_case import LAUNCH, launch


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Nodes(JobsCase):
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


if __name__ == "__main__":
    unittest.main()
