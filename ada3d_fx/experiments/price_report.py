"""A recognizer with its prices and its selection network's, and what they say in words."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict

import torch
from mmengine.config import Config

from ..convert import convert
from ..cost.executed import executed
from ..cost.payoff import Payoff, payoff
from ..cost.price import PriceTable, price_table
from ..cost.selector import selector_price
from ..errors import Ada3DError
from ..mm.build import build_recognizer, build_selector
from ..mm.config import clip_shape_of, recognizer_config
from ..policy import Policy
from ..progress import Console, quiet
from ..report import tables

PAPERS_SELECTOR = {"type": "SelectionNetwork", "head": {"type": "MeanHead"}, "input_size": 112}
POLICY_COLUMNS = (
    *(("name", "policies", "{}"), ("clips", "clips", "{}"), ("gmacs", "GMACs", "{:.5g}")),
    *(("gmacs_p10", "10 %", "{:.5g}"), ("gmacs_p50", "50 %", "{:.5g}")),
    *(("gmacs_p90", "90 %", "{:.5g}"), ("total", "with selection", "{:.5g}")),
    *(("share", "of original", "{:.3f}"), ("stages", "#3D", "{:.2f}")),
    *(("frames", "#Frame", "{:.2f}"), ("distinct", "distinct", "{}")),
)


class PriceReport:
    """A config's recognizer with its prices, and its selection network's.

    Args:
        config: an Ada3D config or a plain recognizer's.
        clip_shape: (C, T, H, W); None: as the config says.
        convention: what counts, one of `cost.count.CONVENTIONS`.
        selector: price a selection network too: the config's, or else the paper's.
        views: clips per video.
        console: where progress is shown.

    Raises:
        Ada3DError: a recognizer that cannot be built or converted, or no shape of a clip.
    """

    def __init__(
        self, config: Config, clip_shape: tuple[int, int, int, int] | None = None,
        convention: str = "fvcore", selector: bool = True, views: int = 1,
        console: Console | None = None,
    ):  # fmt: skip
        self.convention, self.views, self.seconds = convention, views, {}
        options = config.model if config.model.get("type") == "Ada3DRecognizer" else {}
        shape = tuple(clip_shape or options.get("clip_shape") or clip_shape_of(config))
        plain = recognizer_config(options.get("recognizer") or config.model)
        with quiet():
            recognizer = build_recognizer(plain).eval()
            start = time.monotonic()
            self.adaptive = convert(recognizer, shape, **(options.get("convert_options") or {}))
        self.seconds["conversion"] = time.monotonic() - start
        start = time.monotonic()
        console = console or Console()
        self.table: PriceTable = price_table(self.adaptive, convention).complete(
            lambda lengths: console.track(lengths, "counting the price of each number of frames")
        )
        self.seconds["price table"] = time.monotonic() - start
        self.plan = self.adaptive.plan
        self.selector, self.selector_name = 0, "none"
        if selector:
            self._price_selector(options.get("selector"), shape)
        self.payoff: Payoff = payoff(self.table, self.selector)

    def _price_selector(self, config: Mapping | None, shape: tuple[int, ...]) -> None:
        options = {**(config or PAPERS_SELECTOR), "weights": None, "pretrain": False}
        name = options.get("backbone", {}).get("type", "mobilenet_v2").rpartition(".")[2]
        size = options.get("input_size", 112)
        self.selector_name = f"{name} on {size}x{size}" + ("" if config else " (the paper's)")
        if shape[0] not in (3, 6):  # 6: frames and their differences, which it leaves out
            raise Ada3DError(
                f"the selection network looks at RGB frames, but these clips have {shape[0]} "
                "channels; try --selector off"
            )
        selector = build_selector(options, self.plan)
        self.selector = selector_price(selector, shape, self.convention)

    # ----------------------------------------------------------------------------------- rows

    def policy_row(self, name: str, policy: Policy, exits: int = 0, num_executed: int = 0) -> dict:
        """Return what policies cost: GMACs per clip, their percentiles, and what they use.

        Args:
            name: the row's name.
            policy: the policies of its clips.
            exits: so many more clips cost the selection network only.
            num_executed: count too what the packed program runs for so many of them.
        """
        none = torch.zeros(exits, dtype=torch.float64)
        prices = self.table.look_up(policy.num_frames, policy.stages).double() / 1e9
        prices = torch.cat([prices, none])
        low, middle, high = (torch.quantile(prices, share).item() for share in (0.1, 0.5, 0.9))
        total = prices.mean().item() + self.selector / 1e9
        row = {
            "name": name,
            "clips": len(prices),
            "gmacs": prices.mean().item(),
            "gmacs_p10": low,
            "gmacs_p50": middle,
            "gmacs_p90": high,
            "total": total,
            "share": total / (self.table.full / 1e9),
            "per_video": total * self.views,
            "stages": torch.cat([policy.num_stages, none]).mean().item(),
            "frames": torch.cat([policy.num_frames, none]).mean().item(),
            "distinct": policy.num_distinct,
            "exited": exits / len(prices),
        }
        if num_executed and len(policy):
            counted = executed(self.adaptive, policy[:num_executed])
            row["executed"] = asdict(counted) | {"clips": min(num_executed, len(policy))}
        return row

    def price_list(self) -> list[dict]:
        """Return a row for each number of kept frames: all 2D, what each stage adds, all 3D."""
        rows = []
        for length in self.table.lengths:
            row = {"frames": length, "base": int(self.table.base[length])}
            for stage, value in zip(self.plan.stages, self.table.stages[length].tolist()):
                row[f"+{stage.name}"] = value
            row["full"] = row["base"] + int(self.table.stages[length].sum())
            rows.append(row)
        return rows

    def every_policy(self) -> list[dict]:
        """Return a row for each number of kept frames and each combination of stages."""
        return [
            {
                "frames": length,
                "stages": "".join("1" if bit else "0" for bit in on),
                "macs": value,
                "with_selector": value + self.selector,
            }
            for length, on, value in self.table.every()
        ]

    # ---------------------------------------------------------------------------------- words

    def text(self) -> str:
        """Tell plan, price list, what is not counted, and whether the selection can pay."""
        names = [f"+{stage.name}" for stage in self.plan.stages]
        columns = (
            ("frames", "frames", "{}"), ("base", "all 2D", "{:.5g}"),
            *((name, name, "{:.4g}") for name in names),
            ("full", "all 3D", "{:.5g}"), ("total", "with selection", "{:.5g}"),
        )  # fmt: skip
        rows = [
            {
                **{key: value / 1e9 for key, value in row.items()},
                "frames": row["frames"],
                "total": (row["full"] + self.selector) / 1e9,
            }
            for row in self.price_list()
        ]
        unit = f"GMACs per clip ({self.convention}'s convention)"
        prices = f"{unit}:\n{tables.table(rows, columns)}"
        return "\n\n".join([str(self.plan), prices, self._audit_text(), self._payoff_text()])

    def _audit_text(self) -> str:
        parts = [f"{n} {share:.1e}" for n, share in self.table.unsupported.items()]
        lines = [
            "not counted (no multiply-adds; elements made per multiply-add): "
            + (", ".join(parts).replace("aten::", "") or "nothing")
        ]
        if self.table.uncalled:
            lines.append(f"modules that no clip goes through: {', '.join(self.table.uncalled)}")
        return "\n".join(lines)

    def _payoff_text(self) -> str:
        saved = self.payoff
        frames, stages, both = (
            f"{100 * share:.1f} %"
            for share in (saved.frames_ceiling, saved.stages_ceiling, saved.ceiling)
        )
        lines = [
            f"original {saved.original / 1e9:.5g} GMACs; selection network {self.selector_name}: "
            f"{saved.selector / 1e9:.4g} ({100 * saved.selector / saved.original:.1f} %)",
            f"at most saved: by frames {frames}, by stages {stages}, by both {both}",
        ]
        for frame_share, stage_share, cost in saved.usages:
            lines.append(
                f"random policies of {100 * frame_share:.0f} % of the frames and "
                f"{100 * stage_share:.0f} % of the stages, selection network included: "
                f"{cost:.3f} of the original"
            )
        if self.views > 1:
            lines.append(
                f"a video of {self.views} clips: {self.views * saved.original / 1e9:.5g} "
                f"GMACs, its selection {self.views * saved.selector / 1e9:.4g}"
            )
        return "\n".join([*lines, f"verdict: {saved.verdict}"])
