"""Writes tiny .pt2 archives and what PyTorch says about them: `python make_fixtures.py FOLDER`.

Made at test time, never committed. expectations.json maps each archive to numbers that come from eager PyTorch alone.
Nothing is done when FOLDER was made by the same script, exporter, example and PyTorch.
"""

import hashlib
import json
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))
sys.path.insert(0, str(ROOT / "examples" / "gpt"))
sys.dont_write_bytecode = True


def stamp():
    digest = hashlib.sha256()
    for file in [pathlib.Path(__file__), pathlib.Path(__file__).with_name("experts.py"), *sorted((ROOT / "python").rglob("*.py")), ROOT / "examples" / "gpt" / "model.py"]:
        digest.update(file.read_bytes())
    from importlib.metadata import version

    return digest.hexdigest() + " " + version("torch") + " " + version("transformers")


def main():
    folder = pathlib.Path(sys.argv[1])
    wanted = stamp()
    made = folder / "stamp"
    if made.exists() and made.read_text() == wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    made.unlink(missing_ok=True)
    make(folder)
    made.write_text(wanted)


def make(folder):
    import torch

    torch.set_num_threads(1)
    models = fixture_modules()
    expectations = {}
    for name, (module, inputs, options) in models.items():
        expectations[name] = make_one(folder / f"{name}.pt2", module, inputs, options)
    make_damaged(folder)
    part = folder / "expectations.json.part"
    part.write_text(json.dumps(expectations, indent=1, sort_keys=True))
    os.replace(part, folder / "expectations.json")


def make_one(path, module, inputs, options):
    import torch

    import coxswain

    report = coxswain.export(module, inputs, path, dynamic_batch=not options.get("static"))
    if report.dynamic_batch == bool(options.get("static")):
        raise SystemExit(f"{path}: batch dynamic is {report.dynamic_batch}: {report.static_reason}")
    module.eval()
    values = list(inputs.values()) if isinstance(inputs, dict) else list(inputs)
    parameters = dict(module.named_parameters())
    loss = call(module, inputs)
    loss.backward()
    return {
        "batch": values[0].shape[0],
        "dynamic": report.dynamic_batch,
        "input_dims": [list(v.shape) for v in values],
        "loss": float(loss.detach().double()),
        "grad_norms": {n: float(p.grad.double().norm()) if p.grad is not None else 0.0 for n, p in parameters.items()},
        "grad_norm": float(torch.stack([p.grad.double().norm() for p in parameters.values() if p.grad is not None]).norm()),
        "parameters": {n: {"dims": list(p.shape), "sum": float(p.detach().double().sum())} for n, p in parameters.items()},
        "num_parameters": sum(p.numel() for p in parameters.values()),
        "num_layers": options["layers"],
        "flops": flops(module, inputs),
        **options.get("extra", {}),
    }


def make_damaged(folder):
    """Archives that are well-formed zip files and wrong inside."""
    import zipfile

    def rewrite(name, change):
        with zipfile.ZipFile(folder / "gpt.pt2") as old, zipfile.ZipFile(folder / name, "w", zipfile.ZIP_STORED) as new:
            for entry in old.namelist():
                content = change(entry, old.read(entry))
                if content is not None:
                    new.writestr(entry, content)

    def only(suffix, change):
        return lambda entry, content: change(content) if entry.endswith(suffix) else content

    rewrite("bad_version.pt2", only("models/model.json", lambda c: c.replace(b'"major": 8', b'"major": 9')))
    rewrite("bad_json.pt2", only("models/model.json", lambda c: c[: len(c) // 2]))
    rewrite("bad_graph.pt2", only("models/model.json", lambda c: c.replace(
        b"torch.ops.aten.gelu.default", b"torch.ops.aten.mystery.default").replace(b"torch.ops.aten.dropout.default", b"torch.ops.mine.drop.default")))
    rewrite("short_weight.pt2", only("data/weights/weight_2", lambda c: c[:-4]))
    rewrite("lost_weight.pt2", only("data/weights/weight_2", lambda c: None))
    rewrite("no_model.pt2", only("models/model.json", lambda c: None))
    rewrite("no_manifest.pt2", only("manifest.json", lambda c: None))
    with zipfile.ZipFile(folder / "compressed.zip", "w") as archive:
        archive.writestr("text", "a" * 10000, zipfile.ZIP_DEFLATED)
        archive.writestr("stored", "b", zipfile.ZIP_STORED)
        archive.writestr("bomb", bytes(32 << 20), zipfile.ZIP_DEFLATED)
    (folder / "no_archive.pt2").write_bytes(b"this is no zip file" * 100)
    (folder / "empty.pt2").write_bytes(b"")
    with zipfile.ZipFile(folder / "gpt.pt2") as archive:
        offset = archive.getinfo("gpt/models/model.json").header_offset
    content = bytearray((folder / "gpt.pt2").read_bytes())
    content[offset + 3000] ^= 1
    (folder / "bad_crc.pt2").write_bytes(content)


def call(module, inputs):
    return module(**inputs) if isinstance(inputs, dict) else module(*inputs)


def flops(module, inputs):
    """Forward matmul and attention FLOPs by module, as torch.utils.flop_counter sees them (math attention)."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        call(module, inputs)
    by_module = {name.partition(".")[2] or "": sum(ops.values()) for name, ops in counter.get_flop_counts().items()
                 if name != "Global"}
    return {"total": counter.get_total_flops(), "by_module": by_module}


def fixture_modules():
    import torch
    from torch import nn
    from torch.nn import functional

    from model import Gpt, GptConfig

    torch.manual_seed(20261123)

    def windows(batch, length, vocabulary):
        window = torch.randint(vocabulary, (batch, length + 1))
        return window[:, :-1].contiguous(), window[:, 1:].contiguous()

    result = {}
    tiny = GptConfig(layers=2, width=32, heads=4, context=16, vocabulary=64, dropout=0.1)
    result["gpt"] = (Gpt(tiny), windows(4, 16, 64), {"layers": 2})
    result["gpt_static"] = (Gpt(tiny), windows(4, 16, 64), {"layers": 2, "static": True})
    result["gpt_four_layers"] = (Gpt(GptConfig(4, 32, 4, 16, 64, 0.1)), windows(4, 16, 64), {"layers": 4})
    shared = Gpt(GptConfig(4, 32, 4, 16, 64, 0.1))
    for layer in (1, 3):  # one parameter of three layers, beside the embedding that is the head
        shared.blocks[layer].attention.projection_out.weight = shared.blocks[0].attention.projection_out.weight
    result["gpt_shared_layers"] = (shared, windows(4, 16, 64), {"layers": 4})
    result["gpt2"] = gpt2_module()
    result["llama"] = llama_module()
    result["gpt2_cache_eager"] = gpt2_module(use_cache=True, attention="eager")
    result["llama_cache"] = llama_module(use_cache=True)

    class InPlace(nn.Module):
        """In-place operators on temporaries, on a view of a temporary, and a constant filled in place."""

        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(8, 8)
            self.outer = nn.Linear(8, 8, bias=False)

        def forward(self, x, y):
            h = self.inner(x)
            h += 1.5
            h.mul_(x)
            h = functional.relu(h, inplace=True)
            mask = torch.zeros(8)
            mask[2:4] = 1.0
            view = h.clone().view(-1, 2, 4)
            view[:, 0].add_(0.25)
            scale = torch.tensor([1.0, 2.0, 3.0, 4.0])
            with torch.no_grad():
                shift = (x * 2).sum(1, keepdim=True)
            out = self.outer((view * scale).flatten(1) * mask + shift)
            return functional.mse_loss(out, y)

    from experts import GroupedExperts, register_grouped_product

    register_grouped_product()

    class Mixture(nn.Module):
        """Two layers of experts in grouped form; the router's choice decides which rows meet."""

        def __init__(self, **options):
            super().__init__()
            self.embedding = nn.Embedding(32, 12)
            self.layers = nn.ModuleList([GroupedExperts(12, 10, 5, 2, **options) for _ in range(2)])
            self.head = nn.Linear(12, 32, bias=False)

        def forward(self, tokens, targets):
            h = self.embedding(tokens)
            for layer in self.layers:
                h = h + layer(h)
            return functional.cross_entropy(self.head(h).view(-1, 32), targets.view(-1))

    class SortedMixture(nn.Module):
        """Rows that never come back to their order: a running sum over all samples, sorted by expert."""

        def __init__(self):
            super().__init__()
            self.experts = GroupedExperts(12, 10, 5, 2, stays_sorted=True)

        def forward(self, x):
            return self.experts(x).square().mean()

    class MeanBySize(nn.Module):
        """A sum divided by the number of samples as a floating-point number, as router losses of transformers 5 are."""

        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(8, 5)

        def forward(self, x):
            return (self.inner(x).square().sum(0) / (torch.sym_float(x.shape[0]) + torch.sym_float(x.shape[0]))).sum()

    result["mean_by_size"] = (MeanBySize(), (torch.randn(4, 8),), {"layers": 0})
    result["experts"] = (Mixture(), windows(4, 6, 32), {"layers": 2})
    result["experts_by_rows"] = (Mixture(rows_first=True, bias=True), windows(4, 6, 32), {"layers": 2})
    result["experts_sorted"] = (SortedMixture(), (torch.randn(4, 12),), {"layers": 0})
    result["in_place"] = (InPlace(), (torch.randn(4, 8), torch.randn(4, 8)), {"layers": 0})

    class Masked(nn.Module):
        """Cross-entropy whose count of unpadded targets differs from sample to sample, plus a second, weighted term."""

        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(32, 16)
            self.head = nn.Linear(16, 32, bias=False)

        def forward(self, tokens, targets):
            logits = self.head(self.embedding(tokens))
            main = functional.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-1)
            return main + 0.1 * functional.nll_loss(functional.log_softmax(logits, -1).flatten(0, 1), targets.flatten(),
                                                    ignore_index=-1)

    tokens, targets = windows(4, 6, 32)
    for i in range(4):
        targets[i, :i] = -1
    result["masked"] = (Masked(), (tokens, targets), {"layers": 0, "extra": {"counts": int((targets != -1).sum())}})

    class Symbolic(nn.Module):
        """Shape arithmetic on the batch, and a batch norm, which couples samples."""

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 8)
            self.norm = nn.BatchNorm1d(8)

        def forward(self, x):
            batch = x.shape[0]
            h = self.norm(self.linear(x)).reshape(batch * 2, 4)
            h = h + torch.arange(batch * 2).unsqueeze(1)
            return (h.view(batch, 8) ** 2).sum() / (batch * 8)

    result["symbolic"] = (Symbolic(), (torch.randn(6, 6),), {"layers": 0})
    add_view_modules(result)
    add_loss_modules(result)
    return result


def add_view_modules(result):
    import torch
    from torch import nn
    from torch.nn import functional

    class Views(nn.Module):
        """Writes through every kind of view, and reads of tensors that were changed behind their back."""

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 24)
            self.register_buffer("scale", torch.arange(1.0, 5.0))

        def forward(self, x, y):
            h = self.linear(x).view(-1, 4, 6).clone()
            h[:, :2, 1:].copy_(x[:, 1:].unsqueeze(1))
            high = h[:, :, 3:]
            high.masked_fill_(high > 0.4, -0.5)
            columns = h.transpose(1, 2)
            columns[:, :2] += self.scale
            h.permute(2, 0, 1)[5].zero_()
            h.narrow(2, 1, 2).clamp_(min=-1.0)
            h.unsqueeze(0).squeeze(0).add_(high.mean((1, 2), keepdim=True))
            h[:, 0, ::2] = 3.0
            mixed = torch.zeros(h.shape[0], 4, 6, dtype=torch.float64)
            mixed.copy_(h)
            mixed.sub_(columns.transpose(1, 2) * 0.5, alpha=2)
            h.add_(mixed, alpha=0.125)  # float32 keeps its type
            h.index_add_(1, torch.tensor([0, 2]), high.sum(2, keepdim=True).expand(-1, -1, 6)[:, 2:])
            return functional.mse_loss((h + mixed.float() + self.table(x)).flatten(1), y)

        def table(self, x):
            # PyTorch allows writes to one of several views only where no gradient flows.
            table = x.unsqueeze(1).repeat(1, 4, 1)
            table.split([1, 3], 1)[1].mul_(2.0)
            table.split(2, 1)[0].sub_(0.5)
            table.chunk(2, 2)[1].neg_()
            table.unbind(1)[3].add_(1.0)
            return table

    result["views"] = (Views(), (torch.randn(4, 6), torch.randn(4, 24)), {"layers": 0})


def add_loss_modules(result):
    import torch
    from torch import nn
    from torch.nn import functional

    class Base(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 5)

    class Terms(Base):
        """Means of several kinds, a count made by the model, signs and factors."""

        def forward(self, x, y, mask):
            h = self.linear(x)
            masked = ((h - y) ** 2 * mask.unsqueeze(1)).sum() / mask.sum()
            penalty = (self.linear.weight ** 2).sum()
            smooth = functional.cross_entropy(h, y.argmax(1), label_smoothing=0.1)
            soft = functional.cross_entropy(h, y.softmax(1))
            return (functional.mse_loss(h, y) - 0.25 * functional.l1_loss(h, y)) / 2 + masked + 0.01 * penalty + smooth + soft - (-h.mean())

    mask = torch.tensor([1.0, 0.0, 1.0, 1.0])
    result["loss_terms"] = (Terms(), (torch.randn(4, 6), torch.randn(4, 5), mask), {"layers": 0})

    class Sum(Base):
        def forward(self, x, y):
            return functional.mse_loss(self.linear(x), y, reduction="sum")

    result["loss_sum"] = (Sum(), (torch.randn(4, 6), torch.randn(4, 5)), {"layers": 0})

    class Product(Base):
        def forward(self, x, y):
            h = self.linear(x)
            return functional.mse_loss(h, y) * h.exp().mean()

    result["loss_product"] = (Product(), (torch.randn(4, 6), torch.randn(4, 5)), {"layers": 0})

    class Unsupported(Base):
        """Each line is something that must be named."""

        def __init__(self):
            super().__init__()
            self.register_buffer("running", torch.zeros(5))

        def forward(self, x, y):
            h = self.linear(x + torch.rand_like(x))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                h = h + functional.linear(h, torch.eye(5))
            self.running.mul_(0.9).add_(h.detach().mean(0))
            spectrum = torch.fft.rfft(y)
            return functional.mse_loss(h - self.running, y) + spectrum.abs().mean()

    result["unsupported"] = (Unsupported(), (torch.randn(4, 6), torch.randn(4, 5)), {"layers": 0, "extra": {"not_runnable": True}})


def gpt2_module(use_cache=False, attention="sdpa"):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1)
    config = GPT2Config(n_layer=2, n_embd=32, n_head=4, n_positions=24, vocab_size=64, use_cache=use_cache)
    config._attn_implementation = attention
    config.loss_type = "ForCausalLM"
    tokens = torch.randint(64, (4, 16))
    return with_loss(GPT2LMHeadModel(config)), (tokens, tokens.clone()), {"layers": 2, "extra": {"config": config.to_dict()}}


def llama_module(use_cache=False, attention="sdpa"):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(2)
    config = LlamaConfig(hidden_size=32, intermediate_size=88, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, vocab_size=64, max_position_embeddings=24, use_cache=use_cache)
    config._attn_implementation = attention
    config.loss_type = "ForCausalLM"
    tokens = torch.randint(64, (4, 16))
    return with_loss(LlamaForCausalLM(config)), (tokens, tokens.clone()), {"layers": 2, "extra": {"config": config.to_dict()}}


def with_loss(model):
    """A module that returns the model's own loss (shifted cross-entropy of the labels)."""
    from torch import nn

    class WithLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, tokens, labels):
            return self.model(input_ids=tokens, labels=labels).loss

    return WithLoss()


if __name__ == "__main__":
    main()
