"""Docs against code: numbered equations and rules, the exit-code table, links, and the front door's targets."""

import os
import re

from tree import Violation, line_of

# letter, page that defines the numbers, folders whose code must carry them
NUMBERED = [
    ("C", "docs/cost_model.md", ("cost_model", "collective", "executor", "planner")),
    ("V", "docs/plan.md", ("plan",)),
]
_EXIT_ROW = re.compile(r"^\|\s*(\d+)\s*\|", re.MULTILINE)
_EXIT_ENUM = re.compile(r"^\s*\w+\s*=\s*(\d+),", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s#]+)(#[^)]*)?\)")
_MAKE = re.compile(r"^\s*(?:\w+=\S+\s+)*make\s+([a-z][a-z-]*)", re.MULTILINE)
_SHELL_BLOCK = re.compile(r"```(?:sh|bash|console)\n(.*?)```", re.DOTALL)


def numbers_in(text, letter):
    """number -> offset of its first mention; a range C3-C6 mentions all four."""
    found = {}
    for match in re.finditer(rf"\b{letter}(\d+)(?:\s*(?:-|to|\.\.)\s*{letter}(\d+))?\b", text):
        first = int(match.group(1))
        last = int(match.group(2) or first)
        for number in range(first, last + 1):
            found.setdefault(number, match.start())
    return found


def check_numbers(tree):
    found = []
    for letter, page, folders in NUMBERED:
        code, tests = {}, set()
        for path in tree.select(".h", ".cpp", ".py"):
            folder = path.split("/")[0]
            if folder in folders:
                for number, offset in numbers_in(tree.text(path), letter).items():
                    code.setdefault(number, (path, line_of(tree.text(path), offset)))
            elif folder == "tests" and not path.startswith("tests/tidy/"):
                tests |= set(numbers_in(tree.text(path), letter))
        if page not in tree.paths:
            if code:
                path, line = min(code.values())
                found.append(Violation(path, line, "numbered", f"{letter}{min(code)} needs {page}"))
            continue
        text = tree.text(page)
        defined = numbers_in(text, letter)
        for number, offset in defined.items():
            name, line = f"{letter}{number}", line_of(text, offset)
            if number not in code:
                found.append(Violation(page, line, "numbered", f"{name} occurs in no code of {', '.join(folders)}"))
            if number not in tests:
                found.append(Violation(page, line, "numbered", f"{name} occurs in no test"))
        for number, (path, line) in code.items():
            if number not in defined:
                found.append(Violation(path, line, "numbered", f"{letter}{number} is not in {page}"))
    return found


def check_exit_codes(tree):
    """README's table has the rows of common/exit_code.h and `128+n`, no other."""
    header, page = "common/exit_code.h", "README.md"
    if header not in tree.paths or page not in tree.paths:
        return []
    coded = {int(code) for code in _EXIT_ENUM.findall(tree.text(header))}
    told = {int(code) for code in _EXIT_ROW.findall(tree.text(page))}
    found = [Violation(page, 1, "exit-codes", f"exit code {code} of {header} is not in the table") for code in coded - told]
    found += [Violation(page, 1, "exit-codes", f"exit code {code} is not in {header}") for code in told - coded]
    return found


def check_links(tree):
    found = []
    for path in tree.select(".md"):
        text = tree.text(path)
        for match in _LINK.finditer(text):
            target = match.group(1)
            if re.match(r"[a-z]+:", target):
                continue
            if not tree.exists(os.path.normpath(os.path.join(os.path.dirname(path), target))):
                found.append(Violation(path, line_of(text, match.start()), "link", f"{target} does not exist"))
    return found


def check_make_targets(tree):
    """Every `make x` in a shell block is a target of the Makefile."""
    if "Makefile" not in tree.paths:
        return []
    targets = set(re.findall(r"^([a-z][a-z-]*)\s*:(?!=)", tree.text("Makefile"), re.MULTILINE))
    found = []
    for path in tree.select(".md"):
        text = tree.text(path)
        for block in _SHELL_BLOCK.finditer(text):
            for match in _MAKE.finditer(block.group(1)):
                if match.group(1) not in targets:
                    line = line_of(text, block.start(1) + match.start())
                    found.append(Violation(path, line, "make", f"the Makefile has no target {match.group(1)}"))
    return found


def check_decisions(tree):
    """docs/adr/NNNN-title.md: numbered without a gap, each with its four parts."""
    found, numbers = [], []
    for path in tree.paths:
        if not path.startswith("docs/adr/"):
            continue
        match = re.match(r"docs/adr/(\d{4})-[a-z0-9-]+\.md$", path)
        if not match:
            found.append(Violation(path, 1, "adr", "named otherwise than NNNN-title.md"))
            continue
        numbers.append(int(match.group(1)))
        for part in ("Context", "Decision", "Alternatives", "Consequence"):
            if not re.search(rf"^## {part}", tree.text(path), re.MULTILINE):
                found.append(Violation(path, 1, "adr", f"no section {part}"))
    if sorted(numbers) != list(range(1, len(numbers) + 1)):
        found.append(Violation("docs/adr", 1, "adr", "numbers have a gap or occur twice"))
    return found


def check(tree, _layers):
    return (check_numbers(tree) + check_exit_codes(tree) + check_links(tree) + check_make_targets(tree) +
            check_decisions(tree))
