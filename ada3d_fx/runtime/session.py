"""Session: an exported network, as a service runs it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import Ada3DError, require_number
from . import contract
from .contract import Description
from .engines import ENGINES, OF_SUFFIX, Engine


class Decision(NamedTuple):
    """Policies of N clips."""

    frames: np.ndarray  # bool [N, T]
    stages: np.ndarray  # bool [N, K]


class Outcome(NamedTuple):
    """What a run gives."""

    scores: np.ndarray  # float32 [N, classes]
    policy: Decision  # the one that was executed


class Session:
    """An exported network; it needs NumPy and one engine, and neither torch nor MMAction2.

    >>> session = Session("ada3d.onnx")                       # doctest: +SKIP
    >>> scores = session(clips)                               # doctest: +SKIP

    Any thread may call it at any time. A copy, and what `pickle` gives, opens the file again. A process
    that is forked has none of the engine's threads, so it makes a session of its own.

    Args:
        path: a file that `ada3d_fx.export` or tools/export.py wrote.
        engine: 'onnxruntime' (for .onnx) or 'openvino' (for .xml and .onnx); None: by the file's
            ending.
        threads: of the engine; None: as many as there are cores.
        **options: further ones of the engine, see `OnnxRuntime` and `OpenVino`.

    Raises:
        Ada3DError: no such file, one of another kind or format, a damaged one, or an engine that is
            not installed.
    """

    def __init__(
        self,
        path: str | Path,
        engine: str | None = None,
        threads: int | None = None,
        **options: Any,
    ):
        path = Path(path)
        kind = engine or OF_SUFFIX.get(path.suffix)
        if kind not in ENGINES:
            endings, names = ", ".join(OF_SUFFIX), ", ".join(ENGINES)
            raise Ada3DError(
                f"Session: {path}: engine={engine!r}; a file ends with {endings}, engines are {names}"
            )
        if not path.is_file():
            raise Ada3DError(f"Session: no file at {path}; tools/export.py writes one")
        if threads is not None:
            require_number("Session: threads", threads, 1, whole=True)
        self.engine_name, self.path = kind, path
        self._made_by = (os.path.abspath(path), engine, threads, options)
        self._process = os.getpid()
        self.engine: Engine = ENGINES[kind](path, threads, **options)
        self.description: Description = contract.read_description(
            self.engine.description(), str(path)
        )

    def __call__(
        self,
        clips: Any,
        policy: Any = None,
        threshold: float | None = None,
        exit: float | None = None,
    ) -> np.ndarray:
        """Score clips.

        Args:
            clips: floating [N, C, T, H, W], normalised as the recognizer wants them.
            policy: of N clips, with ``frames`` bool [N, T] and ``stages`` bool [N, K] (a `Decision`,
                or `ada3d_fx.Policy`). None: the selection network decides; in a file without one,
                the full policy.
            threshold: what the selection network's probabilities must exceed; None: the file's.
            exit: the confidence that a clip must exceed to exit, in files that predict with both;
                1: none exits; None: the file's. Clips of a given policy exit if they have no frame.

        Returns:
            float32 [N, classes], in the order of ``clips``.

        Raises:
            Ada3DError: clips of another shape, a policy that the plan does not allow, or a threshold
                without a selection network.
        """
        return self.run(clips, policy, threshold, exit).scores

    def decide(
        self, clips: Any, threshold: float | None = None, exit: float | None = None
    ) -> Decision:
        """Return the selection network's policies; the recognizer does not run.

        Args:
            clips: as in a call.
            threshold: as in a call.
            exit: as in a call; clips that exit have no frame.

        Raises:
            Ada3DError: there is no selection network in the file, or clips of another shape.
        """
        if not self.description.selects:
            raise Ada3DError("Session: this file has no selection network; it decides nothing")
        inputs = self._inputs(clips, None, threshold, exit)
        inputs[contract.SCORE] = np.array(False)
        names = (contract.CHOSEN_FRAMES, contract.CHOSEN_STAGES)
        return Decision(*self._run(inputs, names))

    def run(
        self,
        clips: Any,
        policy: Any = None,
        threshold: float | None = None,
        exit: float | None = None,
    ) -> Outcome:
        """Score clips, and return the executed policies too; see a call."""
        inputs = self._inputs(clips, policy, threshold, exit)
        if self.description.selects:
            names = (contract.SCORES, contract.CHOSEN_FRAMES, contract.CHOSEN_STAGES)
            scores, frames, stages = self._run(inputs, names)
            return Outcome(scores, Decision(frames, stages))
        (scores,) = self._run(inputs, (contract.SCORES,))
        if self.description.fixed is None:
            return Outcome(scores, Decision(inputs[contract.FRAMES], inputs[contract.STAGES]))
        return Outcome(scores, self._full(len(scores)))

    def price(self, policy: Any) -> np.ndarray:
        """Return the recognizer's multiply-adds under a policy, int64 [N].

        Raises:
            Ada3DError: a policy that the plan does not allow.
        """
        frames, _ = (policy.frames, policy.stages) if hasattr(policy, "frames") else policy
        return self.description.price(*contract.check_policy(policy, len(frames), self.description))

    def _run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        if os.getpid() != self._process:
            raise Ada3DError(
                f"Session: {self.path} was opened before this process was forked, and the engine's "
                "threads are not in it; make a Session in each process"
            )
        return self.engine.run(inputs, outputs)

    def __reduce__(self) -> tuple:
        return _opened, self._made_by

    def _inputs(
        self, clips: Any, policy: Any, threshold: float | None, exit: float | None
    ) -> dict[str, np.ndarray]:
        described = self.description
        inputs = {contract.CLIPS: contract.check_clips(clips, described)}
        n = len(inputs[contract.CLIPS])
        if policy is not None:
            chosen = contract.check_policy(policy, n, described)
        elif described.selects:
            chosen = self._full(0)
        elif described.fixed is None:
            chosen = self._full(n)
        if described.fixed is None:
            inputs[contract.FRAMES], inputs[contract.STAGES] = chosen
        if described.selects:
            level = described.threshold if threshold is None else threshold
            require_number("Session: threshold", level, 0.0, 1.0)
            if level in (0, 1):
                raise Ada3DError(f"Session: threshold={level}; expected a number between 0 and 1")
            inputs[contract.THRESHOLD] = np.array(level, dtype=np.float32)
            inputs[contract.SCORE] = np.array(True)
        elif threshold is not None:
            raise Ada3DError("Session: a threshold is for a file with a selection network")
        if described.predict_with == "both":
            level = exit if exit is not None else described.exit or 1.0
            require_number("Session: exit", level, 0.0, 1.0, above=True)
            inputs[contract.EXIT] = np.array(level, dtype=np.float32)
        elif exit is not None:
            raise Ada3DError("Session: exit is for a file that predicts with both networks")
        return inputs

    def _full(self, n: int) -> Decision:
        described = self.description
        stages = (True,) * len(described.stages) if described.fixed is None else described.fixed[1]
        frames = np.ones((n, described.num_frames), dtype=bool)
        return Decision(frames, np.tile(np.array(stages, dtype=bool), (n, 1)))

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.description.clip_shape))
        return f"Session({self.engine_name}: clips {shape}, {self.description.num_classes} classes)"


def _opened(path: str, engine: str | None, threads: int | None, options: dict) -> Session:
    return Session(path, engine, threads, **options)


def inputs_of(description: Description) -> Mapping[str, tuple[str, list[int | str]]]:
    """Return name -> type and shape of the graph's inputs, for services in other languages."""
    channels, _, height, width = description.clip_shape
    t, k = description.num_frames, len(description.stages)
    inputs: dict[str, tuple[str, list[int | str]]] = {
        contract.CLIPS: ("float32", ["N", channels, t, height, width])
    }
    if description.fixed is None:
        inputs[contract.FRAMES] = ("bool", ["N" if not description.selects else "N or 0", t])
        inputs[contract.STAGES] = ("bool", ["N" if not description.selects else "N or 0", k])
    if description.selects:
        inputs[contract.THRESHOLD], inputs[contract.SCORE] = ("float32", []), ("bool", [])
    if description.predict_with == "both":
        inputs[contract.EXIT] = ("float32", [])
    return inputs
