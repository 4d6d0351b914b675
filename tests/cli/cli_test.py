"""The real `launch` on good and bad input. Each bad input: its exit code, a message that names place, expectation and cure,
nothing started, nothing left behind."""

import json
import shutil
import socket
import unittest

from cli_case import Case, FIXTURES, launch, rewrite_archive, write_cluster


class Help(Case):
    def test_every_command_explains_itself(self):
        for command in ["", "train", "plan", "explain", "simulate", "validate", "probe", "catalogue", "model", "export", "serve", "cancel", "status", "logs", "agent"]:
            with self.subTest(command):
                result = launch(*([command] if command else []), "--help", folder=self.folder)
                self.assertEqual(result.returncode, 0)
                self.golden(f"help_{command or 'launch'}.txt", result.stdout)

    def test_no_command_is_a_usage_error(self):
        self.assert_fails(launch(folder=self.folder), 64)

    def test_a_flag_of_a_later_version_is_refused_by_name(self):
        self.assert_fails(launch("probe", "--inventory", "nodes", folder=self.folder), 64, "--inventory", "this version cannot")
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
        self.assert_fails(launch("agent", "--coordinator", "127.0.0.1:1", "--token-file", "t", "--tls_ca=x", folder=self.folder), 64, "--tls-ca")


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

    def test_selective_recompute_simulates_and_may_train(self):
        result = self.plan("--runnable", "--constrain", "pipeline=2", "--constrain", "data=1", "--out", "plan.json")
        self.assertEqual(result.returncode, 0, result.stderr)
        document = json.loads((self.folder / "plan.json").read_text())
        document["plan"]["stages"][0]["recompute"][0] = "selective"
        (self.folder / "selective.json").write_text(json.dumps(document))
        cluster = write_cluster(self.folder, 1 << 30)
        result = launch("simulate", "selective.json", "--cluster", cluster, folder=self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        result = launch("validate", "selective.json", "--job", "job.yaml", "--cluster", cluster, folder=self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)

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

    def test_a_plan_that_is_not_there_is_named_before_anything_starts(self):
        result = launch("train", self.job(), "--plan", "nowhere.json", "--devices", "2xcpu", "--run-dir", "run", folder=self.folder)
        self.assert_fails(result, 65, "nowhere.json")
        self.assertFalse((self.folder / "run").exists())

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
    unittest.main(verbosity=1)
