#!/usr/bin/env python3
"""A job file like JOB with fewer training steps: `short_job.py JOB --steps 20 --out FILE`. Used by `make demo` with
COX_DEMO_STEPS set and by the test demo_20_steps. Text in, text out, so that nothing but the numbers changes."""

import argparse
import re


def replace_in(text, section, key, value):
    """`key: N` inside the top-level `section`, in flow or block style."""
    lines, inside, done = [], False, False
    for line in text.splitlines(keepends=True):
        if re.match(r"\w", line):
            inside = line.startswith(section + ":")
        match = re.search(rf"\b{key}:\s*(\d+)", line) if inside and not done else None
        if match:
            line = line[: match.start(1)] + str(value(int(match.group(1)))) + line[match.end(1) :]
            done = True
        lines.append(line)
    if not done:
        raise SystemExit(f"error: no number {key} in section {section} of the job")
    return "".join(lines)


def shorten(text, steps):
    text = replace_in(text, "train", "steps", lambda _: steps)
    text = replace_in(text, "validation", "every_steps", lambda old: min(old, steps))
    # Warm-up must leave room for the decay.
    return replace_in(text, "optimizer", "warmup_steps", lambda old: min(old, max(1, steps // 4)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    with open(arguments.job, encoding="ascii") as file:
        text = file.read()
    with open(arguments.out, "w", encoding="ascii") as file:
        file.write(shorten(text, arguments.steps))


if __name__ == "__main__":
    main()
