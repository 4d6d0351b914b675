"""What the tests of `launch` share: the program, a folder with a small job, recorded texts in golden/ (`make golden` writes them
anew)."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest
import zipfile

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


class Case(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.expectations = json.loads((FIXTURES / "expectations.json").read_text())

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="coxswain-cli-"))
        self.addCleanup(shutil.rmtree, self.folder)  # last, when what a test started has ended
        (self.folder / "text.txt").write_text("1 2 3: 10 = 20 / 2, 30 = 60 - 30.\n" * 400)  # the fixture knows bytes below 64
        shutil.copy(FIXTURES / "gpt.pt2", self.folder / "gpt.pt2")

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
