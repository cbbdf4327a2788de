"""Traced modules as pieces of one graph: they compute the same, and hold equal weights once."""

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from ada3d_fx import Ada3DError
from ada3d_fx.exporting.pieces import OPSET, Pieces


def run(pieces, nodes, feeds, ends):
    info = onnx.helper.make_tensor_value_info
    kind = onnx.TensorProto.FLOAT
    inputs = [info(name, kind, [None] * value.ndim) for name, value in feeds.items()]
    outputs = [info(end, kind, None) for end in ends]
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, [*pieces.weights.values()])
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(list(ends), {name: value.numpy() for name, value in feeds.items()})


class Squeezed(nn.Module):
    """The exporter writes an If for it, as whether there is one frame is seen when it runs."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x):
        return (self.linear(x.squeeze(1).squeeze(1)),)


def test_branches_of_a_traced_graph_are_placed_twice():
    pieces, module = Pieces(), Squeezed()
    graph = pieces.trace(module, [torch.zeros(2, 1, 6)], {0: (1,)}, "it")
    assert any(node.op_type == "If" for node in graph.node)
    nodes = [*pieces.place(graph, "a/", ["x"], ["y"]), *pieces.place(graph, "b/", ["x2"], ["y2"])]
    feeds = {"x": torch.randn(2, 1, 6), "x2": torch.randn(2, 1, 6)}
    for made, clips in zip(run(pieces, nodes, feeds, ("y", "y2")), feeds.values()):
        assert (torch.from_numpy(made) - module(clips)[0]).abs().max() < 1e-6
    assert len({tuple(node.output) for node in nodes}) == len(nodes)


class Odd(nn.Module):
    """Its outputs are an input, a weight, one value twice, and a sum."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self, x):
        total = x + self.weight
        return x, self.weight, total, total


def test_outputs_that_no_node_makes():
    pieces, module = Pieces(), Odd()
    graph = pieces.trace(module, [torch.zeros(3)], {}, "it")
    nodes = pieces.place(graph, "p/", ["x"], ["a", "b", "c", "d"])
    x = torch.randn(3)
    for made, wanted in zip(run(pieces, nodes, {"x": x}, "abcd"), module(x)):
        assert (torch.from_numpy(made) - wanted.detach()).abs().max() < 1e-6


class Masked(nn.Module):
    def __init__(self, cell=1.0):
        super().__init__()
        self.mask = cell * torch.eye(9)  # neither a parameter nor a buffer

    def forward(self, x):
        return (x @ self.mask,)


def test_equal_weights_and_constants_are_held_once():
    pieces = Pieces()
    x = [torch.zeros(1, 9)]
    for number, module in enumerate([Masked(), Masked(), Masked(2.0)]):
        pieces.place(pieces.trace(module, x, {}, "it"), f"{number}/", ["x"], [f"y{number}"])
    assert len([w for w in pieces.weights.values() if list(w.dims) == [9, 9]]) == 2
    count = len(pieces.weights)
    assert pieces.scalar(7) == pieces.scalar(7) != pieces.vector(7)
    assert len(pieces.weights) == count + 2


def test_a_signature_is_of_the_program():
    pieces = Pieces()

    def signature(module, frames, dynamic=(1,)):
        return pieces.signature(
            pieces.trace(module, [torch.zeros(2, frames, 9)], {0: dynamic}, "it")
        )

    assert signature(Masked(), 4) == signature(Masked(), 7) != signature(Masked(2.0), 4)
    softmax = [nn.Sequential(nn.Softmax(d)) for d in (1, 2)]
    assert signature(softmax[0], 4) != signature(softmax[1], 4)
    swapped = [Swapped(False), Swapped(True)]
    assert signature(swapped[0], 4) != signature(swapped[1], 4)  # the same nodes, other order


class Swapped(nn.Module):
    def __init__(self, swapped):
        super().__init__()
        self.swapped = swapped

    def forward(self, x):
        both = (x.sin(), x.cos())
        return both[::-1] if self.swapped else both


class SizeAsNumber(nn.Module):
    def forward(self, x):
        return (x * x.shape[1],)


def test_sizes_are_constants_where_no_axis_varies():
    pieces = Pieces()
    fixed = pieces.trace(SizeAsNumber(), [torch.zeros(2, 4)], {}, "it")
    varying = pieces.trace(SizeAsNumber(), [torch.zeros(2, 4)], {0: (1,)}, "it")
    assert "Shape" not in [node.op_type for node in fixed.node]
    assert "Shape" in [node.op_type for node in varying.node]
    nodes = pieces.place(varying, "p/", ["x"], ["y"])
    x = torch.randn(2, 7)
    (made,) = run(pieces, nodes, {"x": x}, "y")
    assert (torch.from_numpy(made) - 7 * x).abs().max() < 1e-6


class NoOnnx(nn.Module):
    def forward(self, x):
        return (torch.linalg.eigvals(x),)


def test_an_operation_that_onnx_has_not_is_told(capsys):
    with pytest.raises(Ada3DError, match=r"part 3 cannot be written as ONNX: .*eigvals"):
        Pieces().trace(NoOnnx(), [torch.eye(3)], {}, "part 3")
    assert capsys.readouterr() == ("", "")
