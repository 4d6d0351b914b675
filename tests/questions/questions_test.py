"""Runs the commands of questions.py in a copy of examples/plans and compares what they print with golden/, and docs/questions.md
with the document made of it. COX_UPDATE_GOLDEN=1 (`make golden`) rewrites both: read the difference."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from questions import COMMANDS, QUESTIONS

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = pathlib.Path(os.environ.get("COX_BINARY_DIR", ROOT / "build" / "release"))
GOLDEN = HERE / "golden"
DOCUMENT = ROOT / "docs" / "questions.md"
REWRITE = bool(os.environ.get("COX_UPDATE_GOLDEN"))

HEAD = """# Questions

What one asks of a plan, the command that answers, and the lines of its output that do. The jobs stand in
[examples/plans](../examples/plans); nothing of the hardware has to exist. The test `questions` runs every command and compares
what it prints with `tests/questions/golden/`; `make golden` writes this page anew from `tests/questions/questions.py`. The run that
the last question corrects the model from is made up.

`--format json` has the same, beside the keys of the interface: `classes` (the table of device classes), `objective`,
`cost_per_step_usd` and `lower_bound_cost_per_step_usd` where prices are known, `family` and `step_seconds` in `rejected`, `summary`
in `sensitivities`; of `launch explain` also `better` (a plan that the search prefers) and `against` (`verdict`, `reasons`,
`differences`, `estimate`). On clusters of more than 64 devices whose search is long, families are those among the runners-up and
only the chosen plan is simulated again on changed links and cards.
"""


def run(command, folder):
    environment = {**os.environ, "PATH": f"{BUILD / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def answer_lines(output, beginnings):
    lines, runners = [], False
    for line in output.splitlines():
        runner = runners and line.startswith("   ")
        runners = line.startswith("runners-up") or runner
        if any(line.startswith(start) for start in beginnings if start != "RUNNER") or (runner and "RUNNER" in beginnings):
            lines.append(line.rstrip())
    return lines


class Questions(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="coxswain-questions-"))
        shutil.copytree(ROOT / "examples" / "plans", cls.folder / "plans")
        cls.outputs, cls.codes, done = {}, {}, set()
        for command in COMMANDS:
            for text in command.before:
                if text not in done:
                    result = run(text, cls.folder / "plans")
                    assert result.returncode == 0, f"{text}: {result.stderr}"
                    done.add(text)
            result = run(command.text, cls.folder / "plans")
            cls.outputs[command.name] = result.stderr + result.stdout
            cls.codes[command.name] = result.returncode

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def compare(self, path, text):
        if REWRITE:
            path.write_text(text)
        self.assertEqual(path.read_text(), text, f"{path.relative_to(ROOT)}: run `make golden` and look at the difference")

    def test_every_command_prints_what_was_reviewed(self):
        for command in COMMANDS:
            with self.subTest(command.name):
                self.assertEqual(self.codes[command.name], command.code, self.outputs[command.name])
                self.compare(GOLDEN / f"{command.name}.txt", self.outputs[command.name])

    def test_every_question_is_answered_in_the_document(self):
        commands = {command.name: command for command in COMMANDS}
        text = HEAD
        for number, question in enumerate(QUESTIONS, 1):
            lines = answer_lines(self.outputs[question.command], question.lines)
            with self.subTest(question.text):
                self.assertTrue(lines, self.outputs[question.command])
            command = commands[question.command]
            shown = [f"$ {one}" for one in [*command.before, command.text]]
            text += f"\n## {number}. {question.text}\n\n```text\n" + "\n".join([*shown, *lines]) + "\n```\n"
        self.compare(DOCUMENT, text)


if __name__ == "__main__":
    unittest.main(verbosity=1)
