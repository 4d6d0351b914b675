"""Writes the argument names, types and defaults of every functional ATen operator, and of a few others: `make_schema_table.py OUT`.

Run by CMake with the pinned PyTorch, so that programs without libtorch can fill in the default arguments that a .pt2
archive leaves out. Output: C++ string literals, one operator each: name, then name<TAB>type<TAB>default (JSON, or
nothing) per argument, separated by newlines.
"""

import json
import pathlib
import sys

import torch

SCALARS = {"Tensor", "int", "float", "bool", "str", "number", "ScalarType", "Layout", "Device", "MemoryFormat", "Generator"}
LISTS = {"Tensor", "Optional[Tensor]", "int", "float", "bool", "number", "str"}


# Custom operators that archives hold and our engine runs. transformers 5 multiplies sorted rows by experts with the first.
OTHERS = ["transformers::grouped_mm_fallback\ninput\tTensor\t\nweight\tTensor\t\noffs\tTensor\t"]


def type_text(argument):
    """'Tensor', 'int?', 'int[2]', 'Tensor?[]' and so on; None for what no exported graph holds."""
    text, optional = str(argument.real_type), ""
    if text.startswith("Optional[") and text.endswith("]"):
        text, optional = text[len("Optional["):-1], "?"
    if text.startswith("List[") and text.endswith("]"):
        element = text[len("List["):-1]
        if element not in LISTS:
            return None
        element = element.replace("Optional[Tensor]", "Tensor?")
        return f"{element}[{argument.N or ''}]{optional}"
    return text + optional if text in SCALARS else None


def line_of(schema):
    lines = [schema.name + ("." + schema.overload_name if schema.overload_name else "")]
    for argument in schema.arguments:
        text = type_text(argument)
        if text is None or argument.name == "out" or argument.is_out:
            return None
        default = ""
        if argument.has_default_value():
            try:
                default = json.dumps(argument.default_value)
            except TypeError:
                return None
        lines.append(f"{argument.name}\t{text}\t{default}")
    return "\n".join(lines)


def main():
    texts = set(OTHERS)
    for schema in torch._C._jit_get_all_schemas():
        in_place = schema.name.endswith("_") and not schema.name.endswith("__")
        if schema.name.startswith("aten::") and not in_place:
            texts.add(line_of(schema))
    texts.discard(None)
    out = pathlib.Path(sys.argv[1])
    out.write_text("".join(json.dumps(text) + ",\n" for text in sorted(texts)))


if __name__ == "__main__":
    main()
