"""Random networks: what hypothesis draws is plain data, and `build` makes a module of it.

A block is (kind, options), with chains of further blocks in its options where it has branches. A
chain is a list of (name, block), in which a name may come again: the block is then called at several
places. Blocks that do not run on what comes before them are left out, so every drawing is a network.
"""

from collections import OrderedDict

import random_blocks as blocks
import torch
from hypothesis import strategies as st
from torch import nn

# Names that are awkward for a program with names of its own.
NAMES = (
    *("a", "a_0", "a_1", "b", "layer1", "layer2", "conv1", "rows", "clips", "policy", "segments", "packing"),
    *("scores", "folded", "dense_region_0", "checkpoint_0", "gate_stem", "max", "x", "input", "root"),
    *("_b", "x__y", "add", "getattr", "0", "1", "10", "print", "torch", "0_a", "a_0_conv", "segments_1"),
)  # fmt: skip


def pick(draw, *values):
    return draw(st.sampled_from(values))


def options_of(draw, **choices):
    """One value of each option; the first is the simplest."""
    return {name: pick(draw, *values) for name, values in choices.items()}


def _conv(draw, still):
    options = options_of(
        draw, kt=(3, 1, 2, 5, 4), kh=(1, 3), dt=(1, 1, 1, 2), bias=(True, False), groups=(False, False, True),
        mode=("zeros",) * 8 + ("replicate", "circular"),
        kind=("plain",) * 6 + ("renamed", "standardised", "weight_norm"),
    )  # fmt: skip
    more = dict(pad=("centre", "centre", "centre", "same")) if still else dict(
        pad=("centre", "centre", "centre", 0, 1, "same", "valid", 2), st=(1, 1, 2, 3), sh=(1, 2), out=(4, 3, 2)
    )  # fmt: skip
    return {**options, **options_of(draw, **more)}


_LEAVES = {
    "conv": _conv,
    "norm": lambda draw, still: options_of(draw, kind=("batch",) * 6 + tuple(blocks.NORMS)),
    "act": lambda draw, still: options_of(
        draw, kind=tuple(blocks.MODULES), form=("module", "function", "method", "in place", "module in place")
    ),
    "pool": lambda draw, still: options_of(
        draw, kind=("max", "avg"), kt=(2, 3, 1, 4), kh=(1, 2, 3), st=(2, 1, 3), sh=(1, 2), pt=(0, 1),
        form=("module", "module", "module", "function", "indices"), ceil=(False, False, True),
    ),
    "adaptive_pool": lambda draw, still: options_of(
        draw, kind=("avg", "max"), size=((None, 2, 2), (None, 1, 1), (None, None, 1), (1, None, None), 1, (2, 1, 1), 2),
    ),
    "resize": lambda draw, still: options_of(
        draw, scale=((1, 2, 2), (2, 1, 1), (1.0, 2.0, 2.0), 2), form=("module", "function"),
        mode=("nearest", "trilinear"),
    ),
    "gate": lambda draw, still: options_of(
        draw, axes=((2, 3, 4), (3, 4), (2,), (1,), (2, 3)), form=("module", "function", "mean", "left")
    ),
    "excite": lambda draw, still: {},
    "attention": lambda draw, still: options_of(draw, over=("all", "time")),
    "tokens": lambda draw, still: options_of(
        draw, axes=("joint", "clips second", "frames", "apart"), linear=("plain", "no bias", "weight_norm"),
        act=("module", "function", "in place", "read before"),
        mixed=("attention", "mean", "written", "nothing", "module", "function"),
    ),
    "frames2d": lambda draw, still: options_of(draw, form=("reshape", "flatten", "view"), kernel=(1, 3)),
    "constant": lambda draw, still: options_of(
        draw, shape=("c", "", "hw", "chw", "t", "ct", "cthw"), kind=("parameter", "buffer", "unsaved"),
        operation=("mul", "add", "sub"),
    ),
    "relative": lambda draw, still: options_of(
        draw, form=("added", "summed", "written", "view", "padded")
    ),
    "scaled": lambda draw, still: options_of(draw, form=blocks.FORMS),
    "untraceable": lambda draw, still: options_of(draw, form=("branch", "loop")),
    "identity": lambda draw, still: options_of(draw, kind=("identity", "dropout", "dropout3d")),
}  # fmt: skip
_FREQUENT = ("conv",) * 6 + ("norm",) * 4 + ("act",) * 3 + ("gate", "pool")
_STILL = tuple(k for k in _LEAVES if k not in ("pool", "adaptive_pool", "resize"))


@st.composite
def chains(draw, depth=0, still=False, least=1, most=4):
    names = list(draw(st.permutations(NAMES))[:most])
    chain = []
    for _ in range(draw(st.integers(least, most))):
        again = [named for named in chain if draw(st.integers(0, 9)) == 4]
        chain.append(again[0] if again else (names.pop(), draw(_block(depth, still))))
    return chain


@st.composite
def _block(draw, depth, still):
    nested = (
        ()
        if depth >= 2
        else ("residual",) * 3 + ("branches", "chain", "chain", "two_paths", "checkpointed")
    )
    if still:
        kind = pick(
            draw,
            *(k for k in _FREQUENT if k in _STILL),
            *_STILL,
            *(n for n in nested if n != "two_paths"),
        )
    else:
        kind = pick(draw, *_FREQUENT, *_LEAVES, *nested)
    inner = chains(depth + 1, True, 1, 3)
    if kind == "residual":
        return kind, dict(operation=pick(draw, *blocks.SUMS), body=draw(inner))
    if kind == "branches":
        bodies = [draw(inner) for _ in range(draw(st.integers(1, 2)))]
        return kind, dict(form=pick(draw, "dim", "negative", "place"), bodies=bodies)
    if kind == "two_paths":
        options = options_of(draw, rate=(2, 3), form=("slice", "interpolate"))
        return kind, dict(**options, slow=draw(inner), fast=draw(inner))
    if kind == "checkpointed":
        return kind, dict(body=draw(inner))
    if kind == "chain":
        form = pick(draw, "sequential", "attributes", "dict", "list", "frozen")
        return kind, dict(form=form, body=draw(chains(depth + 1, still, 1, 3)))
    return kind, _LEAVES[kind](draw, still)


@st.composite
def _stems(draw):
    """Most networks begin with a temporal convolution, often with its norm and activation."""
    kinds = pick(draw, ("conv", "norm", "act"), ("conv", "norm"), ("conv",), ("conv", "act"), ())
    made = [(kind, _LEAVES[kind](draw, True)) for kind in kinds]
    if made and pick(draw, True, True, True, False):  # it can be turned off, so it is not refused
        made[0][1].update(kt=pick(draw, 3, 5), mode="zeros", kind="plain")
    return [(f"stem{i}", block) for i, block in enumerate(made)]


FRAMES = (4, 3, 2, 5, 4, 3, 6, 4, 3, 2, 5, 4, 3, 6, 8, 1)


@st.composite
def networks(draw):
    """The data of a network, its clips and its conversion."""
    refused = draw(st.integers(0, 49)) == 17
    return dict(
        clip=(pick(draw, 2, 3), pick(draw, *FRAMES), pick(draw, 4, 5, 6, 8), pick(draw, 4, 6, 7)),
        body=draw(_stems()) + draw(chains(most=4)),
        data_dependent=pick(draw, "branch", "item", "slice") if refused else None,
        head=pick(draw, *blocks.HEADS),
        wrapped=pick(draw, "chain", "chain", "recognizer", "neck", "sequential"),
        grouping=pick(draw, "stage", "block", "layer"),
        training=pick(draw, False, False, True),
        tied=draw(st.integers(0, 7)) == 5,
        hooked=draw(st.integers(0, 7)) == 5,
        inference=draw(st.integers(0, 19)) == 7,
        seed=draw(st.integers(0, 2**16)),
    )  # fmt: skip


# -------------------------------------------------------------------------------- data -> modules

IDENTITIES = {"identity": nn.Identity, "dropout": nn.Dropout, "dropout3d": nn.Dropout3d}


class Recognizer(nn.Module):
    """A recognizer by its parts' names, as MMAction2's; converted by these names alone."""

    def __init__(self, backbone, cls_head, neck=None):
        super().__init__()
        self.backbone = backbone
        if neck is not None:
            self.neck = neck
        self.cls_head = cls_head

    def forward(self, x):
        x = self.backbone(x)
        if hasattr(self, "neck"):
            x, _ = self.neck(x)
        return self.cls_head(x)


class Neck(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x, data_samples=None):
        return self.body(x), dict()


def scale_output(module, inputs, output):
    """A forward hook of the user's that changes values."""
    return output * 1.1


def build(network):
    """Make the module of ``network``, in float64, with random weights and statistics."""
    torch.manual_seed(network["seed"])
    shape = network["clip"]
    body = network["body"]
    body_module, shape = _chain(body, "attributes", shape)
    parts = [body_module]
    if network["data_dependent"]:
        parts.append(blocks.DataDependent(network["data_dependent"]))
    head = blocks.Head(shape[0], network["head"], shape[1:])
    wrapped = network["wrapped"]
    if wrapped in ("recognizer", "neck") and len(parts) == 1:
        neck = Neck(nn.Conv3d(shape[0], shape[0], 1)) if wrapped == "neck" else None
        model = Recognizer(body_module, head, neck)
    elif wrapped == "sequential":
        model = nn.Sequential(*parts, head)
    else:  # the blocks are at the top
        children = OrderedDict(body_module.named_children())
        order = list(body_module.order)
        for name, part in (("asks", parts[1:]), ("head", [head])):
            if part:
                children[name] = part[0]
                order.append(name)
        model = blocks.Chain(children, order)
    _randomise(model)
    convs = [m for m in model.modules() if type(m) in (nn.Conv3d, nn.Linear)]
    if network["tied"]:
        for one in convs:
            for other in convs:
                if one is not other and one.weight.shape == other.weight.shape:
                    other.weight = one.weight
    model.train(network["training"])
    if network["hooked"]:
        kept_whole = (nn.Conv3d, nn.BatchNorm3d, nn.Linear, nn.ReLU, nn.AdaptiveAvgPool3d)
        for place, module in enumerate(m for m in model.modules() if type(m) in kept_whole):
            if place % 3 == 1:
                module.register_forward_hook(scale_output)
    return model


def _randomise(model):
    model.double()
    for module in model.modules():
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)


def _chain(chain, form, shape):
    """The module of a chain and the shape that it makes."""
    children, order = OrderedDict(), []
    for name, block in chain:
        if name in children:
            made = _runs(children[name], shape)
        else:
            module = _module(block, shape)
            made = _runs(module, shape) if module is not None else None
        if made is None:
            continue
        if name not in children:
            children[name] = module
        order.append(name)
        shape = made
    if form == "sequential":
        return nn.Sequential(*(children[name] for name in order)), shape
    if form == "list":
        return blocks.ListChain(children.values(), [list(children).index(n) for n in order]), shape
    return blocks.Chain(children, order, "dict" if form == "dict" else "", form == "frozen"), shape


@torch.no_grad()
def _runs(module, shape):
    """The shape that a module makes of clips of ``shape``, or None if it does not run on them."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        made = module.double()(torch.zeros(2, *shape, dtype=torch.float64)).shape
    except (RuntimeError, ValueError, IndexError, AssertionError):
        made = None
    for part, mode in modes:
        part.training = mode
    small = made is not None and len(made) == 5 and made[0] == 2 and made[1] <= 16
    return tuple(made[1:]) if small and 0 < made.numel() <= 20_000 else None


def _module(block, shape):
    kind, options = block
    channels = shape[0]
    if kind == "residual":
        return blocks.Residual(
            _chain(options["body"], "sequential", shape)[0], options["operation"]
        )
    if kind == "branches":
        bodies = [_chain(body, "attributes", shape)[0] for body in options["bodies"]]
        return blocks.Branches(bodies, options["form"])
    if kind == "two_paths":
        fast, _ = _chain(options["fast"], "attributes", shape)
        twice = (2 * channels, -(-shape[1] // options["rate"]), *shape[2:])
        slow, _ = _chain(options["slow"], "sequential", twice)
        return blocks.TwoPaths(channels, options["rate"], slow, fast, options["form"])
    if kind == "checkpointed":
        return blocks.Checkpointed(_chain(options["body"], "sequential", shape)[0])
    if kind == "chain":
        return _chain(options["body"], options["form"], shape)[0]
    makers = {
        "excite": blocks.Excite, "attention": lambda c, over: blocks.Attention(c, over),
        "tokens": blocks.Tokens,
        "frames2d": blocks.Frames2d, "untraceable": blocks.Untraceable,
        "scaled": lambda c, form: blocks.Scaled(form),
        "constant": lambda c, **o: blocks.constant(c, size=shape[1:], **o),
        "relative": lambda c, form: blocks.Relative(c, form, shape[1]),
        "identity": lambda c, kind: IDENTITIES[kind](),
    }  # fmt: skip
    make = makers.get(kind) or getattr(blocks, kind)
    try:
        return make(channels, **options)
    except (ValueError, RuntimeError):  # such as padding='same' with a stride
        return None
