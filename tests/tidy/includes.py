"""Which folder may see which: #include lines and CMake targets against layers.json, and what `launch` loads."""

import re
import subprocess

from tree import Violation, line_of, strip

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)
_LIBRARY = re.compile(r"cox_library\(\s*(\w+)([^)]*)\)")
_LINK = re.compile(r"target_link_libraries\(\s*(\w+)([^)]*)\)")
_KEYWORDS = {"DIR", "DEPS", "LINK", "PUBLIC_HEADERS", "EXTRA_SOURCES", "PUBLIC", "PRIVATE", "INTERFACE"}


def includes_of(text):
    """(line, path) of each #include; a commented-out one does not count."""
    code = strip(text, keep_strings=True)
    return [(line_of(code, match.start()), match.group(2)) for match in _INCLUDE.finditer(code)]


def within(path, folder):
    return path.startswith(folder + "/")


def cmake_arguments(text, keyword):
    """The words after `keyword` up to the next keyword."""
    words, taking, result = text.split(), False, []
    for word in words:
        if word in _KEYWORDS:
            taking = word == keyword
        elif taking:
            result.append(word)
    return result


def public_headers(tree, folder):
    """A folder shows the header of its own name and those that its CMakeLists.txt lists."""
    headers = {f"{folder}/{folder}.h"}
    for path in tree.paths:
        if within(path, folder) and path.endswith("CMakeLists.txt"):
            for match in _LIBRARY.finditer(cmake_text(tree, path)):
                headers |= {f"{folder}/{name}" for name in cmake_arguments(match.group(2), "PUBLIC_HEADERS")}
    return headers


def cmake_text(tree, path):
    return re.sub(r"#[^\n]*", "", tree.text(path))


def allowed_targets(rules):
    """The folders whose targets may be linked: a folder of which one header is allowed counts."""
    return {name.split("/")[0] for name in rules["may_include"] + rules.get("in_cpp", [])}


def check_folder_include(path, line, included, layers, headers):
    folder, target = path.split("/")[0], included.split("/")[0]
    if target == folder or target not in layers["folders"]:
        if target in layers["free_folders"] and folder != target:
            return [Violation(path, line, "layers", f"includes {included}: nothing includes {target}/")]
        return []
    rules = layers["folders"][folder]
    allowed = rules["may_include"] + (rules.get("in_cpp", []) if path.endswith(".cpp") else [])
    found = []
    if target not in allowed and included not in allowed:
        found.append(Violation(path, line, "layers", f"{folder}/ may not include {included}"))
    if target != "proto" and included not in headers[target] and included not in allowed:
        found.append(Violation(path, line, "private-header", f"{included} is not among {target}'s PUBLIC_HEADERS"))
    return found


def check_library_include(path, line, included, layers, headers):
    folder = path.split("/")[0]
    if folder in layers["free_folders"]:
        return []
    found = []
    for library in layers["libraries"]:
        if not re.search(library["include"], included):
            continue
        name = library["name"]
        if not any(within(path, allowed) for allowed in library["folders"]):
            found.append(Violation(path, line, "library", f"{name} ({included}) only in {', '.join(library['folders'])}"))
        elif library.get("only_cpp") and not path.endswith(".cpp"):
            found.append(Violation(path, line, "library", f"{name} ({included}) only in .cpp files"))
        elif library.get("public_header") is False and path in headers.get(folder, set()):
            found.append(Violation(path, line, "library", f"{name} ({included}) in a public header"))
        elif path.endswith(".h") and included.endswith(".pb.h"):
            found.append(Violation(path, line, "library", f"{included} only in .cpp files"))
    return found


def check_cmake(tree, layers):
    """DEPS of each target against the table; and, through the targets, that launch does not link libtorch."""
    found, links = [], {}
    pages = [path for path in tree.paths if path.endswith("CMakeLists.txt") and path.split("/")[0] in layers["folders"]]
    folder_of = {
        match.group(1): path.split("/")[0] for path in pages for match in _LIBRARY.finditer(cmake_text(tree, path))
    }
    for path in pages:
        text, folder = cmake_text(tree, path), path.split("/")[0]
        for match in _LIBRARY.finditer(text):
            target, line = match.group(1), line_of(text, match.start())
            deps = cmake_arguments(match.group(2), "DEPS")
            links[target] = deps + cmake_arguments(match.group(2), "LINK")
            for dep in deps:
                dep_folder = folder_of.get(dep, dep)
                if dep_folder != folder and dep_folder not in allowed_targets(layers["folders"][folder]):
                    found.append(Violation(path, line, "deps", f"target {target} may not depend on {dep}"))
        for match in _LINK.finditer(text):
            words = [word for word in match.group(2).split() if word not in _KEYWORDS]
            links.setdefault(match.group(1), []).extend(words)
    forbidden = re.compile("^(" + next(lib["link"] for lib in layers["libraries"] if lib["name"] == "libtorch") + ")$")
    seen, waiting = set(), ["launch"]
    while waiting:
        target = waiting.pop()
        if target in seen:
            continue
        seen.add(target)
        if forbidden.match(target):
            found.append(Violation("launcher/CMakeLists.txt", 1, "deps", f"launch links {target}"))
        waiting += links.get(target, [])
    return found


def check(tree, layers):
    headers = {folder: public_headers(tree, folder) for folder in layers["folders"]}
    found = check_cmake(tree, layers)
    for path in tree.code():
        folder = path.split("/")[0]
        for line, included in includes_of(tree.text(path)):
            if folder in layers["folders"]:
                found += check_folder_include(path, line, included, layers, headers)
            found += check_library_include(path, line, included, layers, headers)
    return found


def check_launch(program):
    """`launch` as it was built: its dynamic section names no libtorch."""
    text = subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[([^\]]+)\]", text)
    return [Violation(program, 1, "deps", f"launch loads {name}") for name in needed if re.match(r"lib(torch|c10)", name)]
