"""InflatedNet: a 2D convolutional network of torchvision, and its weights, as a 3D backbone."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torchvision
from mmaction.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import Ada3DError
from .inflated_weights import inflated_state, pretrained
from .inflation import Init, feature_chain, refusals, replace_parts, widen_input

# Regex of a network's name -> what is inflated in it where nothing is said, with the reason.
INFLATED_BY_DEFAULT = (
    # as in the paper's I3D: the stem, and the first convolution of every block
    (r"(wide_)?res(net|next)\d+\w*", (r"^conv1$", r"^layer\d\.\d+\.conv1$")),
    # inverted residuals: the 1x1 convolutions that expand; the first block has none
    (r"mobilenet_v2", (r"^features\.(?!1\.)\d+\.conv\.0\.0$",)),
    (r"mobilenet_v3_\w+", (r"^features\.(?!1\.)\d+\.block\.0\.0$",)),
    (r"efficientnet_b\d", (r"^features\.(?!1\.)\d\.\d+\.block\.0\.0$",)),
    (r"efficientnet_v2_\w", (r"^features\.[4-9]\.\d+\.block\.0\.0$",)),
    (r"mnasnet\w+", (r"^layers\.\d+\.\d+\.layers\.0$",)),
    # the 1x1 convolution before the 3x3 one
    (r"regnet_\w+", (r"\.f\.a\.0$",)),
    (r"densenet\d+", (r"\.conv1$",)),
    (r"squeezenet\w+", (r"\.squeeze$",)),
    # the 3x3 ones, as in the first I3D
    (r"googlenet", (r"\.branch[23]\.1\.conv$",)),
    (r"(vgg|alexnet)\w*", (r"^features\.\d+$",)),
)
# What networks are built with here: no auxiliary classifiers, no normalisation of their own.
BUILT_WITH = {
    "googlenet": dict(aux_logits=False, init_weights=False, transform_input=False),
    "inception_v3": dict(aux_logits=False, init_weights=False, transform_input=False),
}


@MODELS.register_module()
class InflatedNet(BaseModule):
    """A 2D convolutional network of torchvision that takes clips: inflated in time (I3D).

    Its parts, and their tensors, have torchvision's names. Each frame goes through it as an image
    does, but for the convolutions that are inflated.

    Args:
        net: torchvision's name of a network, such as 'mobilenet_v2' or 'resnet50'.
        inflate: regexes of module paths: the convolutions that get a temporal kernel. None: the
            usual ones of such a network, see ``INFLATED_BY_DEFAULT``.
        kernel: taps of the temporal kernels, an odd number.
        init: 'centre': a 2D kernel becomes the centre tap, and the others start at zero, so that
            the network starts as the 2D one on each frame. 'mean': it is spread over all taps.
        weights: which weights `init_weights` loads: a name that torchvision has for this network's,
            such as 'IMAGENET1K_V1', which are fetched then; or a file of a 2D network's state dict.
        norm_eval: keep the statistics of BatchNorm as they are in training.
        frozen: regexes of module paths: the parts that do not learn, and whose BatchNorm stays.
        in_channels: of clips: 3, or more, such as 6 of a `DifferencePreprocessor`. What the further ones are
            multiplied with starts at zero.
        net_options: further options of torchvision's network, such as ``dict(width_mult=0.5)``.
        init_cfg: MMEngine's.

    Raises:
        Ada3DError: an unknown network, one that does not run on clips, or a pattern that matches
            nothing.
    """

    def __init__(
        self,
        net: str = "mobilenet_v2",
        inflate: str | Sequence[str] | None = None,
        kernel: int = 3,
        init: Init = "centre",
        weights: str | None = None,
        norm_eval: bool = False,
        frozen: str | Sequence[str] | None = None,
        in_channels: int = 3,
        net_options: Mapping | None = None,
        init_cfg: Mapping | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        if not isinstance(kernel, int) or kernel < 1 or kernel % 2 == 0:
            raise Ada3DError(f"InflatedNet: kernel={kernel!r}; expected an odd number of taps")
        if not isinstance(in_channels, int) or in_channels < 3:
            raise Ada3DError(f"InflatedNet: in_channels={in_channels!r}; expected 3 or more")
        if init not in ("centre", "mean"):
            raise Ada3DError(f"InflatedNet: init={init!r}; there are 'centre' and 'mean'")
        self.net, self.init, self.weights, self.norm_eval = net, init, weights, norm_eval
        flat = build_net(net, net_options or {})
        self.chain = feature_chain(flat, net)
        flat = nn.Sequential(OrderedDict((name, getattr(flat, name)) for name in self.chain))
        check_parts(flat, net)
        patterns = default_patterns(net) if inflate is None else _several(inflate)
        self.inflated = matching(flat, patterns, "inflate", nn.Conv2d)
        replace_parts(flat, dict.fromkeys(self.inflated, kernel), init)
        self.first = take_channels(flat, in_channels)
        for name, part in flat.named_children():
            self.add_module(name, part)
        self.frozen = matching(self, _several(frozen or ()), "frozen", nn.Module)
        for path in self.frozen:
            self.get_submodule(path).requires_grad_(False)

    def forward(self, clips: Tensor) -> Tensor:
        """Return the features of clips: [N, 3, T, H, W] -> [N, C, T, H', W']."""
        for name in self.chain:
            clips = getattr(self, name)(clips)
        return clips

    def init_weights(self) -> None:
        """Load ``weights``; where there are none, the network keeps torchvision's initialisation.

        Raises:
            Ada3DError: they cannot be fetched or read, or are not this network's.
        """
        super().init_weights()
        if self.weights is not None:
            state = pretrained(self.net, self.weights)
            ours = {k: v for k, v in state.items() if k.partition(".")[0] in self.chain}
            source = f"InflatedNet: {self.net}: weights {self.weights}"
            own, first = self.state_dict(), f"{self.first}.weight"
            self.load_state_dict(inflated_state(own, ours, first, self.init, source))

    def train(self, mode: bool = True) -> InflatedNet:
        """Set the mode; frozen parts stay in evaluation mode, and with ``norm_eval`` BatchNorm does."""
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        for path in getattr(self, "frozen", ()):
            self.get_submodule(path).eval()
        return self


def build_net(name: str, options: Mapping) -> nn.Module:
    """Build a network of torchvision's for images, its weights random.

    Raises:
        Ada3DError: an unknown name, or options that it does not have.
    """
    names = torchvision.models.list_models(torchvision.models)
    if name not in names:
        raise Ada3DError(f"InflatedNet: torchvision has no net={name!r}; it has {', '.join(names)}")
    try:
        made = torchvision.models.get_model(
            name, weights=None, **BUILT_WITH.get(name, {}), **dict(options)
        )
    except (TypeError, ValueError) as error:
        raise Ada3DError(f"InflatedNet: {name} cannot be built: {error}") from error
    if not any(isinstance(module, nn.Conv2d) for module in made.modules()):
        raise Ada3DError(f"InflatedNet: {name} has no convolution to inflate")
    return made


def check_parts(flat: nn.Module, net: str) -> None:
    """Check that a network's parts do to the frames of clips what they do to images.

    Raises:
        Ada3DError: some do not; the message names the first of them.
    """
    wrong = list(dict.fromkeys(refusals(flat, net)))
    if wrong:
        raise Ada3DError(
            f"InflatedNet: {net} has {len(wrong)} operations that are for images only: "
            f"{'; '.join(wrong[:3])}. Try another network: docs/support.md lists which can be inflated"
        )


def take_channels(net: nn.Module, channels: int) -> str:
    """Let a network's first convolution take so many channels, and return its path."""
    path, conv = next((p, m) for p, m in net.named_modules() if isinstance(m, nn.Conv3d))
    conv.weight = nn.Parameter(widen_input(conv.weight.detach(), channels))
    conv.in_channels = channels
    return path


def default_patterns(net: str) -> tuple[str, ...]:
    """Return the regexes of what is inflated in a network where its config does not say it.

    Raises:
        Ada3DError: none is known for it.
    """
    for name, patterns in INFLATED_BY_DEFAULT:
        if re.fullmatch(name, net):
            return patterns
    raise Ada3DError(
        f"InflatedNet: which convolutions of {net} to inflate? Give inflate=, a regex of their paths"
    )


def matching(
    model: nn.Module, patterns: Sequence[str], option: str, kind: type[nn.Module]
) -> list[str]:
    """Return the paths of the modules of a kind that one of the patterns matches.

    Raises:
        Ada3DError: a pattern that is no regex, or matches none of them.
    """
    paths = [path for path, module in model.named_modules() if path and isinstance(module, kind)]
    found = set()
    for pattern in patterns:
        try:
            matched = [path for path in paths if re.search(pattern, path)]
        except re.error as error:
            raise Ada3DError(f"InflatedNet: {option}: {pattern!r} is no regex: {error}") from error
        if not matched:
            raise Ada3DError(
                f"InflatedNet: {option}: {pattern!r} matches none of {len(paths)} paths, such as "
                f"{', '.join(paths[:: max(len(paths) // 4, 1)][:4])}"
            )
        found.update(matched)
    return [path for path in paths if path in found]


def _several(patterns: str | Sequence[str]) -> Sequence[str]:
    return [patterns] if isinstance(patterns, str) else patterns
