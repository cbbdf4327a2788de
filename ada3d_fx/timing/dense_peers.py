"""The dense network in torch, in each way that a user may run it: what a saving is compared with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from ..convert import AdaptiveNetwork, channels_last
from ..packed.replay import Replays, is_replayable
from ..specialize import specialize
from .networks import Networks, Run, full_price

EAGER, CHANNELS_LAST = "dense, eager", "dense, channels_last_3d"
CLIP_BY_CLIP = "dense, channels_last_3d, clip by clip"
FOLDED, COMPILED = "dense, BatchNorm folded", "dense, torch.compile"
GRAPHED = "dense, BatchNorm folded, CUDA graph"


class DensePeers:
    """The dense networks, each made when it is first asked for, whatever the batch.

    Args:
        networks: what is timed.
        compiled: torch.compile's too; it takes minutes.
        eager_only: the recognizer as it is, and no other way to run it.
    """

    def __init__(self, networks: Networks, compiled: bool = False, eager_only: bool = False):
        self.networks = networks
        self.last = channels_last(networks.adaptive.plain()).to(networks.device)
        self.folded = folded(networks.adaptive)
        self.compiled, self.eager_only = compiled, eager_only

    def runs(self, clips: Tensor) -> list[Run]:
        """Return a row for each network, for clips [N, C, T, H, W].

        Where torch.compile fails, its row is left out, and `Networks.left_out` says why.
        """
        eager, last, folded = self.networks.recognizer, self.last, self.folded
        ordered = clips.contiguous(memory_format=torch.channels_last_3d)
        calls: dict[str, Callable[[], object]] = {
            EAGER: lambda: eager(clips),
            CHANNELS_LAST: lambda: last(ordered),
        }
        if len(clips) > 1:
            calls[CLIP_BY_CLIP] = lambda: torch.cat([last(clip) for clip in ordered.split(1)])
        calls[FOLDED] = lambda: folded(ordered)
        with torch.no_grad():
            if is_replayable(ordered):
                replays = Replays()
                calls[GRAPHED] = lambda: replays(folded, ordered, folded, folded)
        if self.compiled and not self.eager_only:
            calls |= self._compiled(ordered)
        if self.eager_only:
            calls = {EAGER: calls[EAGER]}
        macs = len(clips) * full_price(self.networks.adaptive)
        return [Run(name, call, macs, dense=True) for name, call in calls.items()]

    def _compiled(self, ordered: Tensor) -> dict[str, Callable[[], object]]:
        network = torch.compile(self.last, dynamic=False)
        try:
            with torch.inference_mode():
                network(ordered)
        except (RuntimeError, OSError) as error:  # those of torch._dynamo and torch._inductor too
            lines = [line for line in map(str.strip, str(error).splitlines()) if line]
            self.networks.left_out[COMPILED] = (lines or [type(error).__name__])[0][:300]
            return {}
        return {COMPILED: lambda: network(ordered)}


def folded(adaptive: AdaptiveNetwork) -> nn.Module:
    """Make the dense network with its BatchNorms folded into convolutions, by torch.fx's own pass."""
    plan = adaptive.plan
    network = specialize(adaptive, plan.num_frames, [True] * plan.num_stages).eval()
    for module in network.modules():
        # MMCV's own subclass does what torch's class does, but the pass goes by the type itself
        if isinstance(module, nn.Conv3d) and type(module).__module__.startswith("mmcv."):
            module.__class__ = nn.Conv3d
    return channels_last(fuse(network, no_trace=True))
