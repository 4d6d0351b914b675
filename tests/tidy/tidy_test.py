#!/usr/bin/env python3
"""tidy.py sees what it is for: a clean little tree passes, and each planted violation is caught by its rule."""

import os
import shutil
import tempfile
import unittest

import tidy
from sources import long_functions

HERE = os.path.dirname(os.path.abspath(__file__))
ADR = "# 1. Choice\n\n## Context\n\n## Decision\n\n## Alternatives\n\n## Consequence\n"
CLEAN = {
    "common/CMakeLists.txt": "cox_library(common LINK spdlog::spdlog PUBLIC_HEADERS error.h exit_code.h)\n",
    "common/error.h": "#pragma once\n#include <string>\n",
    "common/exit_code.h": "enum class ExitCode : int {\n  Done = 0,\n  Failed = 1,\n};\n",
    "plan/CMakeLists.txt": "cox_library(plan DEPS common model cluster)\n",
    "plan/plan.h": '#include "common/error.h"\n/// Rule V1: samples add up.\n',
    "plan/plan.cpp": '#include "plan/plan.h"\n#include "plan/inner.h"\n',
    "plan/inner.h": "#pragma once\n",
    "tests/plan/plan_test.cpp": '#include "plan/plan.h"\n#include "plan/inner.h"\n// V1\n',
    "docs/plan.md": "| V1 | samples add up |\n",
    "docs/adr/0001-choice.md": ADR,
    "worker/CMakeLists.txt": "cox_library(worker_engine DEPS common plan LINK cox_libtorch)\n"
    "cox_library(worker_service DEPS common worker_engine)\n",
    "worker/engine/run.cpp": '#include <torch/torch.h>\n#include "common/error.h"\n'
    'void f(T t) { t.detach(); } // std::exit(1) and getenv("X") in a comment\n',
    "launcher/CMakeLists.txt": "cox_library(launcher DEPS common plan planner LINK yaml-cpp)\n"
    "add_executable(launch main.cpp)\ntarget_link_libraries(launch PRIVATE launcher)\n",
    "launcher/main.cpp": 'int main() { std::exit(0); }\nconst char* text = "getenv(1) exit(1) cfg tmp";\n',
    "collective/CMakeLists.txt": "cox_library(collective DEPS common PUBLIC_HEADERS communicator.h)\n",
    "collective/communicator.h": "class Communicator { virtual void abort() = 0; };\n",
    "collective/host/socket.cpp": "void f() { header.msg_iov = 0; ::sendmsg(1, 0, 0); int num_messages = e.msg; }\n",
    "executor/executor.cpp": '#include "collective/communicator.h"\n#include "plan/plan.h"\n',
    "README.md": "[plan](docs/plan.md)\n\n| 0 | done |\n| 1 | failed |\n\n```sh\nmake demo\nCOX=1 make test\n```\n",
    "Makefile": "demo:\n\ntest: demo\n",
}

# rule -> plants: files to write over the clean tree (None removes one)
PLANTED = {
    "layers": [
        {"plan/plan.cpp": '#include "planner/planner.h"\n'},
        {"common/error.h": '#include "plan/plan.h"\n'},
        {"executor/executor.cpp": '#include "collective/algorithm.h"\n'},
        {"launcher/main.cpp": '#include "worker/worker.h"\n'},
        {"plan/plan.h": '#include "proto/plan.pb.h"\n// V1\n'},
        {"plan/plan.cpp": '#include "tests/support/fake.h"\n'},
    ],
    "private-header": [{"launcher/main.cpp": '#include "plan/inner.h"\n'}],
    "library": [
        {"worker/service/run.cpp": "#include <torch/torch.h>\n"},
        {"worker/engine/run.cpp": "#include <ATen/ATen.h>\n#include <google/protobuf/message.h>\n"},
        {"worker/engine/run.cpp": "#include <spdlog/spdlog.h>\n"},
        {"executor/executor.cpp": "#include <c10/core/Device.h>\n"},
        {"collective/host/socket.cpp": "#include <mpi.h>\n"},
        {"collective/mpi/world.cpp": "#include <nccl.h>\n"},
        {"plan/inner.h": "#include <nlohmann/json.hpp>\n"},
        {"common/error.h": "#include <nlohmann/json.hpp>\n"},
        {"common/error.h": "#include <fmt/format.h>\n"},
        {"launcher/job.h": '#include "proto/job.pb.h"\n'},
    ],
    "deps": [
        {"plan/CMakeLists.txt": "cox_library(plan DEPS common planner)\n"},
        {"launcher/CMakeLists.txt": "add_executable(launch main.cpp)\ntarget_link_libraries(launch PRIVATE cox_libtorch)\n"},
        {"launcher/CMakeLists.txt": "add_executable(launch main.cpp)\ntarget_link_libraries(launch PRIVATE worker_service)\n"},
    ],
    "env": [
        {"plan/plan.cpp": 'auto x = std::getenv("HOME");\n'},
        {"tests/plan/plan_test.cpp": '// V1\nint f() { return ::setenv("A", "b", 1); }\n'},
    ],
    "clock": [{"plan/plan.cpp": "auto t = std::chrono::steady_clock::now();\n"}],
    "exit": [
        {"plan/plan.cpp": "void f() { std::exit(1); }\n"},
        {"plan/plan.cpp": "void f() { std::abort(); }\n"},
        {"plan/plan.cpp": "void f() { _exit(1); }\n"},
    ],
    "detach": [
        {"plan/plan.cpp": "void f() { worker.detach(); }\n"},
        {"worker/engine/run.cpp": "void f() { thread_.detach(); }\n"},
        {"launcher/rest.cpp": "auto x = asio::detached;\n"},
    ],
    "catch-all": [{"plan/plan.cpp": "void f() { try {} catch (...) {} }\n"}],
    "sleep": [
        {"tests/plan/plan_test.cpp": "// V1\nvoid f() { std::this_thread::sleep_for(1s); }\n"},
        {"tests/launcher/run.py": "time.sleep(1)\n"},
        {"tests/launcher/run.sh": "sleep 1\n"},
    ],
    "port": [
        {"tests/plan/plan_test.cpp": '// V1\nauto a = "127.0.0.1:29400";\n'},
        {"tests/launcher/run.py": "port = 29500\n"},
    ],
    "abbreviation": [
        {"plan/plan.cpp": "int tmp = 0;\n"},
        {"plan/plan.cpp": "int RunCtx = 0;\n"},
        {"plan/plan.cpp": "int send_buf_ = 0;\n"},
    ],
    "test-missing": [{"tests/plan/plan_test.cpp": None, "tests/plan/other_test.cpp": "// V1\n"}],
    "ascii": [{"README.md": CLEAN["README.md"] + "na\u00efve\n"}],
    "leftover": [{"plan/inner.h": "// FIX" + "ME\n"}, {"Makefile": CLEAN["Makefile"] + "# TO" + "DO later\n"}],
    "numbered": [
        {"docs/plan.md": "| V1 | | V2 |\n", "tests/plan/plan_test.cpp": "// V1 V2\n"},
        {"docs/plan.md": "| V1 | | V2 |\n", "plan/inner.h": "// V2\n"},
        {"plan/inner.h": "// V2\n", "tests/plan/plan_test.cpp": "// V1 V2\n"},
        {"docs/plan.md": None, "README.md": CLEAN["README.md"].replace("[plan](docs/plan.md)", "")},
        {"docs/cost_model.md": "## C7\n"},
    ],
    "exit-codes": [
        {"README.md": CLEAN["README.md"].replace("| 1 | failed |\n", "")},
        {"README.md": CLEAN["README.md"].replace("| 1 |", "| 1 | x |\n| 2 |")},
    ],
    "link": [{"docs/plan.md": "V1 [gone](gone.md)\n"}],
    "make": [{"README.md": CLEAN["README.md"].replace("make demo", "make demos")}],
    "adr": [
        {"docs/adr/0003-gap.md": ADR},
        {"docs/adr/0001-choice.md": ADR.replace("## Alternatives", "")},
        {"docs/adr/notes.md": ADR},
    ],
}


class TidyTest(unittest.TestCase):
    def rules_broken(self, *changes):
        with tempfile.TemporaryDirectory() as root:
            os.makedirs(os.path.join(root, "tests/tidy"))
            shutil.copy(os.path.join(HERE, "layers.json"), os.path.join(root, "tests/tidy/layers.json"))
            files = dict(CLEAN)
            for change in changes:
                files.update(change)
            for path, text in files.items():
                if text is None:
                    continue
                os.makedirs(os.path.dirname(os.path.join(root, path)) or root, exist_ok=True)
                with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                    file.write(text)
            return {(violation.rule, violation.path) for violation in tidy.check(root)}

    def test_a_clean_tree_passes(self):
        self.assertEqual(self.rules_broken(), set())

    def test_each_planted_violation_is_caught(self):
        for rule, plants in PLANTED.items():
            for plant in plants:
                with self.subTest(rule=rule, plant=plant):
                    self.assertIn(rule, {found for found, _ in self.rules_broken(plant)})

    def test_an_excepted_file_passes_and_an_exception_without_a_reason_does_not(self):
        plant = {"plan/plan.cpp": "int tmp = 0;\n"}
        for why, expected in (("a name of POSIX", set()), ("", {("abbreviation", "plan/plan.cpp")})):
            with open(os.path.join(HERE, "layers.json"), encoding="utf-8") as file:
                layers = tidy.json.load(file)
            layers["exceptions"] = [{"rule": "abbreviation", "file": "plan/plan.cpp", "why": why}]
            with self.subTest(why=why), tempfile.TemporaryDirectory() as root:
                for path, text in {**CLEAN, **plant, "tests/tidy/layers.json": tidy.json.dumps(layers)}.items():
                    os.makedirs(os.path.dirname(os.path.join(root, path)) or root, exist_ok=True)
                    with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                        file.write(text)
                self.assertEqual({(v.rule, v.path) for v in tidy.check(root)}, expected)

    def test_a_launch_that_loads_libtorch_is_caught(self):
        # Any program will do as one that does not; the libraries of the wheel load one another.
        self.assertEqual(tidy.includes.check_launch(os.path.realpath(shutil.which("readelf"))), [])
        wheel = os.environ.get("COX_TORCH_DIR")
        if not wheel:
            self.skipTest("COX_TORCH_DIR names no wheel")
        self.assertNotEqual(tidy.includes.check_launch(os.path.join(wheel, "lib/libtorch_cpu.so")), [])

    def test_long_functions_are_listed(self):
        body = "".join(f"  call({i});\n" for i in range(80))
        text = "int f(int a) {\n" + body + "}\n\nint g() {\n  return 1;\n}\n"
        self.assertEqual(list(long_functions(text)), [(1, "f", 82)])


if __name__ == "__main__":
    unittest.main()
