"""What is timed of exported files in an engine: dense, under policies, and deciding themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..export import export
from ..policy import Policy
from ..progress import Console
from ..runtime.session import Session
from .networks import Batch, Networks, Run, full_price
from .policies import inside_words, varied_clips

SUFFIX = {"openvino": ".xml", "onnxruntime": ".onnx"}
INT8 = ", int8"  # ends the rows of int8 files


class EngineFiles:
    """Exported files of one engine and precision, made once and run for any batch.

    The dense file is the original network in the engine, without Ada3D. The files hold random weights,
    as the networks do.

    Args:
        networks: what is timed.
        engine: of `SUFFIX`.
        folder: where the files are written.
        threads: of the engine.
        seed: of the clips by which int8 is set.
        int8: quantised to eight bits.
        console: where progress is shown.

    Raises:
        Ada3DError: a network that cannot be exported, or an engine that is missing.
    """

    def __init__(
        self, networks: Networks, engine: str, folder: str, threads: int, seed: int, int8: bool,
        console: Console,
    ):  # fmt: skip
        self.networks, self.engine, self.threads, self.int8 = networks, engine, threads, int8
        self.file = str(Path(folder, "{}" + (INT8 if int8 else "") + SUFFIX[engine]))
        adaptive, plan = networks.adaptive, networks.adaptive.plan
        options: dict[str, Any] = {}
        if int8:  # labels of random weights are chance
            options = dict(int8=varied_clips(16, networks.shape, seed + 2), agreement=0.0)
        console.say(f"exporting for {engine}{INT8 if int8 else ''}, and checking the files")
        dense = (plan.num_frames, [True] * plan.num_stages)
        export(adaptive, self._path("dense"), fixed=dense, **options)
        made = export(adaptive, self._path("given"), **options)
        if networks.selector is not None:
            made = export(
                adaptive, self._path("inside"), networks.selector, greedy="count", **options
            )
        self.versions = dict(made.versions)
        self.difference: float = made.parity["scores"]  # to torch, relative to the largest score
        self.dense, self.given = self._session("dense"), self._session("given")
        self.inside = None if networks.selector is None else self._session("inside")

    def runs(self, batch: Batch) -> list[Run]:
        """Return the dense rows and ours."""
        clips, dense = batch.clips.numpy(), self.dense
        macs = len(clips) * full_price(self.networks.adaptive)
        name = f"dense, {self.engine}"
        runs = [self._run(name, lambda: dense(clips), macs, dense=True)]
        if self.engine == "openvino":
            static = self._session("dense", clips=len(clips))
            runs.append(self._run(f"{name}, static shapes", lambda: static(clips), macs, True))
        given = self.given
        for words, policy in batch.policies.items():
            macs = self.networks.macs(policy)
            runs.append(self._ours(words, lambda p=policy: given(clips, p), macs))
        inside, level = self.inside, batch.threshold
        if inside is not None:
            decided = map(torch.from_numpy, inside.decide(clips, level))
            chosen = Policy(*decided)  # at the very threshold, rounding may decide otherwise
            choosing = self.networks.selector_macs(len(clips))
            macs = self.networks.macs(chosen) + choosing
            runs.append(self._ours(inside_words(chosen), lambda: inside(clips, None, level), macs))
            alone = f"selection network alone, {self.engine}"
            runs.append(self._run(alone, lambda: inside.decide(clips, level), choosing, part=True))
        return runs

    def _ours(self, words: str, call: Callable[[], object], macs: int) -> Run:
        return self._run(f"packed in {self.engine}, {words}", call, macs)

    def _run(
        self, name: str, call: Callable[[], object], macs: int, dense: bool = False,
        part: bool = False,
    ) -> Run:  # fmt: skip
        ending, precision = (INT8, "int8") if self.int8 else ("", "float32")
        return Run(name + ending, call, macs, dense, self.engine, precision, part)

    def _session(self, name: str, **options: Any) -> Session:
        return Session(self._path(name), self.engine, self.threads, **options)

    def _path(self, name: str) -> str:
        return self.file.format(name)
