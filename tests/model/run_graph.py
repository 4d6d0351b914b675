"""Runs graphs that our reader made in PyTorch and compares with eager: `run_graph.py DUMP_GRAPH FIXTURES`.

Every operator of the dumped graph is called by name with our arguments, weights come from our file offsets, so that the
reader's defaults, rewritten in-place operators, symbolic sizes and loss terms are all in the result. Checked per model:
declared shapes and dtypes of every value, loss and gradients of one step with dropout off, and that two unequal parts of
the batch add up to the same loss and gradients unless the graph says that samples are coupled.
"""

import json
import pathlib
import subprocess
import sys

import torch

from experts import register_grouped_product

TOLERANCE = 2e-6


def main():
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    torch.set_num_threads(1)
    register_grouped_product()
    expectations = json.loads((folder / "expectations.json").read_text())
    failures = []
    for name, expected in sorted(expectations.items()):
        if expected.get("not_runnable"):
            continue
        try:
            check(program, folder / f"{name}.pt2", expected)
            print(f"{name}: equal")
        except Exception as error:
            failures.append(name)
            print(f"{name}: {type(error).__name__}: {error}")
    sys.exit(1 if failures else 0)


def check(program, path, expected):
    graph = json.loads(subprocess.run([program, str(path)], check=True, capture_output=True, text=True).stdout)
    runner = Runner(graph, path)
    inputs = recorded_inputs(path)
    batch = expected["batch"]
    (loss, gradients), = runner.step([inputs], check_meta=True)
    compare("loss", loss, expected["loss"], max(1.0, abs(expected["loss"])))
    for name, norm in expected["grad_norms"].items():
        compare(f"gradient of {name}", float(gradients[name].double().norm()), norm, expected["grad_norm"])
    if graph["coupled"] or not graph["batch_symbol"]:
        return
    parts = [[x[:1] for x in inputs], [x[1:batch] for x in inputs]]
    results = runner.step(parts)
    compare("loss of two parts", sum(loss for loss, _ in results), expected["loss"], max(1.0, abs(expected["loss"])))
    for name, gradient in gradients.items():
        parted = sum(part[name] for _, part in results)
        compare(f"gradient of two parts, {name}", float((parted - gradient).norm()), 0.0, expected["grad_norm"])


def compare(what, got, expected, scale):
    if not abs(got - expected) <= TOLERANCE * scale:
        raise AssertionError(f"{what}: {got!r}, expected {expected!r}")


def recorded_inputs(path):
    import zipfile

    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/")[0]
        manifest = json.loads(archive.read(f"{root}/extra/coxswain/manifest.json"))
        return [torch.frombuffer(bytearray(archive.read(f"{root}/{i['entry']}")), dtype=getattr(torch, i["dtype"])).reshape(i["dims"])
                for i in manifest["inputs"]]


class Runner:
    def __init__(self, graph, path):
        self.graph, self.content = graph, path.read_bytes()
        self.parameters = {p["value"]: self.weight(p).requires_grad_(p["trainable"]) for p in graph["parameters"]}
        self.buffers = {b["value"]: self.weight(b) for b in graph["buffers"]}

    def weight(self, tensor):
        place, dtype = tensor["weights"], getattr(torch, tensor["dtype"])
        if 0 in tensor["dims"]:
            return torch.empty(tensor["dims"], dtype=dtype)
        reach = place["storage_offset"] + 1 + sum((d - 1) * s for d, s in zip(tensor["dims"], place["strides"]))
        flat = torch.frombuffer(bytearray(self.content[place["file_offset"]:place["file_offset"] + reach * dtype.itemsize]), dtype=dtype)
        return flat.as_strided(tensor["dims"], place["strides"], place["storage_offset"]).clone()

    def step(self, parts, check_meta=False):
        """[(loss, gradients)] of each part of one batch; they add up to the batch's."""
        sizes = [part[0].shape[0] for part in parts]
        values = [self.run(part, size, check_meta) for part, size in zip(parts, sizes)]
        results = []
        for at, size in zip(values, sizes):
            loss = 0.0
            for term in self.graph["loss"]:
                if term["denominator"] is None:
                    weight = size / sum(sizes)
                else:
                    weight = 1.0 / sum(v[term["denominator"]].item() for v in values)
                loss = loss + term["coefficient"] * weight * at[term["numerator"]]
            leaves = {p["name"]: self.parameters[p["value"]] for p in self.graph["parameters"] if p["trainable"]}
            gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
            results.append((float(loss.detach().double()),
                            {n: torch.zeros_like(leaves[n]) if g is None else g for n, g in zip(leaves, gradients)}))
        return results

    def run(self, inputs, batch, check_meta):
        symbols = {"batch": batch, "floordiv": lambda a, b: a // b, "mod": lambda a, b: a % b, "min": min, "max": max}

        def size(text):
            return int(eval(text, {"__builtins__": {}}, symbols))

        def argument(tagged):
            (kind, value), = ((k, v) for k, v in tagged.items() if k != "hex")
            if kind == "value":
                return at[value]
            if kind == "values":
                return [None if i is None else at[i] for i in value]
            if kind == "dim":
                return size(value)
            if kind == "dims":
                return [size(text) for text in value]
            if kind == "float":
                return float.fromhex(tagged["hex"])
            if kind == "floats":
                return [float.fromhex(text) for text in value]
            if kind == "dtype":
                return getattr(torch, value)
            return None if kind == "none" else value

        at = {**self.parameters, **{k: v.clone() for k, v in self.buffers.items()}}
        at.update({i["value"]: x for i, x in zip(self.graph["inputs"], inputs)})
        for op in self.graph["ops"]:
            named = {name: argument(value) for name, value in op["arguments"] if "ignored" not in value}
            outputs = self.call(op["target"], named, op["grad_enabled"])
            for place, result in zip(op["outputs"], outputs):
                if place < 0:
                    continue
                at[place] = result
                if check_meta:
                    declared = self.graph["values"][place]
                    shape = [size(text) for text in declared["dims"]]
                    if shape != list(result.shape) or getattr(torch, declared["dtype"]) != result.dtype:
                        raise AssertionError(f"{op['target']} gives {list(result.shape)} {result.dtype}, declared {shape} {declared['dtype']}")
        return at

    @staticmethod
    def call(target, named, grad_enabled):
        # Dropout off, as in the recorded step; batch norm in its evaluation form.
        if target == "aten::dropout":
            return [named["input"]]
        if target == "aten::scaled_dot_product_attention":
            named["dropout_p"] = 0.0
        if target == "aten::batch_norm":
            named["training"] = False
        namespace, _, name = target.partition("::")
        base, _, overload = name.partition(".")
        packet = getattr(getattr(torch.ops, namespace), base)
        function = getattr(packet, overload or "default")
        with torch.set_grad_enabled(grad_enabled):
            result = function(**named)
        return list(result) if isinstance(result, (tuple, list)) else [result]


if __name__ == "__main__":
    main()
