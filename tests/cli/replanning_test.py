"""`launch plan --running`: when a new plan is worth the move."""

import json
import unittest

from cli_case import Case, launch


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


if __name__ == "__main__":
    unittest.main(verbosity=1)
