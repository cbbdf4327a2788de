"""What is timed: a recognizer dense and adaptive, a selection network, clips and policies."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..convert import AdaptiveNetwork, convert
from ..cost.price import price, price_table
from ..cost.selector import selector_price
from ..errors import Ada3DError
from ..exits import probability
from ..learn.selector import SelectionNetwork
from ..mm.build import build_recognizer
from ..mm.config import load_config, recognizer_config
from ..policy import Policy
from ..progress import quiet
from ..tracing.model import scoring_model
from .policies import (
    FLAT,
    FULL,
    Shape,
    inside_words,
    recorded_policy,
    timed_policies,
    used,
    varied_clips,
)

DEFAULT_USAGES = ((0.7, 0.4), (0.5, 0.2))
APART = 1e-3  # from the logit at which a decision changes, so that all backends decide the same


@dataclass(frozen=True)
class Request:
    """What a benchmark is asked for; see the options of tools/benchmark.py."""

    config: str  # an Ada3D config or a plain recognizer's
    cfg_options: Sequence[str] = ()
    clip_shape: Shape | None = None  # None: the config's C and T, at 224 x 224
    clips: Sequence[int] = (4,)  # in a batch; a run and a table for each
    usages: Sequence[tuple[float, float]] = DEFAULT_USAGES  # fractions of frames and stages
    policy: str | None = None  # a file of recorded policies, one more row
    repeats: int = 7  # rounds; each times every row once
    engines: Sequence[str] = ("torch",)
    threads: int | None = None  # of the engines; None: torch's
    device: str | None = None  # of torch; None: a GPU if there is one and no engine needs the CPU
    seed: int = 0  # of weights, clips and policies
    int8: bool = False  # files in int8 too
    compiled: bool = False  # torch.compile of the dense network too
    memory: bool = False  # peak memory of the rows of torch
    profile: bool = False  # where the rows of torch spend their time
    training: bool = False  # steps of training instead, see timing/training.py
    samples: int = 4  # policies of each clip in a step
    forms: bool = False  # a row for each form of temporal convolutions; on a GPU always
    amp: bool = False  # rows of torch under autocast in bfloat16 too
    ragged: bool = False  # clips keep different numbers of frames, as far apart as can be
    eager_only: bool = False  # of the dense rows of torch, the recognizer as it is only
    phase: int | None = None  # of training: its steps only


class Run(NamedTuple):
    """A row before it is timed."""

    name: str
    call: Callable[[], object]
    macs: int  # multiply-adds of the whole batch
    dense: bool = False  # else ours
    backend: str = "torch"
    precision: str = "float32"
    part: bool = False  # of what a user waits for: no share of a saving is told


@dataclass
class Networks:
    """What is made once, whatever the batch."""

    recognizer: nn.Module  # as it is: clips -> scores
    adaptive: AdaptiveNetwork
    selector: SelectionNetwork | None  # None where clips are no pictures of three channels
    device: torch.device
    left_out: dict[str, str] = field(default_factory=dict)  # row -> why it is not there

    @property
    def shape(self) -> Shape:
        """The clips' (C, T, H, W)."""
        channels, frames, height, width = self.adaptive.plan.clip_shape
        return channels, frames, height, width

    def macs(self, policy: Policy) -> int:
        """Return the multiply-adds of a batch under these policies."""
        return int(price(self.adaptive, policy).sum())

    def selector_macs(self, clips: int) -> int:
        """Return the multiply-adds of the selection network for so many clips."""
        return 0 if self.selector is None else clips * selector_price(self.selector, self.shape)


@dataclass(frozen=True)
class Batch:
    """Clips, and the policies under which they are timed."""

    clips: Tensor  # [N, C, T, H, W], on the networks' device
    policies: Mapping[str, Policy]  # by name; the full one is the first
    usages: Sequence[str]  # the names of those that keep fractions
    threshold: float  # of the selection network; its policies cost what the first usage does
    chosen: Policy | None  # what the selection network chooses


def make_networks(request: Request, device: torch.device, selects: bool = True) -> Networks:
    """Build a config's recognizer with random weights, convert it, and make a selection network.

    Args:
        request: what is timed.
        device: of the networks.
        selects: make the selection network.

    Raises:
        Ada3DError: a recognizer that cannot be converted.
    """
    inner, shape = timed_recognizer(request.config, request.cfg_options, request.clip_shape)
    torch.manual_seed(request.seed)
    with quiet():
        recognizer = build_recognizer(recognizer_config(inner)).eval()
    adaptive = convert(recognizer, clip_shape=shape)
    left_out, selector = {}, None
    if selects and shape[0] in (3, 6):  # 6: with differences, which it leaves out
        selector = opinionated(adaptive, request.seed).to(device)
    elif selects:
        left_out["selection network inside"] = f"it takes 3 channels, and clips have {shape[0]}"
    recognizer = scoring_model(recognizer).to(device)
    return Networks(recognizer, adaptive.to(device), selector, device, left_out)


def make_batch(networks: Networks, clips: int, request: Request) -> Batch:
    """Make clips and the policies of their rows.

    Raises:
        Ada3DError: a file of policies that does not fit.
    """
    adaptive, shape = networks.adaptive, networks.shape
    policies = timed_policies(adaptive.plan, clips, request.usages, request.seed, request.ragged)
    usages = [name for name in policies if name not in (FULL, FLAT)]
    if request.policy:
        policy = recorded_policy(request.policy, adaptive, clips)
        policies[f"recorded: {used(policy)}"] = policy
    batch = varied_clips(clips, shape, request.seed).to(networks.device)
    threshold, chosen = 0.5, None
    if networks.selector is not None:
        wanted = (
            networks.macs(policies[usages[0]]) if usages else 0.6 * clips * full_price(adaptive)
        )
        with torch.no_grad():
            distribution = networks.selector(batch)
            threshold = price_table(adaptive).threshold(distribution, wanted / clips, "count")
            threshold = probability(math.log(threshold / (1 - threshold)) + APART)
            chosen = distribution.mode(threshold, "count")
    return Batch(batch, policies, usages, threshold, chosen)


def full_price(adaptive: AdaptiveNetwork) -> int:
    """Return the multiply-adds of a clip in the original recognizer."""
    return price_table(adaptive).full


def packed_runs(networks: Networks, batch: Batch) -> list[Run]:
    """Return our rows in torch: each policy, and policies that the selection network chooses."""
    return [*policy_runs(networks, batch), *inside_runs(networks, batch)]


def policy_runs(networks: Networks, batch: Batch) -> list[Run]:
    """Return a row for each policy."""
    adaptive, clips = networks.adaptive, batch.clips
    return [
        Run(f"packed, {name}", lambda p=policy: adaptive(clips, p), networks.macs(policy))
        for name, policy in batch.policies.items()
    ]


def inside_runs(networks: Networks, batch: Batch) -> list[Run]:
    """Return the row in which the selection network chooses, or none without such a network."""
    if batch.chosen is None:
        return []
    macs = networks.macs(batch.chosen) + networks.selector_macs(len(batch.clips))
    name = f"packed, {inside_words(batch.chosen)}"
    return [Run(name, lambda: decided(networks, batch), macs)]


def decided(networks: Networks, batch: Batch) -> Tensor:
    """Score clips under the policies that the selection network chooses for them."""
    return networks.adaptive(batch.clips, choose(networks, batch))


def choose(networks: Networks, batch: Batch) -> Policy:
    """Let the selection network choose policies of clips."""
    assert networks.selector is not None
    with torch.profiler.record_function(SELECTING):
        return networks.selector(batch.clips).mode(batch.threshold, "count")


SELECTING = "selection network"  # the name of what it does, in a profile


# ---------------------------------------------------------------------------------- what is made


def timed_recognizer(
    path: str, cfg_options: Sequence[str], clip_shape: Shape | None
) -> tuple[Mapping, Shape]:
    """Return the plain recognizer's model config, and the shape of the clips to time it with."""
    model = load_config(path, cfg_options).get("model") or {}
    inner = model.get("recognizer", model) if model.get("type") == "Ada3DRecognizer" else model
    return inner, clip_shape or (*tuple(model.get("clip_shape", (3, 8)))[:2], 224, 224)


def usable_device(name: str) -> torch.device:
    """Return a device on which something can be computed.

    Raises:
        Ada3DError: there is none of this name, or torch cannot use it.
    """
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise Ada3DError(f"--device {name}: {str(error).partition(chr(10))[0]}") from error


def opinionated(adaptive: AdaptiveNetwork, seed: int) -> SelectionNetwork:
    """A selection network with random weights that decides otherwise for each clip, as trained ones."""
    selector = SelectionNetwork(adaptive.plan)
    generator = torch.Generator().manual_seed(seed)
    for layer in (selector.head.frame_out, selector.head.stage_out):
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=2.0, generator=generator)
            nn.init.zeros_(layer.bias)
    for module in selector.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the statistics of what follows
    with torch.no_grad():
        selector.train()(varied_clips(16, adaptive.plan.clip_shape, seed + 1))
    return selector.eval()
