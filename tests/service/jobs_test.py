"""Jobs of `launch serve`, as a client meets them."""

import json
import unittest

from jobs_case import JobsCase, PINNED
from serve_case import JOB, launch


class Jobs(JobsCase):
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


if __name__ == "__main__":
    unittest.main()
