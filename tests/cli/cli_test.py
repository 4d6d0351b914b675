"""The real `launch` on good and bad input. Each bad input: its exit code, a message that names place, expectation and cure,
nothing started, nothing left behind. `cli_test.py --golden` rewrites the recorded texts in golden/."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import tomllib
import unittest
import zipfile

import exchange_cases

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("COX_BINARY_DIR", HERE.parents[1] / "build" / "release"))
LAUNCH = BUILD / "bin" / "launch"
FIXTURES = BUILD / "fixtures"
GOLDEN = HERE / "golden"
REWRITE = bool(os.environ.get("COX_UPDATE_GOLDEN"))  # `make golden`

JOB = """name: tiny
model: {{pt2: {model}}}
data: {{text: {folder}/text.txt, sequence_length: {sequence}, seed: 7}}
batch: {{global: 8}}
train: {{steps: 2, seed: 1}}
"""


def sourced(value, source="assumed"):
    return {"value": value, "source": source}


def launch(*arguments, folder, timeout=60):
    return subprocess.run([LAUNCH, *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)


def rewrite_archive(source, target, edit):
    """A copy of an archive with valid checksums in which `edit(name, bytes)` replaced each entry's bytes."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, edit(entry.filename, old.read(entry.filename)))


class Case(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.expectations = json.loads((FIXTURES / "expectations.json").read_text())

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="coxswain-cli-"))
        (self.folder / "text.txt").write_text("1 2 3: 10 = 20 / 2, 30 = 60 - 30.\n" * 400)  # the fixture knows bytes below 64
        shutil.copy(FIXTURES / "gpt.pt2", self.folder / "gpt.pt2")

    def tearDown(self):
        shutil.rmtree(self.folder)

    def job(self, extra="", name="job.yaml", **changes):
        values = {"model": self.folder / "gpt.pt2", "folder": self.folder, "sequence": 16, **changes}
        path = self.folder / name
        path.write_text(JOB.format(**values) + extra)
        return path

    def golden(self, name, text):
        text = text.replace(str(self.folder), "FOLDER")
        path = GOLDEN / name
        if REWRITE:
            path.write_text(text)
        self.assertEqual(path.read_text(), text, f"golden/{name}: run `make golden` and look at the difference")

    def assert_nothing_left(self):
        left = sorted(p.name for p in self.folder.iterdir())
        self.assertFalse([name for name in left if name.startswith("runs") or name == "run"], left)

    def assert_fails(self, result, code, *words):
        self.assertEqual(result.returncode, code, result.stderr + result.stdout)
        for word in words:
            self.assertIn(word, result.stderr)


class Help(Case):
    def test_every_command_explains_itself(self):
        for command in ["", "train", "plan", "explain", "simulate", "validate", "probe", "catalogue", "model", "agent"]:
            with self.subTest(command):
                result = launch(*([command] if command else []), "--help", folder=self.folder)
                self.assertEqual(result.returncode, 0)
                self.golden(f"help_{command or 'launch'}.txt", result.stdout)

    def test_no_command_is_a_usage_error(self):
        self.assert_fails(launch(folder=self.folder), 64)

    def test_a_flag_of_a_later_version_is_refused_by_name(self):
        self.assert_fails(launch("train", self.job(), "--max-restarts", "3", folder=self.folder), 64, "--max-restarts", "this version cannot")
        self.assert_nothing_left()

    def test_a_range_of_steps_that_the_job_has_not_is_refused_before_the_start(self):
        for text in ["5-2", "0-", "1-3", "2", ""]:  # the job has two steps
            with self.subTest(text):
                result = launch("train", self.job(), "--trace-steps", text, "--devices", "2xcpu", "--run-dir", self.folder / "run", folder=self.folder)
                self.assert_fails(result, 64, "--trace-steps", "1 <= A <= B <= 2", text or "nothing", "fix:")
                self.assert_nothing_left()
        result = launch("train", self.job(), "--trace-steps", "2-1", folder=self.folder)
        self.golden("bad_trace_steps.txt", result.stderr)

    def test_underscores_are_hyphens(self):
        self.assert_fails(launch("train", self.job(), "--max_restarts=3", folder=self.folder), 64, "--max-restarts")


class BadJob(Case):
    def test_every_mistake_is_listed(self):
        path = self.folder / "job.yaml"
        path.write_text(
            "name: tiny\nmodel: {pt2: a.pt2, huggingface: b}\ndata: {text: t.txt, sequence_length: -3}\n"
            "batch: {global: 32, micro: 5}\noptimiser: {name: adamw}\noptimizer: {betas: [0.9, 1.5]}\ntrain: {seed: 1}\n")
        result = launch("train", path, folder=self.folder)
        self.assert_fails(result, 65)
        self.golden("bad_job.txt", result.stderr)
        self.assert_nothing_left()

    def test_a_python_script_says_how_to_export(self):
        (self.folder / "train.py").write_text("import torch\n")
        for command in ["train", "plan"]:
            self.assert_fails(launch(command, "train.py", folder=self.folder), 64, "coxswain.export")

    def test_data_that_do_not_fit_the_model_are_listed(self):
        (self.folder / "text.txt").write_text("In the beginning")
        result = launch("train", self.job(sequence=8), "--devices", "2xcpu", "--run-dir", self.folder / "run", folder=self.folder)
        self.assert_fails(result, 65, "bytes below 64", "byte 73 at offset 0", "data.sequence_length")
        self.assertFalse((self.folder / "run").exists())

    def test_a_missing_job_is_named(self):
        self.assert_fails(launch("train", "nowhere.yaml", folder=self.folder), 65, "nowhere.yaml")

    def test_a_batch_that_does_not_divide(self):
        job = self.job(extra="plan: {micro: 3}\n")
        self.assert_fails(launch("plan", job, "--cluster", self.cluster(), folder=self.folder), 65, "3")

    def cluster(self, memory=1 << 30):
        return write_cluster(self.folder, memory)


class BadModel(Case):
    def test_a_truncated_archive(self):
        whole = (self.folder / "gpt.pt2").read_bytes()
        for part in [0, 10, len(whole) // 2, len(whole) - 30]:
            with self.subTest(part):
                (self.folder / "cut.pt2").write_bytes(whole[:part])
                self.assert_fails(launch("model", "show", "cut.pt2", folder=self.folder), 65, "cut.pt2")

    def refused_everywhere(self, name, *words):
        """By `model show`, and by `train` before anything starts."""
        self.assert_fails(launch("model", "show", name, folder=self.folder), 65, *words)
        job = self.job(model=self.folder / name)
        self.assert_fails(launch("train", job, "--devices", "2xcpu", "--run-dir", "run", folder=self.folder), 65, *words)
        self.assert_nothing_left()

    def test_a_corrupt_archive(self):
        whole = bytearray((self.folder / "gpt.pt2").read_bytes())
        at = whole.index(b'"graph_module"') + 2000
        whole[at : at + 8] = b"\0" * 8
        (self.folder / "bad.pt2").write_bytes(whole)
        self.refused_everywhere("bad.pt2", "bad.pt2", "model.json")

    def test_a_weight_file_of_wrong_size(self):
        rewrite_archive("%s/gpt.pt2" % self.folder, self.folder / "bad.pt2", lambda name, data: data[:-4] if name.endswith("weight_3") else data)
        self.refused_everywhere("bad.pt2", "weight_3", "12288", "12284")

    def test_an_operator_without_a_kernel(self):
        rewrite_archive(
            "%s/gpt.pt2" % self.folder, self.folder / "bad.pt2",
            lambda name, data: data.replace(b"torch.ops.aten.gelu.default", b"torch.ops.mine.gelu.default") if name.endswith("model.json") else data)
        self.refused_everywhere("bad.pt2", "mine::gelu", "model.py")

    def test_a_missing_model(self):
        self.assert_fails(launch("model", "show", "none.pt2", folder=self.folder), 65, "none.pt2")

    def test_show_is_json_on_stdout_alone(self):
        result = launch("model", "show", "gpt.pt2", "--format", "json", folder=self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        json.loads(result.stdout)


def write_cluster(folder, memory):
    cluster = {
        "format_version": 1,
        "device_classes": [{
            "name": "small", "kind": "cpu", "cores": 1.0, "memory_bytes": sourced(memory), "memory_bandwidth_bytes_per_second": sourced(1e10),
            "peak_float32_flop_per_second": sourced(5e10), "peak_bfloat16_flop_per_second": sourced(5e10), "matmul_rates": [],
            "launch_overhead_seconds": sourced(1e-6)}],
        "node_classes": [{
            "name": "node", "devices": [{"device_class": "small", "count": 2}], "cores": 2, "host_memory_bytes": sourced(1 << 34),
            "link": {"name": "memory", "latency_seconds": sourced(1e-6), "bandwidth_bytes_per_second": sourced(5e9), "sharing": 0}}],
        "nodes": [{"node_class": "node", "count": 1}],
        "tiers": [], "link_overrides": []}
    path = folder / f"cluster-{memory}.json"
    path.write_text(json.dumps(cluster))
    return path


class Catalogue(Case):
    def test_hardware_one_does_not_have(self):
        result = launch("plan", self.job(), "--cluster", "2x2xa100-80gb-sxm,ib200", "--format", "json", folder=self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        devices = json.loads(result.stdout)["estimate"]["devices"]
        self.assertEqual({device["device"] for device in devices}, {"a100-80gb-sxm"})
        self.assertEqual({device["capacity_bytes"] for device in devices}, {80 * 10**9})

    def test_a_catalogue_cluster_as_a_file_is_the_same_cluster(self):
        text = "1x4xa100-80gb-sxm,ib200+1x2xv100-16gb,ib100"
        printed = launch("catalogue", text, folder=self.folder)
        self.assertEqual(printed.returncode, 0, printed.stderr)
        (self.folder / "cluster.json").write_text(printed.stdout)
        self.assertEqual(launch("validate", "cluster.json", folder=self.folder).returncode, 0)
        plans = [launch("plan", self.job(), "--cluster", cluster, "--format", "json", folder=self.folder).stdout for cluster in [text, "cluster.json"]]
        self.assertEqual(*[json.loads(plan)["plan"] for plan in plans])

    def test_unknown_hardware_lists_the_known(self):
        result = launch("plan", self.job(), "--cluster", "16x8xh101,ib401", folder=self.folder)
        self.assert_fails(result, 65, "h101", "h100-sxm", "cluster column 6", "ib401", "ib400")

    def test_an_unknown_file_says_what_else_there_is(self):
        result = launch("plan", self.job(), "--cluster", "nowhere.json", folder=self.folder)
        self.assert_fails(result, 65, "nowhere.json", "16x8xh100-sxm,ib400", "launch catalogue")

    def test_the_list_names_devices_systems_and_networks(self):
        result = launch("catalogue", folder=self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        for word in ["h100-sxm", "dgx-a100", "ib400"]:
            self.assertIn(word, result.stdout)


class Planning(Case):
    def plan(self, *flags, memory=1 << 30, job=None):
        return launch("plan", job or self.job(), "--cluster", write_cluster(self.folder, memory), *flags, folder=self.folder)

    def test_a_plan_is_json_with_the_fixed_keys(self):
        result = self.plan("--format", "json")
        self.assertEqual(result.returncode, 0, result.stderr)
        document = json.loads(result.stdout)
        for key in ["plan", "estimate", "lower_bound_step_seconds", "optimality_gap", "binding_constraint", "runners_up", "rejected", "sensitivities", "search"]:
            self.assertIn(key, document)
        self.assertLessEqual(document["lower_bound_step_seconds"], document["estimate"]["step_seconds"])

    def test_equal_input_gives_equal_bytes_for_any_thread_count(self):
        texts = set()
        for threads in ["1", "2", "5"]:
            document = json.loads(self.plan("--format", "json", "--threads", threads).stdout)
            texts.add(json.dumps([document["plan"], document["estimate"]], sort_keys=True))
        self.assertEqual(len(texts), 1)

    def test_a_written_plan_validates_and_simulates(self):
        result = self.plan("--runnable", "--out", "plan.json")
        self.assertEqual(result.returncode, 0, result.stderr)
        cluster = write_cluster(self.folder, 1 << 30)
        valid = launch("validate", "plan.json", "--job", "job.yaml", "--cluster", cluster, folder=self.folder)
        self.assertEqual(valid.returncode, 0, valid.stderr)
        simulated = launch("simulate", "plan.json", "--cluster", cluster, "--trace", "trace.json", folder=self.folder)
        self.assertEqual(simulated.returncode, 0, simulated.stderr)
        self.assertTrue(json.loads((self.folder / "trace.json").read_text()))
        explained = launch("explain", "plan.json", "--cluster", cluster, folder=self.folder)
        self.assertEqual(explained.returncode, 0, explained.stderr)

    def test_a_split_backward_simulates_and_validates(self):
        result = self.plan("--runnable", "--constrain", "pipeline=2", "--constrain", "data=1", "--constrain", "schedule=1f1b", "--out", "plan.json")
        self.assertEqual(result.returncode, 0, result.stderr)
        document = json.loads((self.folder / "plan.json").read_text())
        document["plan"]["schedule"] = "zbh1"
        for role in document["plan"]["roles"]:
            # The order of 1F1B, its backward as input gradient, then weight gradient.
            role["actions"] = [part for action in role["actions"]
                               for part in ([action.replace("B", "I", 1), action.replace("B", "W", 1)] if action[0] == "B" and action[1].isdigit() else [action])]
        (self.folder / "split.json").write_text(json.dumps(document))
        cluster = write_cluster(self.folder, 1 << 30)
        for command in ["simulate", "explain"]:
            result = launch(command, "split.json", "--cluster", cluster, folder=self.folder)
            self.assertEqual(result.returncode, 0, result.stderr)
        result = launch("validate", "split.json", "--job", "job.yaml", "--cluster", cluster, folder=self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_what_is_only_planned_simulates_and_does_not_train(self):
        result = self.plan("--runnable", "--constrain", "pipeline=2", "--constrain", "data=1", "--out", "plan.json")
        self.assertEqual(result.returncode, 0, result.stderr)
        document = json.loads((self.folder / "plan.json").read_text())
        document["plan"]["stages"][0]["recompute"][0] = "selective"
        (self.folder / "selective.json").write_text(json.dumps(document))
        cluster = write_cluster(self.folder, 1 << 30)
        result = launch("simulate", "selective.json", "--cluster", cluster, folder=self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        result = launch("validate", "selective.json", "--job", "job.yaml", "--cluster", cluster, folder=self.folder)
        self.assert_fails(result, 65, "V19", "selective", "none, full")

    def test_too_little_memory_says_how_much_is_missing_where(self):
        result = self.plan(memory=1 << 12)
        self.assert_fails(result, 69, "small")
        self.golden("infeasible.txt", result.stderr)

    def test_every_impossible_number_of_a_cluster_is_listed(self):
        document = json.loads(write_cluster(self.folder, 1 << 30).read_text())
        document["device_classes"][0]["memory_bytes"]["value"] = 0
        document["device_classes"][0]["peak_float32_flop_per_second"]["value"] = -1.0
        document["node_classes"][0]["devices"][0]["count"] = 0
        document["node_classes"][0]["link"]["bandwidth_bytes_per_second"]["value"] = 0.0
        (self.folder / "bad.json").write_text(json.dumps(document))
        result = launch("plan", self.job(), "--cluster", "bad.json", folder=self.folder)
        self.assert_fails(result, 65, "memory_bytes", "peak_float32", "devices[0].count", "bandwidth_bytes_per_second")
        for text in ["NaN", "Infinity", "1e999"]:
            good = write_cluster(self.folder, 1 << 30).read_text()
            (self.folder / "bad.json").write_text(good.replace("1e-06", text))
            self.assert_fails(launch("plan", self.job(), "--cluster", "bad.json", folder=self.folder), 65, "JSON")

    def test_numbers_that_are_none_are_refused_in_the_job(self):
        job = self.job("optimizer: {name: adamw, learning_rate: .nan, betas: [.inf, 2]}\n")
        self.assert_fails(self.plan(job=job), 65, "optimizer.learning_rate", "optimizer.betas[0]", "optimizer.betas[1]")

    def test_a_plan_for_another_model_is_refused(self):
        self.assertEqual(self.plan("--out", "plan.json").returncode, 0)
        shutil.copy(FIXTURES / "gpt2.pt2", self.folder / "gpt2.pt2")
        other = self.job(name="other.yaml", model=self.folder / "gpt2.pt2")
        result = launch("validate", "plan.json", "--job", other, "--cluster", write_cluster(self.folder, 1 << 30), folder=self.folder)
        self.assert_fails(result, 65, "model")

    def test_a_plan_for_another_cluster_is_refused(self):
        self.assertEqual(self.plan("--out", "plan.json").returncode, 0)
        result = launch("train", self.job(), "--plan", "plan.json", "--devices", "3xcpu", "--run-dir", "run", folder=self.folder)
        self.assert_fails(result, 65, "cluster", "plan.json")
        self.assert_nothing_left()

    def test_unknown_constraints_list_the_known_ones(self):
        self.assert_fails(self.plan("--constrain", "speed=9"), 65, "schedule")


class Explaining(Case):
    """Prices, limits, conflicts, calibration: what goes wrong, and that the numbers are there when it does not."""

    def plan(self, *flags):
        return launch("plan", self.job(), "--cluster", write_cluster(self.folder, 1 << 30), *flags, folder=self.folder)

    def test_money_needs_prices(self):
        self.assert_fails(self.plan("--objective", "cost"), 65, "small", "--price")
        self.assert_fails(self.plan("--price", "small=free", "--price", "large=1"), 65, "small=free", "large=1", "CLASS=USD")
        result = self.plan("--objective", "cost", "--price", "small=0.5", "--format", "json")
        self.assertEqual(result.returncode, 0, result.stderr)
        document = json.loads(result.stdout)
        self.assertEqual(document["objective"], "cost")
        self.assertGreaterEqual(document["cost_per_step_usd"], document["lower_bound_cost_per_step_usd"])
        self.assertEqual(document["cost_per_step_usd"], document["estimate"]["cost_per_step_usd"])

    def test_limits_that_no_plan_keeps(self):
        self.assert_fails(self.plan("--max-step-seconds", "1e-9"), 69, "max-step-seconds=1e-09 cannot be kept", "allow")
        self.assert_fails(self.plan("--max-step-seconds", "-1"), 64, "--max-step-seconds")

    def test_constraints_that_contradict_each_other(self):
        self.assert_fails(self.plan("--constrain", "micro=1", "--constrain", "data=2"), 65, "data=2 and micro=1 cannot be met together")

    def test_reasons_and_sensitivities_are_json(self):
        document = json.loads(self.plan("--format", "json").stdout)
        self.assertTrue([one for one in document["rejected"] if one.get("family")])
        for entry in document["sensitivities"]:
            self.assertGreater(entry["step_seconds"], 0)
        self.assertEqual([one["device"] for one in document["classes"]], ["small"])

    def test_a_bad_calibration_lists_every_line(self):
        (self.folder / "metrics.jsonl").write_text("{\n" + json.dumps({"step": 5, "generation": 1, "step_seconds": "fast"}) + "\n")
        self.assert_fails(self.plan("--calibrate", "metrics.jsonl"), 65, "line 1", "line 2", "step_seconds", "peak_memory_bytes")
        self.assert_fails(self.plan("--calibrate", "none.jsonl"), 65, "none.jsonl")

    def test_a_calibration_tells_what_it_corrected(self):
        rows = [{"step": step, "generation": 1, "step_seconds": 0.2, "predicted_step_seconds": 0.1, "peak_memory_bytes": [300], "predicted_peak_memory_bytes": [200]}
                for step in range(1, 10)]
        (self.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        plain, calibrated = [self.plan("--format", "json", *flags) for flags in [[], ["--calibrate", "metrics.jsonl"]]]
        self.assertIn("small: compute x 2.000", calibrated.stderr)
        before, after = [json.loads(result.stdout)["estimate"]["parts"]["forward"] for result in [plain, calibrated]]
        self.assertGreater(after, before)

    def test_against_a_plan_for_something_else_is_refused(self):
        self.assertEqual(self.plan("--out", "plan.json").returncode, 0)
        other = json.loads((self.folder / "plan.json").read_text())
        other["plan"]["cluster_hash"] = "0" * 64
        (self.folder / "other.json").write_text(json.dumps(other))
        cluster = write_cluster(self.folder, 1 << 30)
        explain = lambda against: launch("explain", "plan.json", "--job", "job.yaml", "--cluster", cluster, "--against", against, folder=self.folder)
        self.assert_fails(explain("other.json"), 65, "other.json", "cluster_hash")
        same = explain("plan.json")
        self.assertEqual(same.returncode, 0, same.stderr)
        self.assertIn("as fast", same.stdout)


class Import(Case):
    """Problems of other planners, planned without a job."""

    def imported(self, name, *flags):
        file, score, step = exchange_cases.FORMATS[name](self.folder)
        return launch("plan", "--import", name, file, *flags, folder=self.folder), score, step

    def test_each_format_reaches_its_optimum(self):
        for name in exchange_cases.FORMATS:
            with self.subTest(name):
                result, score, step = self.imported(name, "--format", "json", "--out", f"{name}-out.json")
                self.assertEqual(result.returncode, 0, result.stderr)
                document = json.loads(result.stdout)
                self.assertEqual(document["format"], name)
                self.assertAlmostEqual(document["score"] / score, 1, delta=1e-9)
                self.assertAlmostEqual(document["step_seconds"] / step, 1, delta=1e-9)
                self.assertEqual(json.loads((self.folder / f"{name}-out.json").read_text()), document)
                bound = document["lower_bound_step_seconds"]
                self.assertEqual(bound is None, name in ["galvatron", "sailor"])
                if bound is not None:
                    self.assertAlmostEqual(bound / step, 1, delta=1e-6)

    def test_each_format_prints_its_plan(self):
        for name in exchange_cases.FORMATS:
            with self.subTest(name):
                result, _, _ = self.imported(name)
                self.assertEqual(result.returncode, 0, result.stderr)
                lines = [line for line in result.stdout.splitlines(keepends=True) if not line.startswith("search")]
                self.assertEqual(len(lines), len(result.stdout.splitlines()) - 1)
                self.golden(f"import_{name}.txt", "".join(lines))

    def test_a_plan_that_does_not_divide_the_batch_has_one_that_does_beside_it(self):
        exchange_cases.sailor(self.folder)
        document = json.loads((self.folder / "sailor.json").read_text())
        document["cluster"][0]["count"] = 3  # three replicas take 3 x 2.25 s; three stages of one take 10 x 0.75 s, two replicas 4 x 2.25 s
        (self.folder / "sailor.json").write_text(json.dumps(document))
        result = launch("plan", "--import", "sailor", "sailor.json", "--format", "json", folder=self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        answer = json.loads(result.stdout)
        shapes = [(len(each["answer"]["stages"]), each["answer"]["stages"][0]["replicas"][0]["count"]) for each in [answer, answer["dividing"]]]
        self.assertEqual(shapes, [(1, 3), (3, 1)])
        self.assertIn("divide the global batch:", launch("plan", "--import", "sailor", "sailor.json", folder=self.folder).stdout)

    def test_a_job_beside_it_is_a_usage_error(self):
        exchange_cases.piper(self.folder)
        self.assert_fails(launch("plan", self.job(), "--import", "piper", "piper.json", folder=self.folder), 64, "--import and JOB", "job.yaml")
        self.assert_fails(launch("plan", "--import", "piper", "piper.json", "--cluster", "1x2xt4", folder=self.folder), 64, "--cluster", "--import")
        self.assert_fails(launch("plan", "--import", "piper", folder=self.folder), 64, "--import")
        self.assert_fails(launch("plan", "--import", "alpa", "piper.json", folder=self.folder), 64, "alpa", "piper, galvatron, metis, sailor")
        self.assert_fails(launch("plan", folder=self.folder), 64, "JOB", "--import FORMAT FILE")

    def test_every_problem_of_a_file_is_listed(self):
        exchange_cases.piper(self.folder)
        document = json.loads((self.folder / "piper.json").read_text())
        del document["bandwidth"]
        document["edges"][0]["destId"] = 7
        document["maxDevices"] = 0
        (self.folder / "piper.json").write_text(json.dumps(document))
        self.assert_fails(launch("plan", "--import", "piper", "piper.json", folder=self.folder), 65, "piper.json", "bandwidth", "maxDevices")
        exchange_cases.metis(self.folder)
        (self.folder / "metis/hostfile").write_text("10.0.0.1\n10.0.0.3 slots=2\n")
        (self.folder / "metis/profiles/DeviceType.A100_tp1_bs2.json").write_text("{}")
        self.assert_fails(launch("plan", "--import", "metis", "metis", folder=self.folder), 65, "hostfile:1", "10.0.0.3", "DeviceType.A100_tp1_bs2.json")
        self.assert_fails(launch("plan", "--import", "sailor", "nowhere.json", folder=self.folder), 65, "nowhere.json")

    def test_a_problem_without_a_plan_is_infeasible(self):
        exchange_cases.metis(self.folder)
        cluster = json.loads((self.folder / "metis/clusterfile.json").read_text())
        for host in cluster.values():
            host["memory"] = 0.0001
        (self.folder / "metis/clusterfile.json").write_text(json.dumps(cluster))
        self.assert_fails(launch("plan", "--import", "metis", "metis", folder=self.folder), 69, "profile smaller batches")


class Export(Case):
    """Plans in the words of other tools."""

    def exported(self, tool, *flags):
        job = self.job()
        result = launch("plan", job, "--cluster", "1x4xa100-80gb-sxm", "--export", tool, *flags, folder=self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        lost = [line.removeprefix("not expressed: ") for line in result.stderr.splitlines() if line.startswith("not expressed: ")]
        for line in lost:
            self.assertIn(line, result.stdout.replace('\\"', '"'))
        return result.stdout, lost

    def test_megatron(self):
        text, lost = self.exported("megatron", "--constrain", "data=2", "--constrain", "pipeline=2", "--constrain", "tensor=1", "--constrain", "zero=0",
                                   "--constrain", "samples=[1,1]", "--constrain", "offload=none", "--constrain", "schedule=1f1b", "--constrain", "recompute=none")
        arguments = [line for line in text.splitlines() if not line.startswith("#")]
        self.assertEqual(arguments[:4], ["--tensor-model-parallel-size 1", "--pipeline-model-parallel-size 2", "--micro-batch-size 1", "--global-batch-size 8"])
        self.assertIn("--overlap-grad-reduce", arguments)
        self.assertEqual(lost, [])
        self.assertIn("a100-80gb-sxm", text)

    def test_torchtitan_is_toml(self):
        text, lost = self.exported("torchtitan", "--constrain", "data=2", "--constrain", "pipeline=2", "--constrain", "tensor=1", "--constrain", "zero=3",
                                   "--constrain", "samples=[1,1]", "--constrain", "offload=none", "--constrain", "schedule=1f1b", "--constrain", "recompute=none")
        document = tomllib.loads(text)
        self.assertEqual(document["parallelism"]["pipeline_parallel_degree"], 2)
        self.assertEqual(document["parallelism"]["data_parallel_shard_degree"], 2)
        self.assertEqual(document["training"]["global_batch_size"], 8)
        self.assertEqual(document["training"]["local_batch_size"], 4)
        parts = document["parallelism"]["module_fqns_per_model_part"]
        self.assertEqual([parts[0][0], parts[1][-1]], ["tok_embeddings", "output"])
        self.assertEqual(lost, [])

    def test_deepspeed_is_json_whose_batches_agree(self):
        text, lost = self.exported("deepspeed", "--constrain", "data=4", "--constrain", "pipeline=1", "--constrain", "tensor=1", "--constrain", "zero=2",
                                   "--constrain", "samples=[1,1,1,1]", "--constrain", "offload=none")
        document = json.loads(text)
        self.assertEqual(document["train_batch_size"], 8)
        self.assertEqual(document["train_micro_batch_size_per_gpu"] * document["gradient_accumulation_steps"] * 4, 8)
        self.assertEqual(document["zero_optimization"]["stage"], 2)
        self.assertEqual([line for line in lost if "recompute" not in line], [])

    def test_what_a_tool_lacks_is_told(self):
        _, lost = self.exported("deepspeed", "--constrain", "data=2", "--constrain", "pipeline=2", "--constrain", "tensor=1", "--constrain", "schedule=gpipe")
        self.assertTrue(any("PipelineModule" in line for line in lost), lost)
        self.assertTrue(any("schedule gpipe" in line for line in lost), lost)

    def test_an_unknown_tool_lists_the_known(self):
        result = launch("plan", self.job(), "--cluster", write_cluster(self.folder, 1 << 30), "--export", "alpa", folder=self.folder)
        self.assert_fails(result, 64, "megatron", "torchtitan", "deepspeed")


class Replanning(Case):
    """Two nodes of two devices; a plan for them runs."""

    BEFORE = "2x2xa100-80gb-sxm,ib200"

    def setUp(self):
        super().setUp()
        self.ok("plan", self.job(), "--cluster", self.BEFORE, "--runnable", "--constrain", "data=4", "--constrain", "pipeline=1", "--out", "plan.json")

    def ok(self, *arguments):
        result = launch(*arguments, folder=self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def replan(self, *flags):
        result = self.ok("plan", "job.yaml", "--running", "plan.json", "--runnable", "--format", "json", *flags)
        return json.loads(result.stdout), result.stderr

    def test_a_short_horizon_keeps_the_plan_and_a_long_one_moves(self):
        flags = ["--cluster", self.BEFORE, "--slower", "a100-80gb-sxm:3=0.01"]
        soon, _ = self.replan("--horizon-seconds", "0.001", *flags)
        self.assertTrue(soon["move"]["keeps_running_plan"])
        self.assertEqual(soon["move"]["seconds"], 0)
        running = json.loads((self.folder / "plan.json").read_text())["plan"]
        self.assertEqual([s["first_block"] for s in soon["plan"]["stages"]], [s["first_block"] for s in running["stages"]])
        late, _ = self.replan("--horizon-seconds", "1e7", *flags)
        self.assertFalse(late["move"]["keeps_running_plan"])
        self.assertLess(late["estimate"]["step_seconds"], soon["estimate"]["step_seconds"])
        self.assertGreater(late["move"]["pays_after_seconds"], late["move"]["seconds"])
        self.assertAlmostEqual(late["move"]["running_step_seconds"], soon["estimate"]["step_seconds"])

    def test_the_move_is_told_in_words(self):
        result = self.ok("plan", "job.yaml", "--running", "plan.json", "--cluster", self.BEFORE, "--horizon-seconds", "3600", "--lost", "a100-80gb-sxm:1")
        self.assertIn("moving takes 1.0 s", result.stdout)
        self.assertIn("horizon 1 h 0 min", result.stdout)
        self.assertIn("note: lost since the running plan was made: a100-80gb-sxm 1", result.stderr)

    def test_the_plan_after_a_lost_node_validates_on_the_changed_cluster(self):
        document, _ = self.replan("--cluster", self.BEFORE, "--horizon-seconds", "600", "--lost", "node:0", "--out", "next.json", "--out-cluster", "after.json")
        self.assertEqual(document["move"]["bytes"]["from_disk"], 0)
        self.ok("validate", "next.json", "--job", "job.yaml", "--cluster", "after.json")
        after = json.loads((self.folder / "after.json").read_text())
        self.assertEqual(sum(group["count"] for group in after["nodes"]), 1)

    def test_added_nodes_are_used_when_the_horizon_is_long(self):
        document, _ = self.replan("--cluster", self.BEFORE, "--horizon-seconds", "1e9", "--added", "2xa100-80gb-sxm=1", "--out-cluster", "after.json")
        after = json.loads((self.folder / "after.json").read_text())
        self.assertEqual(after["nodes"][0]["count"], 3)
        self.assertIn("move", document)

    def test_two_cluster_files_are_matched_by_class(self):
        for name, text in [("cluster.json", self.BEFORE), ("after.json", "1x2xa100-80gb-sxm,ib200")]:
            (self.folder / name).write_text(self.ok("catalogue", text).stdout)
        document, notes = self.replan("--cluster", "after.json", "--horizon-seconds", "600")
        self.assertIn("a100-80gb-sxm 2-3", notes)
        self.assertIsNone(document["move"]["running_step_seconds"])
        # Without --cluster it is the one beside the plan: nothing changed.
        same, notes = self.replan("--horizon-seconds", "0.001")
        self.assertTrue(same["move"]["keeps_running_plan"])
        self.assertNotIn("lost", notes)

    def test_equal_input_gives_equal_bytes_for_any_thread_count(self):
        texts = set()
        for threads in ["1", "3"]:
            document, _ = self.replan("--cluster", self.BEFORE, "--horizon-seconds", "60", "--lost", "a100-80gb-sxm:2", "--threads", threads)
            texts.add(json.dumps([document["plan"], document["estimate"], document["move"]], sort_keys=True))
        self.assertEqual(len(texts), 1)

    def test_every_mistake_is_told(self):
        bad = launch("plan", "job.yaml", "--running", "plan.json", "--cluster", self.BEFORE, "--horizon-seconds", "60", "--lost", "a100:1,a100-80gb-sxm:7,node:2",
                     "--added", "rack=1", folder=self.folder)
        self.assert_fails(bad, 65, "a100-80gb-sxm, or node for whole nodes", "a100-80gb-sxm:0-3", "node:0-1", "rack")
        self.golden("bad_change.txt", bad.stderr)
        unread = launch("plan", "job.yaml", "--running", "plan.json", "--cluster", self.BEFORE, "--horizon-seconds", "60", "--slower", "a100-80gb-sxm:1=2", folder=self.folder)
        self.assert_fails(unread, 65, "--slower", "between 0 and 1")

    def test_flags_that_need_each_other(self):
        self.assert_fails(launch("plan", "job.yaml", "--running", "plan.json", folder=self.folder), 64, "--horizon-seconds")
        self.assert_fails(launch("plan", "job.yaml", "--lost", "a:1", folder=self.folder), 64, "--running PLAN")
        zero = launch("plan", "job.yaml", "--running", "plan.json", "--cluster", self.BEFORE, "--horizon-seconds", "0", folder=self.folder)
        self.assert_fails(zero, 65, "horizon_seconds")

    def test_a_plan_of_another_cluster_is_refused(self):
        other = launch("plan", "job.yaml", "--running", "plan.json", "--cluster", "4x2xa100-80gb-sxm,ib200", "--horizon-seconds", "60", "--lost", "node:1",
                       folder=self.folder)
        self.assert_fails(other, 65, "another cluster", "--running-cluster")


class Machine(Case):
    def test_a_used_run_directory_is_refused(self):
        run = self.folder / "used"
        run.mkdir()
        (run / "metrics.jsonl").write_text("{}\n")
        (run / "job.yaml").write_text("name: other\n")
        result = launch("train", self.job(), "--run-dir", run, folder=self.folder)
        self.assert_fails(result, 71, "used")
        self.assertEqual((run / "metrics.jsonl").read_text(), "{}\n")

    def test_a_run_directory_that_cannot_be_made(self):
        (self.folder / "file").write_text("no folder")
        result = launch("train", self.job(), "--devices", "2xcpu", "--run-dir", self.folder / "file" / "run", folder=self.folder)
        self.assert_fails(result, 71, "file/run")

    def test_a_port_in_use_is_named(self):
        token = self.folder / "token"
        token.write_text("secret of this test\n")
        token.chmod(0o600)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            result = launch("train", self.job(), "--nnodes", "2", "--node-rank", "0", "--rdzv-endpoint", f"127.0.0.1:{port}", "--token-file", token, "--run-dir",
                            self.folder / "run", folder=self.folder)
        self.assert_fails(result, 71, str(port))

    def test_more_cores_than_there_are(self):
        result = launch("train", self.job(), "--devices", "cpu@4000", "--run-dir", self.folder / "run", folder=self.folder)
        self.assertIn(result.returncode, (64, 65, 71), result.stderr)
        self.assertIn("4000", result.stderr)
        self.assert_nothing_left()


if __name__ == "__main__":
    if "--golden" in sys.argv:
        sys.argv.remove("--golden")
        REWRITE = True
    unittest.main(verbosity=1)
