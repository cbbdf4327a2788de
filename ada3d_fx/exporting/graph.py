"""The whole ONNX graph of an adaptive network: decide, and then score clip by clip.

    policy  = the given one, or the selection network's, in a Loop over the clips
    scores  = Loop over the clips:
        frames of the clip that are kept
        for each part: If its stage is on -> one branch, else -> the other

A loop costs next to nothing here: one clip is work enough for a CPU's cores, and nothing is padded to
the length of another clip or masked.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..convert import AdaptiveNetwork
from ..policy import Policy
from ..runtime import contract
from .branches import Branches
from .calibration import Calibration
from .int8 import quantized
from .joining import join
from .partition import partition
from .pieces import OPSET, Pieces, onnx
from .programs import Programs
from .switches import PartWriter


class GraphWriter:
    """Writes the graph of an adaptive network.

    Args:
        adaptive: the network, float32 on the CPU.
        decider: clips [N, C, T, H, W] and a threshold [] -> bool [N, T], bool [N, K] and, where it
            predicts too, class scores [N, classes]; None: policies are given.
        classifies: whether ``decider`` gives class scores, which are added to the recognizer's.
        int8: clips [N, C, T, H, W] and their policy, on whose values the recognizer is quantised;
            None: float32.
    """

    def __init__(
        self,
        adaptive: AdaptiveNetwork,
        decider: nn.Module | None = None,
        classifies: bool = False,
        int8: tuple[Tensor, Policy] | None = None,
    ):
        self.adaptive, self.plan, self.decider = adaptive, adaptive.plan, decider
        self.classifies = classifies
        self.int8 = int8
        self.pieces = Pieces()
        self.make = onnx().helper.make_node

    def write(self) -> Any:
        """Return the graph as an ONNX model, without a description.

        Raises:
            Ada3DError: an operation that ONNX has not.
        """
        helper, kinds = onnx().helper, onnx().TensorProto
        channels, frames, height, width = self.plan.clip_shape
        stages = self.plan.num_stages
        n = "N" if self.decider is None else "P"  # the policy's clips: N, or 0 where it is inside
        info = helper.make_tensor_value_info
        inputs = [
            info(contract.CLIPS, kinds.FLOAT, ["N", channels, frames, height, width]),
            info(contract.FRAMES, kinds.BOOL, [n, frames]),
            info(contract.STAGES, kinds.BOOL, [n, stages]),
        ]
        outputs = [info(contract.SCORES, kinds.FLOAT, ["M", "classes"])]
        nodes = [
            self.make("Shape", [contract.CLIPS], ["clips_shape"], start=0, end=1),
            self.make("Squeeze", ["clips_shape", self.pieces.vector(0)], ["num_clips"]),
        ]
        if self.decider is not None:
            inputs.append(info(contract.THRESHOLD, kinds.FLOAT, []))
            inputs.append(info(contract.SCORE, kinds.BOOL, []))
            if self.classifies:
                inputs.append(info(contract.EXIT, kinds.FLOAT, []))
            outputs.append(info(contract.CHOSEN_FRAMES, kinds.BOOL, ["N", frames]))
            outputs.append(info(contract.CHOSEN_STAGES, kinds.BOOL, ["N", stages]))
            nodes += self._decide()
        nodes += self._score()
        weights = list(self.pieces.weights.values())
        graph = helper.make_graph(nodes, "ada3d", inputs, outputs, weights)
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(
            graph, opset_imports=[opset], ir_version=8, producer_name="ada3d_fx"
        )

    # ---------------------------------------------------------------------------------- policies

    def _decide(self) -> list[Any]:
        """Take the policy that is given, or the selection network's, which decides clip by clip."""
        helper, kinds = onnx().helper, onnx().TensorProto
        clip = torch.zeros(1, *self.plan.clip_shape)
        assert self.decider is not None
        levels = [contract.THRESHOLD, *([contract.EXIT] if self.classifies else [])]
        inputs = [clip, *(torch.tensor(0.5) for _ in levels)]
        traced = self.pieces.trace(self.decider, inputs, {}, "the selection network")
        own = ["own_frames", "own_stages", "own_scores"][: 3 if self.classifies else 2]
        rows = [f"{name}_row" for name in own]
        body = [
            self.make("Gather", [contract.CLIPS, "own_number"], ["own_clip"], axis=0),
            self.make("Unsqueeze", ["own_clip", self.pieces.vector(0)], ["own_clips"]),
            *self.pieces.place(traced, "selector/", ["own_clips", *levels], rows),
            *(self.make("Squeeze", [r, self.pieces.vector(0)], [f"{r}_of_clip"]) for r in rows),
            self.make("Identity", ["own_go_on"], ["own_goes_on"]),
        ]
        info = helper.make_tensor_value_info
        sizes = (self.plan.num_frames, self.plan.num_stages, "classes")
        types = (kinds.BOOL, kinds.BOOL, kinds.FLOAT)
        loop = helper.make_graph(
            body,
            "one_decision",
            [info("own_number", kinds.INT64, []), info("own_go_on", kinds.BOOL, [])],
            [
                info("own_goes_on", kinds.BOOL, []),
                *(info(f"{r}_of_clip", kind, [size]) for r, kind, size in zip(rows, types, sizes)),
            ],
        )
        ends = [contract.CHOSEN_FRAMES, contract.CHOSEN_STAGES]
        sides = []
        for word, names in (("given", [contract.FRAMES, contract.STAGES]), ("own", own[:2])):
            taken = [f"{word}_{end}" for end in ends]
            nodes = [self.make("Identity", [n], [t]) for n, t in zip(names, taken)]
            sides.append(self._branch(word, nodes, taken, kinds.BOOL))
        count = "num_clips" if self.classifies else "num_decided"
        return [
            self.make("Shape", [contract.FRAMES], ["given_shape"], start=0, end=1),
            self.make("Squeeze", ["given_shape", self.pieces.vector(0)], ["num_given"]),
            self.make("Greater", ["num_given", self.pieces.scalar(0)], ["is_given"]),
            self.make("Where", ["is_given", self.pieces.scalar(0), "num_clips"], ["num_decided"]),
            self.make("Loop", [count, self.pieces.scalar(True)], own, body=loop),
            self.make("If", ["is_given"], ends, then_branch=sides[0], else_branch=sides[1]),
        ]

    # ------------------------------------------------------------------------------------ scores

    def _score(self) -> list[Any]:
        """Score the clips one after the other."""
        helper, kinds = onnx().helper, onnx().TensorProto
        frames, stages = (
            (contract.FRAMES, contract.STAGES)
            if self.decider is None
            else (contract.CHOSEN_FRAMES, contract.CHOSEN_STAGES)
        )
        body = [
            self.make("Gather", [contract.CLIPS, "clip_number"], ["clip"], axis=0),
            self.make("Gather", [frames, "clip_number"], ["clip_frames"], axis=0),
            self.make("Gather", [stages, "clip_number"], ["clip_stages"], axis=0),
            self.make("NonZero", ["clip_frames"], ["kept_rows"]),
            self.make("Reshape", ["kept_rows", self.pieces.vector(-1)], ["kept"]),
            self.make("Shape", ["kept"], ["kept_shape"]),
            self.make("Squeeze", ["kept_shape", self.pieces.vector(0)], ["num_kept"]),
        ]
        body += self._sum_or_exit() if self.classifies else self._recognize("clip_scores")
        body.append(self.make("Identity", ["go_on"], ["goes_on"]))
        info = helper.make_tensor_value_info
        loop = helper.make_graph(
            body,
            "one_clip",
            [info("clip_number", kinds.INT64, []), info("go_on", kinds.BOOL, [])],
            [info("goes_on", kinds.BOOL, []), info("clip_scores", kinds.FLOAT, ["classes"])],
        )
        count = "num_clips"
        nodes = []
        if self.decider is not None:
            count = "num_scored"
            nodes.append(
                self.make("Where", [contract.SCORE, "num_clips", self.pieces.scalar(0)], [count])
            )
        nodes.append(
            self.make("Loop", [count, self.pieces.scalar(True)], [contract.SCORES], body=loop)
        )
        return nodes

    def _sum_or_exit(self) -> list[Any]:
        """Add both networks' scores of a clip; of one without a frame, which exits, take one's."""
        stays = [
            *self._recognize("recognized"),
            self.make("Add", ["recognized", "classified"], ["both_scores"]),
        ]
        exits = [self.make("Identity", ["classified"], ["exit_scores"])]
        kind = onnx().TensorProto.FLOAT
        sides = {
            "then_branch": self._branch("stays", stays, ["both_scores"], kind),
            "else_branch": self._branch("exits", exits, ["exit_scores"], kind),
        }
        return [
            self.make("Gather", ["own_scores", "clip_number"], ["classified"], axis=0),
            self.make("Greater", ["num_kept", self.pieces.scalar(0)], ["stays"]),
            self.make("If", ["stays"], ["clip_scores"], **sides),
        ]

    def _recognize(self, end: str) -> list[Any]:
        """Score one clip by its kept frames."""
        nodes = [
            self.make("Gather", ["clip", "kept"], ["kept_frames"], axis=1),
            self.make("Unsqueeze", ["kept_frames", self.pieces.vector(0)], ["value_clips"]),
            self.make("Unsqueeze", ["kept", self.pieces.vector(0)], ["value_times"]),
        ]
        programs = Programs(self.adaptive)
        branches = join(Branches(programs, partition(programs)))
        parts = branches.parts
        first = dict(zip(programs.inputs, ("value_clips", "value_times")))
        calibration = None if self.int8 is None else Calibration(*self.int8, branches)
        writer = PartWriter(self.pieces, branches, first, calibration)
        for number, part in enumerate(parts):
            nodes += writer.write(number, part)
        (scores,) = parts[-1].outputs
        return [*nodes, self.make("Squeeze", [writer.names[scores], self.pieces.vector(0)], [end])]

    def _branch(self, name: str, nodes: list[Any], outputs: list[str], kind: int) -> Any:
        """A side of an If."""
        helper = onnx().helper
        ends = [helper.make_tensor_value_info(output, kind, None) for output in outputs]
        return helper.make_graph(nodes, name, [], ends)


def fixed_graph(module: nn.Module, clip: Tensor, int8: Tensor | None = None) -> Any:
    """Return a network of one fixed policy as an ONNX model; the number of clips is free.

    Args:
        module: what `specialize` made.
        clip: [1, C, T, H, W], of its length.
        int8: [N, C, T, H, W], on whose values it is quantised; None: float32.

    Raises:
        Ada3DError: an operation that ONNX has not.
    """
    helper, kinds = onnx().helper, onnx().TensorProto
    pieces = Pieces()
    traced = pieces.trace(module, [clip], {0: (0,)}, "the network")
    if int8 is not None:
        traced = quantized(traced, [[one] for one in int8.split(1)], "the network")
    nodes = pieces.place(traced, "", [contract.CLIPS], [contract.SCORES])
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "ada3d",
        [info(contract.CLIPS, kinds.FLOAT, ["N", *clip.shape[1:]])],
        [info(contract.SCORES, kinds.FLOAT, ["N", "classes"])],
        list(pieces.weights.values()),
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8, producer_name="ada3d_fx")
