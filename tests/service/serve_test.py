"""`launch serve` as a client meets it: plans over HTTP, what is refused and how, what a start and an end leave behind."""

import concurrent.futures
import copy
import hashlib
import http.client
import io
import json
import os
import pathlib
import re
import socket
import ssl
import stat
import subprocess
import unittest
import zipfile

from serve_case import Draft202012Validator, JOB, PLAN, Server, ServeCase, launch


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
            ("1x2xt4", {"reasons": False}, []),
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

    def test_the_document_says_what_a_job_may_hold(self):
        server = self.serve()
        schema = self.ask(server, "GET", "/openapi.json", token=None).json()["components"]["schemas"]["JobFile"]
        Draft202012Validator.check_schema(schema)
        # Every key of the message, but those that this version refuses; and what the service takes, the schema takes.
        source = (pathlib.Path(__file__).resolve().parents[2] / "proto" / "job.proto").read_text()
        body = re.search(r"^message Job \{\n(.*?)^\}", source, re.MULTILINE | re.DOTALL)[1]
        keys = {name for name, rest in re.findall(r"^  [\w.<>, ]+ (\w+) = \d+(.*)$", body, re.MULTILINE) if "this_version_cannot" not in rest}
        self.assertEqual(keys, set(schema["properties"]))
        self.assertIn("batch", keys)
        job = Draft202012Validator(schema)
        job.validate(JOB)
        self.assertEqual(self.plan(server, PLAN).status, 200)
        for change in (lambda job: job["train"].update(steps=0), lambda job: job.update(precision="int4"), lambda job: job.pop("batch"),
                       lambda job: job.update(colour="red"), lambda job: job.update(optimizer={"betas": ["a"]}),
                       lambda job: job["data"].update(sequence_length=1.5)):
            wrong = copy.deepcopy(JOB)
            change(wrong)
            self.assertFalse(job.is_valid(wrong), wrong)
            self.assertEqual(self.plan(server, {**PLAN, "job": wrong}).status, 422, wrong)

    def test_reasons_are_left_out_where_nobody_asks_for_them(self):
        server = self.serve()
        with_reasons, without = (self.plan(server, {**PLAN, "options": {"reasons": wanted}}).json() for wanted in (True, False))
        self.assertTrue(with_reasons["sensitivities"] and [one for one in with_reasons["rejected"] if "family" in one])
        self.assertFalse(without["sensitivities"] or [one for one in without["rejected"] if "family" in one])

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
        self.assertEqual(self.ask(server, "DELETE", f"/v1/models/{name}").status, 403)
        self.assertEqual(self.ask(server, "DELETE", f"/v1/models/{other}", token="run").status, 404)
        self.assertEqual(self.ask(server, "DELETE", f"/v1/models/{name}", token="run").status, 204)
        self.assertEqual(self.ask(server, "GET", f"/v1/models/{name}").status, 404)
        self.assertEqual(list((self.folder / "state" / "models").iterdir()), [])


class Seen(ServeCase):
    def test_the_dashboard_asks_for_what_there_is(self):
        server = self.serve()
        self.assertEqual(self.plan(server, PLAN).status, 200)
        told = self.ask(server, "GET", "/metrics").body.decode()
        dashboard = (pathlib.Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "serve.json").read_text()
        asked = set(re.findall(r"coxswain_\w+", dashboard))
        self.assertGreater(len(asked), 4)
        for name in asked:
            self.assertRegex(told, rf"(?m)^{name}\b")
        for label, value in re.findall(r'(\w+)!?=\\"([^"\\]+)\\"', dashboard):
            self.assertIn(f'{label}="{value}"', told)

    def test_lines_of_the_log_are_objects_where_that_is_asked_for(self):
        os.environ["COX_LOG_FORMAT"] = "json"
        self.addCleanup(os.environ.pop, "COX_LOG_FORMAT")
        server = self.serve()
        self.assertEqual(self.ask(server, "GET", "/v1/catalogue").status, 200)
        lines = [json.loads(line) for line in (self.folder / "serve.log").read_text().splitlines()]
        self.assertIn("GET /v1/catalogue 200", lines[-1]["message"])
        self.assertEqual((lines[-1]["level"], lines[-1]["component"]), ("info", "serve"))


class Page(ServeCase):
    def test_it_needs_no_token_and_may_load_nothing_from_elsewhere(self):
        server = self.serve()
        html = self.ask(server, "GET", "/", token=None, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
        self.assertEqual(html.status, 200)
        self.assertIn(b"<title>Coxswain", html.body)
        for path in ["/", "/page.js", "/page.css"]:
            answer = self.ask(server, "GET", path, token=None)
            self.assertIn("default-src 'none'", answer.headers["Content-Security-Policy"])
            self.assertNotRegex(answer.body.decode(), r"""(src|href)=["']?https?:|url\(["']?https?:""")


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

    def test_a_zip_bomb_is_no_model(self):
        server = self.serve()
        bomb = io.BytesIO()
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("gpt/models/model.json", bytes(64 << 20))
        name = hashlib.sha256(bomb.getvalue()).hexdigest()
        answer = self.ask(server, "PUT", f"/v1/models/{name}", bomb.getvalue(), headers={"Content-Type": "application/octet-stream"})
        self.assertEqual(answer.status, 422, answer.body)
        self.assertIn("unpacks", answer.json()["detail"] + str(answer.json()["errors"]))
        self.assertEqual(list((self.folder / "state" / "models").iterdir()), [])

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

    def test_a_state_folder_has_one_service(self):
        self.serve()
        self.assert_fails(launch("serve", "--listen", "127.0.0.1:0", "--state", self.folder / "state", folder=self.folder), 71, "cannot have the state folder")

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
        (self.folder / "token").write_text(server.tokens["run"])
        listed = ("status", "--service", f"https://127.0.0.1:{server.port}", "--token-file", "token")
        self.assertEqual(launch(*listed, "--tls-ca", certificate, folder=self.folder).returncode, 0)
        distrusted = launch(*listed, folder=self.folder)
        self.assertEqual(distrusted.returncode, 1, distrusted.stderr)
        self.assertIn("certificate verify failed", distrusted.stderr)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with self.assertRaises((ssl.SSLError, OSError)):
            http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=old).request("GET", "/healthz")

    def test_clients_certificates(self):
        def openssl(*arguments):
            subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, cwd=self.folder)

        for name in ["ca", "other"]:
            openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "1", "-subj", f"/CN={name}",
                    "-addext", "subjectAltName=IP:127.0.0.1")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "client.key", "-out", "client.csr", "-subj", "/CN=client")
        for name, signer, days in [("valid", "ca", 1), ("expired", "ca", -1), ("foreign", "other", 1)]:
            openssl("x509", "-req", "-in", "client.csr", "-CA", f"{signer}.pem", "-CAkey", f"{signer}.key", "-CAcreateserial", "-days", days, "-out", f"{name}.pem")
        server = self.serve("--tls-cert", self.folder / "ca.pem", "--tls-key", self.folder / "ca.key", "--tls-client-ca", self.folder / "ca.pem")

        def connection(certificate):
            context = ssl.create_default_context(cafile=self.folder / "ca.pem")
            if certificate:
                context.load_cert_chain(self.folder / certificate, self.folder / "client.key")
            return http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=context)

        self.assertEqual(self.ask(server, "GET", "/healthz", token=None, connection=connection("valid.pem")).status, 200)
        # A session goes on, as browsers' do.
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # 1.3 hands sessions out later
        context.load_cert_chain(self.folder / "valid.pem", self.folder / "client.key")
        session = None
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", server.port)) as plain, context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as secure:
                self.assertEqual(secure.session_reused, session is not None)
                session = secure.session
        # A certificate is no token.
        self.assertEqual(self.ask(server, "GET", "/v1/cluster", token=None, connection=connection("valid.pem")).status, 401)
        for certificate in [None, "expired.pem", "foreign.pem"]:
            with self.subTest(certificate), self.assertRaises((ssl.SSLError, OSError, http.client.HTTPException)):
                other = connection(certificate)
                other.request("GET", "/healthz")
                other.getresponse()
        self.assert_fails(launch("serve", "--tls-client-ca", "a.pem", folder=self.folder), 64, "--tls-cert")


if __name__ == "__main__":
    unittest.main()
