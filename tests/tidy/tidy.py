#!/usr/bin/env python3
"""The house rules that a machine can check (STYLE section 1 and every [T]), on the sources of one tree.

    tidy.py [--root DIR] [--launch PROGRAM] [--outliers]

Prints one line a violation, `path:line: [rule] what`, and exits 1 when there is one. Rules that need a table read it
from tests/tidy/layers.json; an exception to a rule is an entry there with its reason, never a mark in the source.
Only the standard library is used. tidy_test.py plants a violation of every rule and sees it caught.
"""

import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import documents  # noqa: E402
import includes  # noqa: E402
import sources  # noqa: E402
from tree import Tree  # noqa: E402


def check(root, launch=None):
    """Every violation in the tree under `root`, in path order, without the excepted ones."""
    tree = Tree(root)
    with open(os.path.join(root, "tests/tidy/layers.json"), encoding="utf-8") as file:
        layers = json.load(file)
    found = []
    for module in (includes, sources, documents):
        found += module.check(tree, layers)
    if launch:
        found += includes.check_launch(launch)
    excepted = {(entry["rule"], entry["file"]) for entry in layers["exceptions"] if entry["why"]}
    return sorted(v for v in set(found) if (v.rule, v.path) not in excepted)


def print_outliers(tree):
    """Files and functions beyond the habit of STYLE section 1: a question for review, never a failure."""
    for path in tree.code():
        lines = tree.text(path).count("\n")
        if lines > 600:
            print(f"outlier: {path} has {lines} lines (at most 600)")
        for line, name, length in sources.long_functions(tree.text(path)):
            print(f"outlier: {path}:{line}: {name} has {length} lines (at most 70)")


def main():
    parser = argparse.ArgumentParser()
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument("--root", default=os.path.dirname(os.path.dirname(here)))
    parser.add_argument("--launch", help="the built `launch`, to see that it does not load libtorch")
    parser.add_argument("--outliers", action="store_true")
    arguments = parser.parse_args()
    violations = check(arguments.root, arguments.launch)
    for violation in violations:
        print(violation)
    if arguments.outliers:
        print_outliers(Tree(arguments.root))
    print(f"tidy: {len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
