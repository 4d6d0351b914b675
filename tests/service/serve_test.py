"""`launch serve` as a client meets it: plans over HTTP, what is refused and how, what a start and an end leave behind."""

import concurrent.futures
import hashlib
import http.client
import json
import socket
import ssl
import stat
import subprocess
import unittest

from serve_case import JOB, PLAN, Server, ServeCase, launch


# More layers, devices and ways than are searched within two seconds.
LARGE = {
    "job": {**JOB, "model": {"config": {"model_type": "gpt2", "n_layer": 96, "n_head": 96, "n_embd": 12288, "vocab_size": 51200, "n_positions": 2048}},
            "data": {"text": "t", "sequence_length": 2048}, "batch": {"global": 3072}, "precision": "bfloat16"},
    "cluster": "512x8xh100-sxm,ib400+256x8xa100-80gb-sxm,ib200"}


class Plans(ServeCase):
    def test_a_plan_has_the_bytes_of_launch_plan(self):
        server = self.serve()
        for cluster, options, flags in [
            ("1x2xt4", {}, []),
            ("1x4xt4,eth25+1x2xv100-16gb-pcie,eth25", {"constrain": ["pipeline=2"], "top": 2}, ["--constrain", "pipeline=2", "--top", "2"]),
            ("1x2xt4", {"objective": "cost", "prices": ["t4=0.4"], "runnable": True}, ["--objective", "cost", "--price", "t4=0.4", "--runnable"]),
        ]:
            with self.subTest(cluster):
                job = self.folder / "job.json"
                job.write_text(json.dumps(JOB))
                printed = launch("plan", job, "--cluster", cluster, "--format", "json", *flags, folder=self.folder)
                self.assertEqual(printed.returncode, 0, printed.stderr)
                answer = self.plan(server, {"job": JOB, "cluster": cluster, "options": options})
                self.assertEqual(answer.status, 200, answer.body)
                for part in ["plan", "estimate"]:
                    self.assertEqual(json.dumps(answer.json()[part]), json.dumps(json.loads(printed.stdout)[part]))

    def test_a_large_search_is_looked_for_until_it_is_stopped(self):
        server = self.serve("--threads", 1)
        answer = self.ask(server, "POST", "/v1/plans", LARGE)
        self.assertEqual(answer.status, 202, answer.body)
        path = answer.headers["Location"]
        self.assertEqual(self.ask(server, "DELETE", path).status, 204)
        self.assertEqual(self.ask(server, "GET", path).status, 404)
        # The one thread is free again: a small one is found.
        self.assertEqual(self.plan(server, PLAN).status, 200)

    def test_a_plan_that_waited_for_its_model_is_found_once_that_was_sent(self):
        server = self.serve()
        model = (self.folder / "gpt.pt2").read_bytes()
        name = hashlib.sha256(model).hexdigest()
        body = {**PLAN, "job": {**JOB, "model": {"pt2": f"sha256:{name}"}}}
        self.assertEqual(self.plan(server, body).status, 404)
        self.assertEqual(self.ask(server, "PUT", f"/v1/models/{name}", model, headers={"Content-Type": "application/octet-stream"}).status, 201)
        self.assertEqual(self.plan(server, body).status, 200)

    def test_many_ask_at_once(self):
        server = self.serve()
        bodies = [{**PLAN, "job": {**JOB, "batch": {"global": 8 * (1 + i % 4)}}} for i in range(40)]
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda body: self.plan(server, body), bodies))
        self.assertEqual({answer.status for answer in answers}, {200})
        self.assertEqual(len({answer.headers["Location"] for answer in answers}), 4)

    def test_what_cannot_be_planned_points_into_the_body(self):
        server = self.serve()
        for change, pointer in [
            ({"job": {**JOB, "optimiser": {}}}, "/job/optimiser"),
            ({"job": {**JOB, "optimizer": {"betas": [0.9, 2]}}}, "/job/optimizer/betas/1"),
            ({"cluster": "2xnothing"}, "/cluster"),
            ({"options": {"top": -1}}, "/options/top"),
            ({"options": {"constrain": ["tensor=3", "data=5"]}}, None),
        ]:
            with self.subTest(str(change)):
                answer = self.plan(server, {**PLAN, **change})
                self.assertEqual(answer.status, 422, answer.body)
                if pointer:
                    self.assertIn(pointer, [error["pointer"] for error in answer.json()["errors"]])

    def test_a_plan_is_shown_and_explained(self):
        server = self.serve()
        path = self.plan(server, PLAN).headers["Location"]
        timeline = self.ask(server, "GET", path + "/timeline").json()
        self.assertEqual({action["kind"] for action in timeline["actions"]} & {"forward", "optimizer"}, {"forward", "optimizer"})
        self.assertEqual(self.ask(server, "GET", path + "/explain").status, 200)

    def test_a_model_is_sent_once_and_planned_by_its_hash(self):
        server = self.serve()
        model = (self.folder / "gpt.pt2").read_bytes()
        name = hashlib.sha256(model).hexdigest()
        kind = {"Content-Type": "application/octet-stream"}
        self.assertEqual(self.ask(server, "GET", f"/v1/models/{name}").status, 404)
        self.assertEqual(self.ask(server, "PUT", f"/v1/models/{name}", model, headers=kind).status, 201)
        self.assertEqual(self.ask(server, "PUT", f"/v1/models/{name}", model, headers=kind).status, 200)
        job = {**JOB, "model": {"pt2": f"sha256:{name}"}}
        answer = self.plan(server, {**PLAN, "job": job})
        self.assertEqual(answer.status, 200, answer.body)
        shown = launch("model", "show", self.folder / "gpt.pt2", "--format", "json", folder=self.folder)
        self.assertEqual(self.ask(server, "GET", f"/v1/models/{name}").json(), {**json.loads(shown.stdout), "name": name})
        other = "0" * 64
        self.assertEqual(self.ask(server, "PUT", f"/v1/models/{other}", model, headers=kind).status, 422)


class Refused(ServeCase):
    def test_who_may_not_ask(self):
        server = self.serve()
        here = f"127.0.0.1:{server.port}"
        for token, headers, status in [
            (None, {}, 401), (None, {"Authorization": "Bearer nonsense"}, 401), (None, {"Authorization": f"Basic {self.tokens['plan']}"}, 401),
            ("plan", {"Host": f"attacker.example:{server.port}"}, 403), ("plan", {"Origin": "https://attacker.example"}, 403),
            ("plan", {"Origin": "null"}, 403), ("plan", {"Origin": f"http://{here}"}, 200), ("run", {}, 200),
        ]:
            with self.subTest(str(headers)):
                self.assertEqual(self.ask(server, "GET", "/v1/catalogue", token=token, headers=headers).status, status)

    def test_what_is_no_request_of_ours(self):
        server = self.serve()
        self.assertEqual(self.ask(server, "GET", "/v1/nothing").status, 404)
        answer = self.ask(server, "TRACE", "/v1/plans")
        self.assertEqual((answer.status, answer.headers["Allow"]), (405, "POST"))
        self.assertEqual(self.ask(server, "POST", "/v1/plans", "a: b", headers={"Content-Type": "text/yaml"}).status, 415)
        self.assertEqual(self.ask(server, "GET", "/v1/catalogue", headers={"Accept": "text/html"}).status, 406)
        self.assertEqual(self.ask(server, "POST", "/v1/plans", "{").status, 400)
        self.assertEqual(self.ask(server, "POST", "/v1/plans", "[" * 5000 + "]" * 5000).status, 400)
        self.assertEqual(self.ask(server, "GET", "/v1/catalogue", headers={"X-Long": "x" * 9000}).status, 431)

    def test_a_body_that_is_too_large_is_refused_by_its_length(self):
        server = self.serve()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.putrequest("POST", "/v1/plans")
        for name, value in {"Authorization": f"Bearer {self.tokens['plan']}", "Content-Type": "application/json", "Content-Length": 10 << 20}.items():
            connection.putheader(name, str(value))
        connection.endheaders()
        self.assertEqual(connection.getresponse().status, 413)

    def test_files_are_read_beneath_the_root_alone(self):
        (self.folder / "root").mkdir()
        (self.folder / "root" / "out").symlink_to(self.folder)
        (self.folder / "root" / "gpt.pt2").write_bytes((self.folder / "gpt.pt2").read_bytes())
        server = self.serve("--root", self.folder / "root")
        for path, status in [
            ("gpt.pt2", 200), ("../gpt.pt2", 403), (str(self.folder / "gpt.pt2"), 403), ("out/gpt.pt2", 403), ("a/../../gpt.pt2", 403),
            ("$(touch here).pt2", 422), ("`id`", 422), ("!!python/object:os.system", 422), ("{a: &b c}", 422),
        ]:
            with self.subTest(path):
                answer = self.plan(server, {**PLAN, "job": {**JOB, "model": {"pt2": path}}})
                self.assertIn(answer.status, {status, 404 if status == 422 else status}, answer.body)
        self.assertEqual(sorted(p.name for p in (self.folder / "root").iterdir()), ["gpt.pt2", "out"])


class Process(ServeCase):
    def test_tokens_are_told_once_and_hold_over_a_restart(self):
        first = Server(self.folder)
        self.tokens = first.tokens
        self.assertEqual(set(first.tokens), {"plan", "run"})
        self.assertEqual(first.end(), 0)
        file = self.folder / "state" / "tokens.json"
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        for token in first.tokens.values():
            self.assertNotIn(token, file.read_text())
        second = self.serve()
        self.assertEqual(second.tokens, {})
        self.assertEqual(self.ask(second, "GET", "/v1/catalogue").status, 200)

    def test_sigterm_lets_what_was_asked_be_answered(self):
        server = self.serve("--threads", 1)
        self.assertEqual(self.ask(server, "GET", "/readyz", token=None).status, 200)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(self.ask, server, "POST", "/v1/plans", LARGE)
            while "searched\"} 1" not in self.ask(server, "GET", "/metrics").body.decode():
                pass
            self.assertEqual(server.end(), 0)
            self.assertEqual(asked.result().status, 202)  # after the inline budget, as without a signal
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", server.port), timeout=5)

    def test_a_start_that_fails_makes_no_token_that_nobody_was_told(self):
        server = self.serve()
        state = self.folder / "other"
        self.assert_fails(launch("serve", "--listen", f"127.0.0.1:{server.port}", "--state", state, folder=self.folder), 71, "cannot listen")
        self.assertFalse((state / "tokens.json").exists())

    def test_a_taken_port_and_half_a_certificate_are_refused(self):
        server = self.serve()
        self.assert_fails(launch("serve", "--listen", f"127.0.0.1:{server.port}", "--state", self.folder / "other", folder=self.folder), 71, "cannot listen")
        self.assert_fails(launch("serve", "--tls-cert", "a.pem", folder=self.folder), 64, "--tls-key")
        self.assert_fails(launch("serve", "--listen", "nowhere", folder=self.folder), 65, "--listen")

    def test_tls(self):
        key, certificate = self.folder / "key.pem", self.folder / "certificate.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "1", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
        server = self.serve("--tls-cert", certificate, "--tls-key", key)
        self.assertEqual(server.scheme, "https")
        trusted = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=ssl.create_default_context(cafile=certificate))
        self.assertEqual(self.ask(server, "POST", "/v1/plans", PLAN, connection=trusted).status, 200)
        with self.assertRaises(ssl.SSLError):
            http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=ssl.create_default_context()).request("GET", "/healthz")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with self.assertRaises((ssl.SSLError, OSError)):
            http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=old).request("GET", "/healthz")


if __name__ == "__main__":
    unittest.main()
