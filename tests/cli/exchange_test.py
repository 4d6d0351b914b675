"""Problems of other planners in, plans for other tools out."""

import json
import tomllib
import unittest

import exchange_cases
from cli_case import Case, launch, write_cluster


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


if __name__ == "__main__":
    unittest.main(verbosity=1)
