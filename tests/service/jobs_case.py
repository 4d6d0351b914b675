"""A real `launch serve` that runs jobs, and what its clients do with them."""

import re
import threading
import time

from serve_case import JOB, ServeCase, launch


# One plan, whatever was measured.
PINNED = {**JOB, "batch": {"global": 8, "micro": 8}, "plan": {"recompute": "none"}}


class JobsCase(ServeCase):
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

    def until(self, look):
        """Asks often, and leaves the cores to what runs."""
        end, pace = time.monotonic() + 120, threading.Event()
        while time.monotonic() < end:
            if found := look():
                return found
            pace.wait(0.05)
        self.fail("not within two minutes")
