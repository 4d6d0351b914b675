"""The files of one source tree, and C++ text without comments and strings."""

import os
import re
from typing import NamedTuple

# Build outputs and unpacked dependencies are not ours.
SKIPPED_FOLDERS = {".git", "build", ".venv", ".deps", "runs", "__pycache__", "node_modules", "dist", "test-results"}
TEXT_SUFFIXES = (".h", ".cpp", ".py", ".md", ".txt", ".cmake", ".json", ".yaml", ".yml", ".proto", ".sh", ".toml", ".csv", ".ts", ".tsx", ".css", ".html")
TEXT_NAMES = {"Makefile", "run", "LICENSE", ".clang-format", ".clang-tidy", ".gitignore"}

_COMMENT_OR_STRING = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<mark>[^()\\\s]{0,16})\(.*?\)(?P=mark)"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'',
    re.DOTALL,
)


class Violation(NamedTuple):
    path: str
    line: int
    rule: str
    what: str

    def __str__(self):
        return f"{self.path}:{self.line}: [{self.rule}] {self.what}"


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def strip(text, keep_strings=False):
    """`text` with comments (and strings) blanked out, every offset and line kept."""

    def blank(match):
        piece = match.group(0)
        if keep_strings and not piece.startswith("/"):
            return piece
        return re.sub(r"[^\n]", " ", piece)

    return _COMMENT_OR_STRING.sub(blank, text)


class Tree:
    def __init__(self, root):
        self.root = root
        self.paths = []
        self._texts = {}
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS)
            for name in sorted(files):
                if name.endswith(TEXT_SUFFIXES) or name in TEXT_NAMES:
                    self.paths.append(os.path.relpath(os.path.join(folder, name), root))
        self.paths.sort()

    def text(self, path):
        if path not in self._texts:
            with open(os.path.join(self.root, path), encoding="utf-8", errors="surrogateescape") as file:
                self._texts[path] = file.read()
        return self._texts[path]

    def exists(self, path):
        return os.path.exists(os.path.join(self.root, path))

    def select(self, *suffixes):
        return [path for path in self.paths if path.endswith(suffixes)]

    def code(self):
        return self.select(".h", ".cpp")

    def product_code(self):
        """C++ that is shipped: not tests, bench or examples."""
        return [path for path in self.code() if path.split("/")[0] not in ("tests", "bench", "examples")]
