"""Coxswain's front end: `coxswain.export(module, example_inputs, path)` writes a model that `launch` can plan and train."""

from coxswain.export import ExportReport, export

__all__ = ["ExportReport", "export"]
__version__ = "0.1.0"
