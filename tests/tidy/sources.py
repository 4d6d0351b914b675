"""Rules about what a line of source may say."""

import re

from tree import Violation, line_of, strip

# Concatenated, so that this file does not break its own rule.
_LEFTOVER = re.compile(r"\b(" + "FIX" + "ME|TO" + "DO|XX" + "X)\\b")
_REJECTED = {"cfg", "ctx", "mgr", "tmp", "buf", "cnt", "idx", "sz", "msg", "req"}
# Members of POSIX's struct msghdr and the like: their names are not ours.
_FOREIGN = re.compile(r"^(SSL_CTX_\w+|msg_\w+|nlmsg_\w+|cmsg_\w+|sendmsg|recvmsg)$")
_IDENTIFIER = re.compile(r"\b[A-Za-z_][A-Za-z0-9_]*\b")
_HUMP = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")

# rule, pattern over code without comments and strings, where it holds, what to say
_PRODUCT = "product"
_PRODUCT_AND_TESTS = "product and tests"
_EVERYWHERE = "everywhere"
_TESTS = "tests"
_RULES = [
    ("env", r"\b(secure_)?getenv\s*\(|\b(un)?setenv\s*\(|\bputenv\s*\(|\benviron\b", _PRODUCT_AND_TESTS, ("common/env.cpp",),
     "environment only through common/env"),
    ("clock", r"\b(steady_clock|system_clock|high_resolution_clock)::now\b|\bclock_gettime\s*\(|\bgettimeofday\s*\(", _PRODUCT,
     ("common/clock.cpp", "common/processor_time.cpp"), "time only through Clock"),
    # abort() and terminate() without a qualifier are methods of ours as well.
    ("exit", r"(?<![\w.>:])((std)?::)?(exit|_exit|_Exit|quick_exit)\s*\(|(?<![\w>])(std)?::(abort|terminate)\s*\(", _PRODUCT,
     ("main.cpp",), "only main ends a process"),
    ("detach", r"\basio::detached\b|\b\w*thread\w*(\.|->)detach\s*\(", _EVERYWHERE, (), "every thread has a joining owner"),
    ("catch-all", r"\bcatch\s*\(\s*\.\.\.\s*\)", _PRODUCT, ("common/result.h",), "exceptions are turned into errors by guard()"),
    ("sleep", r"\bsleep_(for|until)\s*\(|\b(u|nano)?sleep\s*\(|\bclock_nanosleep\s*\(", _TESTS, (),
     "advance a ManualClock or await an event under a Deadline"),
]
_DETACH = re.compile(r"(\.|->)detach\s*\(\s*\)")
_PORT = re.compile(r"(127\.0\.0\.1|0\.0\.0\.0|localhost|\[::1?\])[:/][1-9]\d+|\bport\w*\s*(=|\{|\()\s*[1-9]\d{2,}|--(master-)?port[ =\",]+[1-9]\d+")
_FUNCTION = re.compile(r"^(?P<indent>[ ]*)(?!namespace|class|struct|enum|union|extern)[A-Za-z_\[][^\n;={}]*\([^;{}]*\)[^;{}=]*\{\s*$", re.MULTILINE)


def check_text(tree):
    """ASCII and leftovers, in every text file."""
    found = []
    for path in tree.paths:
        for number, line in enumerate(tree.text(path).split("\n"), 1):
            if not line.isascii():
                found.append(Violation(path, number, "ascii", "a character outside ASCII"))
            leftover = _LEFTOVER.search(line)
            if leftover:
                found.append(Violation(path, number, "leftover", f"{leftover.group(1)}: do it, or open an issue"))
    return found


def holds_in(where, path):
    folder = path.split("/")[0]
    if where == _TESTS:
        return folder == "tests"
    if where == _PRODUCT:
        return folder not in ("tests", "bench", "examples")
    if where == _PRODUCT_AND_TESTS:
        return folder not in ("bench", "examples")
    return True


def check_rules(tree):
    found = []
    for path in tree.code():
        code = strip(tree.text(path))
        for rule, pattern, where, allowed, what in _RULES:
            if not holds_in(where, path) or any(path == name or path.endswith("/" + name) for name in allowed):
                continue
            for match in re.finditer(pattern, code):
                found.append(Violation(path, line_of(code, match.start()), rule, f"{match.group(0).strip()}: {what}"))
        # A tensor may be detached, in the one folder that has tensors (and its tests).
        if not path.startswith(("worker/engine/", "tests/worker/", "bench/")):
            for match in _DETACH.finditer(code):
                found.append(Violation(path, line_of(code, match.start()), "detach", "every thread has a joining owner"))
    return found


def check_scripts(tree):
    """The test rules in Python and shell."""
    found = []
    for path in tree.paths:
        if not path.startswith("tests/") or path.startswith("tests/tidy/") or not path.endswith((".py", ".sh")):
            continue
        for number, line in enumerate(tree.text(path).split("\n"), 1):
            if re.search(r"\btime\.sleep\s*\(|^\s*sleep\s+[\d$]|[;&|]\s*sleep\s+[\d$]", line):
                found.append(Violation(path, number, "sleep", "await an event under a deadline"))
    return found


def check_ports(tree):
    found = []
    for path in tree.paths:
        if not path.startswith("tests/") or path.startswith("tests/tidy/") or not path.endswith((".cpp", ".h", ".py", ".sh")):
            continue
        text = tree.text(path)
        code = strip(text, keep_strings=True) if path.endswith((".cpp", ".h")) else text
        for match in _PORT.finditer(code):
            found.append(Violation(path, line_of(code, match.start()), "port", f"{match.group(0)}: bind 0 and ask"))
    return found


def words_of(identifier):
    for part in identifier.split("_"):
        for hump in _HUMP.findall(part):
            yield hump.lower()


def check_names(tree):
    """Rejected abbreviations as a word of an identifier that is not a macro."""
    found = []
    for path in tree.code():
        text = strip(tree.text(path))
        # What stands in an #include is a file's name, often not ours.
        code = re.sub(r"^[ \t]*#[^\n]*", lambda m: " " * len(m.group(0)), text, flags=re.MULTILINE)
        for match in _IDENTIFIER.finditer(code):
            name = match.group(0)
            # Another's member (`e.msg`) has the name it has; ours are caught where they are declared.
            used = code.startswith((".", ">"), match.start() - 1)
            if used or name.isupper() or _FOREIGN.match(name):
                continue
            bad = _REJECTED.intersection(words_of(name))
            if bad:
                what = f"{name}: say what `{sorted(bad)[0]}` stands for"
                found.append(Violation(path, line_of(code, match.start()), "abbreviation", what))
    return found


def check_tests_exist(tree):
    """No .cpp in plan, cost_model or planner lacks its test."""
    found = []
    for path in tree.select(".cpp"):
        folder, _, rest = path.partition("/")
        if folder in ("plan", "cost_model", "planner"):
            test = f"tests/{folder}/{rest[:-4]}_test.cpp"
            if not tree.exists(test):
                found.append(Violation(path, 1, "test-missing", f"no {test}"))
    return found


def check(tree, _layers):
    return (
        check_text(tree)
        + check_rules(tree)
        + check_scripts(tree)
        + check_ports(tree)
        + check_names(tree)
        + check_tests_exist(tree)
    )


def long_functions(text, limit=70):
    """(line, name, length) of functions whose body runs over `limit` lines; by indentation, good enough for a list."""
    code = strip(text)
    for match in _FUNCTION.finditer(code):
        closing = re.compile("^" + match.group("indent") + r"\}", re.MULTILINE).search(code, match.end())
        if closing is None:
            continue
        length = code.count("\n", match.start(), closing.start()) + 1
        name = re.search(r"([\w:~]+)\s*\(", match.group(0))
        if length > limit and name and name.group(1) not in ("if", "for", "while", "switch"):
            yield line_of(code, match.start()), name.group(1), length
