"""Writes one training step of a PyTorch module as a .pt2 archive, with a manifest and a recorded step beside it.

The archive is what `torch.export.save` writes (non-strict, training IR, so dropout and batch norm keep their training
form) plus stored, uncompressed entries:

    extra/coxswain/manifest.json   tie groups, inputs with their sample dim, loss normalisation, the recorded step
    data/coxswain/input_N          raw little-endian elements of the N-th example input

The recorded step (loss, gradient norms in float64) is taken with dropout off, so that a reader can check itself.
"""

import dataclasses
import json
import os
import pathlib
import tempfile
import warnings
import zipfile

import torch

from coxswain.transformers_masks import traceable_masks

FORMAT_VERSION = 1
MANIFEST_ENTRY = "extra/coxswain/manifest.json"
INPUT_FOLDER = "data/coxswain/"  # torch.export.load reads everything below extra/ as text
# A loss is called a mean over samples when splitting the batch changes it by less than this (float32 sums in another order).
MEAN_TOLERANCE = 1e-5


@dataclasses.dataclass
class ExportReport:
    """What was written: whether the batch is dynamic (and if not, why), and the recorded step."""

    path: pathlib.Path
    dynamic_batch: bool
    static_reason: str
    num_parameters: int
    loss: float
    grad_norm: float
    grad_norms: dict[str, float]
    mean_over_samples: bool | None


def export(module, example_inputs, path, *, dynamic_batch=True):
    """Exports `module`, whose forward takes tensors with the samples on dim 0 and returns the scalar training loss.

    `example_inputs` is a tuple of tensors (positional) or a dict (by name) with at least two samples. The batch dim is
    exported dynamic; when the module does not allow that, the batch of the example is baked in and a warning says why.
    Raises ValueError for inputs or losses that cannot be trained on. Returns an ExportReport.
    """
    path = pathlib.Path(path)
    args, kwargs, names = _separate_inputs(example_inputs)
    tensors = dict(zip(names, [*args, *kwargs.values()]))
    batch = _check_inputs(tensors)

    was_training = {name: child.training for name, child in module.named_modules()}
    try:
        module.train()
        with traceable_masks():
            program, static_reason = _trace(module, args, kwargs, batch, dynamic_batch)
        module.eval()
        step = _record_step(module, args, kwargs)
        mean_over_samples = None
        if not static_reason and batch > 1:
            mean_over_samples = _is_mean_over_samples(module, args, kwargs, batch, step["loss"])
    finally:
        for name, child in module.named_modules():
            child.training = was_training[name]

    manifest = {
        "format_version": FORMAT_VERSION,
        "torch_version": torch.__version__,
        "dynamic_batch": not static_reason,
        "static_reason": static_reason,
        "batch": batch,
        "inputs": [
            {"name": name, "sample_dim": 0, "dims": list(tensor.shape), "dtype": _dtype_name(tensor.dtype),
             "entry": f"{INPUT_FOLDER}input_{i}"}
            for i, (name, tensor) in enumerate(tensors.items())
        ],
        "tie_groups": _tie_groups(module),
        "loss": {"mean_over_samples": mean_over_samples},
        "step": step,
    }
    _write(program, manifest, list(tensors.values()), path)
    return ExportReport(path, not static_reason, static_reason, sum(p.numel() for p in module.parameters()), step["loss"],
                        step["grad_norm"], step["grad_norms"], mean_over_samples)


def _separate_inputs(example_inputs):
    # The exporter identifies inputs by object: one tensor given twice would become one input, hence the clones.
    if isinstance(example_inputs, dict):
        kwargs = {name: _as_input(name, value) for name, value in example_inputs.items()}
        return (), kwargs, list(kwargs)
    args = tuple(_as_input(f"input {i}", value) for i, value in enumerate(example_inputs))
    return args, {}, [f"input_{i}" for i in range(len(args))]


def _as_input(name, value):
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{name}: expected a tensor, got {type(value).__name__}; set other arguments inside the module")
    return value.detach().clone(memory_format=torch.contiguous_format)


def _check_inputs(tensors):
    if not tensors:
        raise ValueError("example_inputs is empty; expected at least one tensor with the samples on dim 0")
    batches = {name: tensor.shape[0] if tensor.dim() else None for name, tensor in tensors.items()}
    if None in batches.values() or len(set(batches.values())) != 1:
        raise ValueError(f"every input must have the samples on dim 0, the same number in each; got {batches}")
    return next(iter(batches.values()))


def _trace(module, args, kwargs, batch, dynamic_batch):
    static_reason = "" if dynamic_batch else "asked for"
    if dynamic_batch and batch < 2:
        # torch.export always bakes in a size of 0 or 1.
        static_reason = "the example has one sample; give at least two"
    if not static_reason:
        dim = torch.export.Dim("batch", min=1)
        shapes = {name: {0: dim} for name in kwargs} if kwargs else _positional_shapes(module, args, dim)
        try:
            return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False), ""
        except Exception as error:  # what a module cannot do surfaces as many types; a static export then tells
            static_reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    program = torch.export.export(module, args, kwargs, strict=False)
    if dynamic_batch:
        warnings.warn(f"the batch is fixed at {batch}: {static_reason}", stacklevel=3)
    return program, static_reason


def _positional_shapes(module, args, dim):
    # A forward with *args takes its shapes as one nested tuple.
    import inspect

    parameters = list(inspect.signature(module.forward).parameters.values())
    shapes = tuple({0: dim} for _ in args)
    if parameters and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL:
        return (shapes,)
    return shapes


def _loss_of(module, args, kwargs):
    loss = module(*args, **kwargs)
    if not isinstance(loss, torch.Tensor) or loss.dim() != 0 or not loss.is_floating_point():
        what = f"{tuple(loss.shape)} {loss.dtype}" if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise ValueError(f"the module must return the scalar loss, got {what}; compute the loss inside forward")
    return loss


def _record_step(module, args, kwargs):
    with torch.enable_grad():
        loss = _loss_of(module, args, kwargs)
        trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if not trainable:
            raise ValueError("the module has no trainable parameter")
        gradients = torch.autograd.grad(loss, list(trainable.values()), allow_unused=True)
    norms = {name: 0.0 if g is None else float(torch.linalg.vector_norm(g.detach().double()))
             for name, g in zip(trainable, gradients)}
    total = float(torch.linalg.vector_norm(torch.tensor(list(norms.values()), dtype=torch.float64)))
    return {"loss": float(loss.detach().double()), "grad_norm": total, "grad_norms": norms}


def _is_mean_over_samples(module, args, kwargs, batch, whole):
    # Unequal parts, so that a sum, a mean and a mean over a changing count are told apart.
    with torch.no_grad():
        parts = 0.0
        for first, end in ((0, 1), (1, batch)):
            part = _loss_of(module, tuple(a[first:end] for a in args), {k: a[first:end] for k, a in kwargs.items()})
            parts += float(part.double()) * (end - first) / batch
    return abs(parts - whole) <= MEAN_TOLERANCE * max(1.0, abs(whole))


def _tie_groups(module):
    groups = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _dtype_name(dtype):
    return str(dtype).removeprefix("torch.")


def _write(program, manifest, tensors, path):
    # Beside the target and renamed, so that a reader never sees half an archive.
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        part = pathlib.Path(folder) / path.name
        torch.export.save(program, part)
        with zipfile.ZipFile(part, "a", zipfile.ZIP_STORED) as archive:
            root = archive.namelist()[0].split("/")[0]
            for entry, tensor in zip(manifest["inputs"], tensors):
                archive.writestr(f"{root}/{entry['entry']}", _raw_bytes(tensor))
            archive.writestr(f"{root}/{MANIFEST_ENTRY}", json.dumps(manifest, sort_keys=True, indent=1))
        os.replace(part, path)


def _raw_bytes(tensor):
    if tensor.numel() == 0:
        return b""
    return tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
