"""Images -> clips: the parts of a 2D convolutional network as parts that take [N, C, T, H, W].

A part that is not inflated does to each frame what it did to an image. Which operations have such a
form is told by the tables here; everything else is refused.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from ..errors import Ada3DError

Init = Literal["centre", "mean"]
# Functions and methods that do the same with one axis more.
SAME = {
    *(operator.add, operator.iadd, operator.mul, operator.imul, operator.getitem),
    *(torch.add, torch.mul, torch.relu, torch.sigmoid, F.relu, F.relu6, F.silu, F.hardswish, F.dropout),
    *("add", "add_", "mul", "mul_", "relu", "relu_", "contiguous"),
}  # fmt: skip
ALONG = {torch.cat, torch.chunk, torch.split, "chunk", "split"}  # those along clips or channels too

# Where a network's features end: at one of these children, or at one of these functions.
CLASSIFIERS = {"avgpool", "classifier", "fc", "head"}
POOLINGS = {F.adaptive_avg_pool2d, torch.flatten, torch.mean, "mean", "flatten"}


def inflate_weight(weight: Tensor, taps: int, init: Init) -> Tensor:
    """Give a kernel [O, I, kh, kw] a temporal extent: [O, I, taps, kh, kw].

    Args:
        weight: the kernel.
        taps: of the temporal kernel, an odd number.
        init: 'centre': the kernel is the centre tap, the others are zero. 'mean': each tap is the
            kernel divided by their number.
    """
    if init == "mean":
        return weight[:, :, None].repeat(1, 1, taps, 1, 1) / taps
    inflated = weight.new_zeros(*weight.shape[:2], taps, *weight.shape[2:])
    inflated[:, :, taps // 2] = weight
    return inflated


def widen_input(weight: Tensor, channels: int) -> Tensor:
    """Make a kernel of more input channels; what the new ones are multiplied with is zero."""
    more = weight.new_zeros(weight.shape[0], channels - weight.shape[1], *weight.shape[2:])
    return torch.cat([weight, more], 1)


def inflate_conv(conv: nn.Conv2d, taps: int, init: Init) -> nn.Conv3d:
    """Make a 3D convolution of a 2D one, which keeps the number of frames."""
    inflated = nn.Conv3d(
        conv.in_channels, conv.out_channels, (taps, *conv.kernel_size), (1, *conv.stride),
        (taps // 2, *conv.padding), (1, *conv.dilation), conv.groups, conv.bias is not None,
        conv.padding_mode, device="meta",
    )  # fmt: skip
    inflated.weight = nn.Parameter(inflate_weight(conv.weight.detach(), taps, init))
    if conv.bias is not None:
        inflated.bias = conv.bias
    return inflated


def _norm(norm: nn.BatchNorm2d) -> nn.BatchNorm3d:
    made = nn.BatchNorm3d(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    )
    made.load_state_dict(norm.state_dict())
    return made


def _max_pool(pool: nn.MaxPool2d) -> nn.MaxPool3d:
    sizes = (_still(pool.kernel_size, 1), _still(pool.stride, 1), _still(pool.padding, 0))
    return nn.MaxPool3d(*sizes, _still(pool.dilation, 1), pool.return_indices, pool.ceil_mode)


def _average_pool(pool: nn.AvgPool2d) -> nn.AvgPool3d:
    sizes = (_still(pool.kernel_size, 1), _still(pool.stride, 1), _still(pool.padding, 0))
    return nn.AvgPool3d(*sizes, pool.ceil_mode, pool.count_include_pad, pool.divisor_override)


def _adaptive_pool(pool: nn.AdaptiveAvgPool2d) -> nn.AdaptiveAvgPool3d:
    return nn.AdaptiveAvgPool3d(_still(pool.output_size, None))


def _drop_path(depth: StochasticDepth) -> nn.Module:
    return DropPath(depth.p)  # the same, in code that shows what it does in evaluation: nothing


def _still(size: Any, time: int | None) -> tuple:
    """A pool's size, for height and width, with what leaves the time as it is."""
    return (time, *(size if isinstance(size, (tuple, list)) else (size, size)))


# What a 2D module becomes where it is not inflated.
COUNTERPARTS: dict[type, Callable[[Any], nn.Module]] = {
    nn.Conv2d: lambda conv: inflate_conv(conv, 1, "centre"),
    nn.BatchNorm2d: _norm,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: _adaptive_pool,
    StochasticDepth: _drop_path,
}
# Modules that do the same with one axis more.
KEPT = (
    *(nn.Identity, nn.Dropout, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU),
    *(nn.Sigmoid, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Tanh),
)


class _Tracer(fx.Tracer):
    """Traces a network down to torch's modules, or as a chain of its children."""

    def __init__(self, children_are_leaves: bool = False):
        super().__init__()
        self.children_are_leaves = children_are_leaves

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if self.children_are_leaves or isinstance(m, StochasticDepth):
            return True
        return super().is_leaf_module(m, module_qualified_name)


def feature_chain(net: nn.Module, name: str) -> list[str]:
    """Find the children that make a classifier's features: those that it calls one after the other.

    A ReLU between them that is a function becomes a child. The chain ends before the pooling.

    Args:
        net: a 2D network from images to scores.
        name: of the network, for messages.

    Returns:
        Names of children.

    Raises:
        Ada3DError: there is no such chain.
    """
    children = {name for name, _ in net.named_children()} - CLASSIFIERS
    chain: list[str] = []
    nodes = iter(trace(net, name, children_are_leaves=True).nodes)
    last = next(nodes)
    for node in nodes:
        if node.all_input_nodes != [last] or len(last.users) != 1:
            break
        if node.target in POOLINGS or node.target in CLASSIFIERS:
            return chain
        if node.op == "call_function" and node.target in (F.relu, torch.relu):
            net.add_module(node.name, nn.ReLU(inplace=True))
            chain.append(node.name)
        elif node.op == "call_module" and node.target in children:
            chain.append(str(node.target))
        else:
            break
        last = node
    raise Ada3DError(
        f"InflatedNet: {name} is no sequence of parts up to a pooling, so its features cannot be told "
        "from its classifier; try a convolutional network such as 'mobilenet_v2' or 'resnet18'"
    )


def trace(module: nn.Module, name: str, children_are_leaves: bool = False) -> fx.Graph:
    """Trace a 2D network.

    Raises:
        Ada3DError: it cannot be traced.
    """
    try:
        return _Tracer(children_are_leaves).trace(module)
    except (fx.proxy.TraceError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise Ada3DError(
            f"InflatedNet: {name} cannot be traced ({reason}), so it cannot be told whether it "
            "runs on clips; try a convolutional network such as 'mobilenet_v2' or 'resnet18'"
        ) from error


def refusals(net: nn.Module, name: str) -> Iterator[str]:
    """Tell what of a 2D network has no form for clips: the operation, and the part that has it.

    Args:
        net: the network, without its classifier.
        name: of the network, for messages.

    Raises:
        Ada3DError: it cannot be traced.
    """
    modules = dict(net.named_modules())
    for node in trace(net, name).nodes:
        if node.op == "call_module":
            module = modules[str(node.target)]
            if type(module) not in COUNTERPARTS and not isinstance(module, KEPT):
                yield f"{node.target} is a {type(module).__name__}"
            if isinstance(module, StochasticDepth) and module.mode != "row":
                yield f"{node.target} drops whole batches"
        elif node.op == "get_attr":
            yield f"{node.target} is a parameter of the network's own code"
        elif node.op in ("call_function", "call_method") and not _takes_clips(node):
            yield f"{_place(node)} computes {getattr(node.target, '__name__', node.target)}"


def _takes_clips(node: fx.Node) -> bool:
    """Tell whether an operation does the same on values with a time axis after the channels."""
    if node.target is operator.getitem:
        return isinstance(node.args[1], int) and node.args[0].target in ALONG
    if node.target not in ALONG:
        return node.target in SAME
    at = 1 if node.target in (torch.cat,) else 2
    axis = node.kwargs.get("dim", node.args[at] if len(node.args) > at else 0)
    return axis in (0, 1)


def _place(node: fx.Node) -> str:
    """The path of the module whose code has an operation."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def replace_parts(net: nn.Module, taps: Mapping[str, int], init: Init) -> None:
    """Turn the modules of a 2D network into those for clips, in place.

    Args:
        net: the network.
        taps: path of a convolution that is inflated -> taps of its temporal kernel.
        init: see `inflate_weight`.
    """
    for path, module in list(net.named_modules()):
        parent, _, name = path.rpartition(".")
        if path in taps:
            made: nn.Module = inflate_conv(module, taps[path], init)
        elif type(module) in COUNTERPARTS:
            made = COUNTERPARTS[type(module)](module)
        else:
            continue
        setattr(net.get_submodule(parent), name, made.train(module.training))
