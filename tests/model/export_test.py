"""What coxswain.export promises beside a readable archive: `export_test.py` (unittest)."""

import pathlib
import sys
import tempfile
import unittest
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))
sys.dont_write_bytecode = True

import torch  # noqa: E402
from torch import nn  # noqa: E402

import coxswain  # noqa: E402


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x, y):
        return ((self.dropout(self.linear(x)) - y) ** 2).mean()


class Whole(Pair):
    def forward(self, x, y):
        return self.linear(x) - y


class Fixed(Pair):
    """The batch is baked into a size."""

    def forward(self, x, y):
        return (self.linear(x) * torch.ones(x.shape[0] if x.shape[0] != 4 else 4, 1) - y).pow(2).mean()


class ExportTest(unittest.TestCase):
    def setUp(self):
        torch.set_num_threads(1)
        torch.manual_seed(3)
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = pathlib.Path(self.folder.name) / "model.pt2"

    def test_one_tensor_given_twice_is_two_inputs(self):
        x = torch.randn(4, 3)
        coxswain.export(Pair(), (x, x), self.path)
        program = torch.export.load(self.path)
        self.assertEqual(list(program.graph_signature.user_inputs), ["x", "y"])
        used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
        self.assertLessEqual({"x", "y"}, used)

    def test_dropout_is_in_the_program_and_off_in_the_recorded_step(self):
        module, inputs = Pair(), (torch.randn(4, 3), torch.randn(4, 3))
        module.dropout.eval()
        report = coxswain.export(module, inputs, self.path)
        targets = [str(node.target) for node in torch.export.load(self.path).graph.nodes]
        self.assertIn("aten.dropout.default", targets)
        self.assertEqual(report.loss, float(module.eval()(*inputs).detach().double()))
        self.assertTrue(report.mean_over_samples)

    def test_the_module_is_left_as_it_was(self):
        module = Pair()
        module.dropout.eval()
        coxswain.export(module, {"x": torch.randn(4, 3), "y": torch.randn(4, 3)}, self.path)
        self.assertEqual([child.training for child in module.modules()], [True, True, False])
        self.assertIsNone(module.linear.weight.grad)

    def test_a_batch_that_cannot_vary_is_baked_in_with_a_warning(self):
        with self.assertWarnsRegex(UserWarning, "one sample"):
            report = coxswain.export(Pair(), (torch.randn(1, 3), torch.randn(1, 3)), self.path)
        self.assertFalse(report.dynamic_batch)
        with self.assertWarnsRegex(UserWarning, "batch is fixed at 4"):
            report = coxswain.export(Fixed(), (torch.randn(4, 3), torch.randn(4, 3)), self.path)
        self.assertFalse(report.dynamic_batch)
        self.assertTrue(report.static_reason)

    def test_what_cannot_be_trained_is_refused_and_leaves_no_file(self):
        x, y = torch.randn(4, 3), torch.randn(4, 3)
        frozen = Pair()
        frozen.requires_grad_(False)
        cases = [(Whole(), (x, y), "scalar loss"), (Pair(), (x, y[:2]), "dim 0"), (Pair(), (x, 3), "expected a tensor"),
                 (Pair(), (), "empty"), (frozen, (x, y), "no trainable parameter")]
        for module, inputs, text in cases:
            with self.subTest(text), self.assertRaisesRegex(ValueError, text), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                coxswain.export(module, inputs, self.path)
        self.assertEqual(list(pathlib.Path(self.folder.name).iterdir()), [])


if __name__ == "__main__":
    unittest.main()
