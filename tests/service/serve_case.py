"""A real `launch serve` on a free port, a client for it, and the document that every answer is held against."""

import http.client
import json
import pathlib
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))
from cli_case import Case, LAUNCH, launch  # noqa: E402, F401
from jsonschema import Draft202012Validator  # noqa: E402
from referencing import Registry, Resource  # noqa: E402
from referencing.jsonschema import DRAFT202012  # noqa: E402

DOCUMENT = json.loads((pathlib.Path(__file__).resolve().parents[2] / "launcher" / "rest" / "openapi.json").read_text())
REGISTRY = Registry().with_resource("", Resource(contents=DOCUMENT, specification=DRAFT202012))

JOB = {
    "name": "tiny", "model": {"config": {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 32, "vocab_size": 256, "n_positions": 16}},
    "data": {"text": "text.txt", "sequence_length": 16}, "batch": {"global": 8}, "train": {"steps": 1}}
PLAN = {"job": JOB, "cluster": "1x2xt4"}


class Answer:
    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    def json(self):
        return json.loads(self.body)


class Server:
    """Tells what it told at its start; ended by SIGTERM."""

    def __init__(self, folder, *flags):
        with open(folder / "serve.log", "a") as log:
            self.process = subprocess.Popen(
                [LAUNCH, "serve", "--listen", "127.0.0.1:0", "--state", folder / "state", *map(str, flags)], cwd=folder, stdout=subprocess.PIPE,
                stderr=log, text=True)
        self.told = ""
        for line in self.process.stdout:
            self.told += line
            if line.startswith("serving "):
                break
        found = re.search(r"^serving (https?)://127\.0\.0\.1:(\d+)$", self.told, re.MULTILINE)
        if not found:
            raise AssertionError(self.told + (folder / "serve.log").read_text())
        self.scheme, self.port = found.group(1), int(found.group(2))
        self.tokens = dict(re.findall(r"^  (plan|run) +(cox-\S+)$", self.told, re.MULTILINE))

    def end(self):
        """Exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        return self.process.returncode


class ServeCase(Case):
    def serve(self, *flags):
        server = Server(self.folder, *flags)
        self.addCleanup(server.end)
        self.tokens = server.tokens or self.tokens
        return server

    def ask(self, server, method, path, body=None, token="plan", headers=None, connection=None):
        """Checked against the document."""
        own = connection is None
        connection = connection or http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        fields = {"Authorization": f"Bearer {self.tokens[token]}"} if token else {}
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        if body is not None:
            fields["Content-Type"] = "application/json"
        fields.update(headers or {})
        connection.request(method, path, body, {k: v for k, v in fields.items() if v is not None})
        answer = Answer(connection.getresponse())
        if own:
            connection.close()
        self.check_answer(method, path, answer)
        return answer

    def plan(self, server, body):
        """What is found, however long that takes: the first answer may be where to look."""
        answer = self.ask(server, "POST", "/v1/plans", body)
        end = time.monotonic() + 120
        while answer.status == 202 and time.monotonic() < end:
            answer = self.ask(server, "GET", answer.headers["Location"])
        return answer

    def check_answer(self, method, path, answer):
        item = next((item for pattern, item in DOCUMENT["paths"].items()
                     if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), path.split("?")[0])), None)
        if method == "HEAD" or item is None or method.lower() not in item:
            self.assertIn(answer.status, (200, 400, 401, 403, 404, 405))
            return
        told = item[method.lower()]["responses"]
        self.assertIn(str(answer.status), told, f"{method} {path} answers what the document does not tell")
        response = told[str(answer.status)]
        if "$ref" in response:
            response = DOCUMENT["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
        for name in response.get("headers", {}):
            self.assertIn(name, answer.headers)
        if "content" not in response:
            self.assertEqual(answer.body, b"")
            return
        (kind, content), = response["content"].items()
        self.assertEqual(answer.headers["Content-Type"].split(";")[0], kind)
        if kind.endswith("json"):
            Draft202012Validator({"$ref": "#/at", "at": content["schema"], "components": DOCUMENT["components"]}, registry=REGISTRY).validate(answer.json())
