#!/usr/bin/env python
"""What a recognizer's policies cost, and whether Ada3D can pay for it, before any training.

    python tools/analyze_flops.py CONFIG [--policy full | 11011010/10100 | 5/10100 |
        random:frames=0.7,stages=0.4,seed=0,n=1000 | policies.json] [--all] [--plot PRICES.png]
    python tools/analyze_flops.py --zoo i3d,x3d

Takes Ada3D configs and plain recognizers' configs; neither data nor checkpoints are read. Without
a selection network in the config it takes the paper's, MobileNetV2 on frames of 112x112.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from mmengine.config import Config, DictAction

import ada3d_fx.mm  # noqa: F401  makes the published mmaction2 importable
from ada3d_fx import Ada3DError, Policy, convert, price_table, specialize
from ada3d_fx.cli import quiet, user_errors, versions
from ada3d_fx.cost.count import CONVENTIONS, count
from ada3d_fx.cost.executed import executed
from ada3d_fx.cost.payoff import Payoff, payoff
from ada3d_fx.cost.price import PriceTable
from ada3d_fx.cost.selector import selector_price
from ada3d_fx.mm.build import build_recognizer, build_selector
from ada3d_fx.mm.config import clip_shape_of, load_config, parse_shape, recognizer_config
from ada3d_fx.mm.zoo import listed_flops
from ada3d_fx.passes.shadow import dtype_of
from ada3d_fx.report import figures, records, tables

PAPERS_SELECTOR = {"type": "SelectionNetwork", "head": {"type": "MeanHead"}, "input_size": 112}
POLICY_COLUMNS = (
    *(("name", "policies", "{}"), ("clips", "clips", "{}"), ("gmacs", "GMACs", "{:.5g}")),
    *(("gmacs_p10", "10 %", "{:.5g}"), ("gmacs_p50", "50 %", "{:.5g}")),
    *(("gmacs_p90", "90 %", "{:.5g}"), ("total", "with selection", "{:.5g}")),
    *(("share", "of original", "{:.3f}"), ("stages", "#3D", "{:.2f}")),
    *(("frames", "#Frame", "{:.2f}"), ("distinct", "distinct", "{}")),
)
ZOO_COLUMNS = (
    *(("config", "config", "{}"), ("count", "alike", "{}"), ("label", "labelled", "{}")),
    *(("shape", "counted at", "{}"), ("listed", "MMAction2 lists", "{:.5g}")),
    *(("gmacs", "fvcore, 10^9", "{:.5g}"), ("ratio", "ratio", "{:.3f}")),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(__doc__.splitlines()[2:]),
    )  # fmt: skip
    parser.add_argument("config", nargs="?", help="an Ada3D config or a plain recognizer's")
    parser.add_argument(
        "--policy", action="append", default=[], help="price these; may be repeated"
    )
    parser.add_argument("--all", action="store_true", help="price every policy there is")
    parser.add_argument(
        "--shape", help="C,T,H,W of a clip (else as the config's test pipeline says)"
    )
    parser.add_argument("--views", type=int, default=1, help="clips per video")
    parser.add_argument("--selector", choices=["on", "off"], default="on")
    parser.add_argument("--convention", choices=list(CONVENTIONS), default="fvcore")
    parser.add_argument(
        "--executed", type=int, default=0, metavar="N",
        help="count too what the packed program runs for the first N clips of each --policy",
    )  # fmt: skip
    parser.add_argument("--times", action="store_true", help="time conversion, table and look-up")
    parser.add_argument("--json", help="write everything to this file")
    parser.add_argument(
        "--csv", help="write the priced policies (else the price list) to this file"
    )
    parser.add_argument("--plot", help="draw price over frames, and the cost by stage")
    parser.add_argument("--zoo", help="compare MMAction2's own figures for these families, a,b,...")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, help="config entries to set, as key=value"
    )
    args = parser.parse_args()
    if (args.config is None) == (args.zoo is None):
        parser.error("give a CONFIG, or --zoo FAMILIES")
    return args


class Analysis:
    """A config's recognizer with its prices, and its selection network's."""

    def __init__(self, args: argparse.Namespace, config: Config):
        self.args, self.config, self.seconds = args, config, {}
        options = config.model if config.model.get("type") == "Ada3DRecognizer" else {}
        shape = parse_shape(args.shape) if args.shape else options.get("clip_shape")
        shape = tuple(shape or clip_shape_of(config))
        plain = recognizer_config(options.get("recognizer") or config.model)
        with quiet():
            recognizer = build_recognizer(plain).eval()
            start = time.monotonic()
            self.adaptive = convert(recognizer, shape, **(options.get("convert_options") or {}))
        self.seconds["conversion"] = time.monotonic() - start
        start = time.monotonic()
        self.table: PriceTable = price_table(self.adaptive, args.convention).complete()
        self.seconds["price table"] = time.monotonic() - start
        self.plan = self.adaptive.plan
        self.selector, self.selector_name = 0, "none"
        if args.selector == "on":
            self._price_selector(options.get("selector"), shape)
        self.payoff: Payoff = payoff(self.table, self.selector)

    def _price_selector(self, config: Mapping | None, shape: tuple[int, ...]) -> None:
        options = {**(config or PAPERS_SELECTOR), "weights": None, "pretrain": False}
        name = options.get("backbone", {}).get("type", "mobilenet_v2").rpartition(".")[2]
        size = options.get("input_size", 112)
        self.selector_name = f"{name} on {size}x{size}" + ("" if config else " (the paper's)")
        if shape[0] != 3:
            raise Ada3DError(
                f"the selection network looks at RGB frames, but these clips have {shape[0]} "
                "channels; try --selector off"
            )
        selector = build_selector(options, self.plan)
        self.selector = selector_price(selector, shape, self.args.convention)

    # --------------------------------------------------------------------------------- policies

    def policies(self) -> dict[str, Policy]:
        """What --policy asks for, by its text."""
        return {text: read_policy(text, self.adaptive) for text in self.args.policy}

    def policy_row(self, name: str, policy: Policy) -> dict:
        prices = self.table.look_up(policy.num_frames, policy.stages).double() / 1e9
        low, middle, high = (torch.quantile(prices, share).item() for share in (0.1, 0.5, 0.9))
        total = prices.mean().item() + self.selector / 1e9
        row = {
            "name": name,
            "clips": len(policy),
            "gmacs": prices.mean().item(),
            "gmacs_p10": low,
            "gmacs_p50": middle,
            "gmacs_p90": high,
            "total": total,
            "share": total / (self.table.full / 1e9),
            "per_video": total * self.args.views,
            "stages": policy.num_stages.double().mean().item(),
            "frames": policy.num_frames.double().mean().item(),
            "distinct": policy.num_distinct,
        }
        if self.args.executed:
            found = executed(self.adaptive, policy[: self.args.executed])
            row["executed"] = asdict(found) | {"clips": min(self.args.executed, len(policy))}
        return row

    # ----------------------------------------------------------------------------------- output

    def price_list(self) -> list[dict]:
        """A row for each number of kept frames: all 2D, what each stage adds, all 3D."""
        rows = []
        for length in self.table.lengths:
            row = {"frames": length, "base": int(self.table.base[length])}
            for stage, value in zip(self.plan.stages, self.table.stages[length].tolist()):
                row[f"+{stage.name}"] = value
            row["full"] = row["base"] + int(self.table.stages[length].sum())
            rows.append(row)
        return rows

    def text(self) -> str:
        giga = f"GMACs per clip ({self.args.convention}'s convention)"
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
        return "\n\n".join(
            [
                str(self.plan),
                f"{giga}:\n{tables.table(rows, columns)}",
                self.audit_text(),
                self.payoff_text(),
            ]
        )

    def audit_text(self) -> str:
        parts = [f"{n} {share:.1e}" for n, share in self.table.unsupported.items()]
        lines = [
            "not counted (no multiply-adds; elements made per multiply-add): "
            + (", ".join(parts).replace("aten::", "") or "nothing")
        ]
        if self.table.uncalled:
            lines.append(f"modules that no clip goes through: {', '.join(self.table.uncalled)}")
        return "\n".join(lines)

    def payoff_text(self) -> str:
        found = self.payoff
        percent = {name: f"{100 * getattr(found, name):.1f} %" for name in
                   ("frames_ceiling", "stages_ceiling", "ceiling")}  # fmt: skip
        lines = [
            f"original {found.original / 1e9:.5g} GMACs; selection network {self.selector_name}: "
            f"{found.selector / 1e9:.4g} ({100 * found.selector / found.original:.1f} %)",
            f"at most saved: by frames {percent['frames_ceiling']}, by stages "
            f"{percent['stages_ceiling']}, by both {percent['ceiling']}",
        ]
        for frames, stages, share in found.usages:
            lines.append(
                f"random policies of {100 * frames:.0f} % of the frames and {100 * stages:.0f} % of "
                f"the stages, selection network included: {share:.3f} of the original"
            )
        if self.args.views > 1:
            lines.append(
                f"a video of {self.args.views} clips: {self.args.views * found.original / 1e9:.5g} "
                f"GMACs, its selection {self.args.views * found.selector / 1e9:.4g}"
            )
        return "\n".join([*lines, f"verdict: {found.verdict}"])


def read_policy(text: str, adaptive) -> Policy:
    """``full``, ``random:...``, FRAMES/STAGES (bits, or a number of frames), or a file that
    tools/test.py wrote.

    Raises:
        Ada3DError: none of these, or one that the plan does not allow.
    """
    plan = adaptive.plan
    kind, _, options = text.partition(":")
    if kind == "full":
        policy = Policy.full(plan, 1)
    elif kind == "random":
        policy = random_policy(text, options, plan)
    elif Path(text).suffix in (".json", ".csv"):
        policy = records.policies_of(records.read_clips(text))
    else:
        policy = literal_policy(text, plan)
    adaptive.check(policy, len(policy))
    return policy


def random_policy(text: str, options: str, plan) -> Policy:
    values = {"frames": 0.7, "stages": 0.4, "seed": 0, "n": 1000}
    for item in filter(None, options.split(",")):
        name, _, value = item.partition("=")
        try:
            values[name] = type(values[name])(value)
        except (KeyError, ValueError) as error:
            raise Ada3DError(
                f"--policy {text}: {item!r}; try random:frames=0.7,stages=0.4,seed=0,n=1000"
            ) from error
    generator = torch.Generator().manual_seed(values["seed"])
    return Policy.random(plan, values["n"], values["frames"], values["stages"], generator)


def literal_policy(text: str, plan) -> Policy:
    frames, _, stages = text.partition("/")
    if len(frames) != plan.num_frames and frames.isdigit() and int(frames) <= plan.num_frames:
        frames = "1" * int(frames) + "0" * (plan.num_frames - int(frames))
    wanted = (plan.num_frames, plan.num_stages)
    if (len(frames), len(stages)) != wanted or set(frames + stages) - {"0", "1"}:
        raise Ada3DError(
            f"--policy {text}: expected full, random:..., a file of tools/test.py, or {wanted[0]} "
            f"bits (or a number of frames), a slash and {wanted[1]} bits, such as "
            f"{'1' * wanted[0]}/{'1' * wanted[1]}"
        )
    bits = [torch.tensor([[bit == "1" for bit in part]], dtype=torch.bool).view(1, -1)
            for part in (frames, stages)]  # fmt: skip
    return Policy(*bits)


def all_policies(analysis: Analysis) -> list[dict]:
    return [
        {
            "frames": length,
            "stages": "".join("1" if bit else "0" for bit in on),
            "macs": value,
            "with_selector": value + analysis.selector,
        }
        for length, on, value in analysis.table.every()
    ]


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def times(analysis: Analysis) -> dict[str, float]:
    """Seconds: what a price costs here, and what it would cost to trace each policy."""
    adaptive, plan = analysis.adaptive, analysis.plan
    generator = torch.Generator().manual_seed(0)
    batch = Policy.random(plan, 64, 0.7, 0.4, generator)
    static = specialize(adaptive, plan.num_frames, [True] * plan.num_stages)
    clip = torch.zeros(1, *plan.clip_shape, dtype=dtype_of(static))

    def look_up(policy: Policy) -> Callable[[], object]:
        return lambda: analysis.table.look_up(policy.num_frames, policy.stages)

    def fvcore() -> int:
        from fvcore.nn import FlopCountAnalysis

        with torch.no_grad():
            found = FlopCountAnalysis(static, clip).unsupported_ops_warnings(False)
            return found.uncalled_modules_warnings(False).tracer_warnings("none").total()

    fvcore()
    return {
        "conversion": analysis.seconds["conversion"],
        f"price table ({len(analysis.table.lengths)} lengths)": analysis.seconds["price table"],
        "one trace without arithmetic": median_seconds(lambda: count(static, (clip,)), 3),
        "one trace by fvcore alone": median_seconds(fvcore, 3),
        "look-up, one clip": median_seconds(look_up(batch[0]), 1000),
        "look-up, 64 clips": median_seconds(look_up(batch), 1000),
    }


def picture(analysis: Analysis, path: str) -> None:
    """Price over kept frames, a line for each number of active stages; and the cost by stage."""
    plan, table = analysis.plan, analysis.table
    lengths = table.lengths
    lines = []
    for active in range(plan.num_stages + 1):
        dearest = table.stages[lengths].sort(1, descending=True).values[:, :active].sum(1)
        cheapest = table.stages[lengths].sort(1).values[:, :active].sum(1)
        base = table.base[lengths]
        band = [((base + part).double() / 1e9).tolist() for part in (cheapest, dearest)]
        lines.append(figures.Line(f"{active} of {plan.num_stages} stages 3D", *band))
    full = table.stages[-1].tolist()
    parts = {"2D part": int(table.base[-1])}
    parts |= {f"+ {stage.name}": value for stage, value in zip(plan.stages, full)}
    if analysis.selector:
        parts["selection"] = analysis.selector
    figures.draw_prices(
        lengths,
        lines,
        {name: value / 1e9 for name, value in parts.items()},
        path,
        title=f"{Path(analysis.args.config).stem}, clip {' x '.join(map(str, plan.clip_shape))}",
        original=table.full / 1e9,
        selector=analysis.selector / 1e9,
    )


def compare_zoo(args: argparse.Namespace) -> str:
    """fvcore's count beside the FLOPs that MMAction2 lists, at the input size that gives them."""
    rows: dict[tuple, dict] = {}
    for entry in listed_flops(args.zoo.split(",")):
        with quiet():
            model = build_recognizer(recognizer_config(entry.config.model)).eval()
            shape, full = entry.clip_shape, 0.0
            for _ in range(2):  # at the listed size, then at the one that its count points to
                full = price_table(convert(model, shape), args.convention).full / 1e9
                side = 16 * round(shape[2] * math.sqrt(entry.giga / full) / 16)
                if side in (0, shape[2]):
                    break
                shape = (*shape[:2], side, side)
        print(entry.name, file=sys.stderr)
        words = "x".join(map(str, shape[1:]))
        row = rows.setdefault((entry.giga, words, round(full, 3)), {"configs": []})
        row["configs"].append(Path(entry.name).stem)
        row |= {"config": row["configs"][0], "count": len(row["configs"]), "shape": words}
        row |= {"label": f"{entry.clip_shape[2]}x{entry.clip_shape[3]}", "listed": entry.giga}
        row |= {"gmacs": full, "ratio": full / entry.giga}
    if args.json:
        records.write_json(args.json, {"rows": list(rows.values()), "versions": versions()})
    return tables.table(list(rows.values()), ZOO_COLUMNS, markdown=True)


def write_csv(path: str, rows: list[dict]) -> None:
    with Path(path).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@user_errors
def main() -> None:
    args = parse_args()
    if args.zoo:
        print(compare_zoo(args))
        return
    analysis = Analysis(args, load_config(args.config, args.cfg_options))
    print(analysis.text())
    policies = analysis.policies()
    rows = [analysis.policy_row(name, policy) for name, policy in policies.items()]
    every = all_policies(analysis) if args.all else []
    if rows:
        print("\n" + tables.table(rows, POLICY_COLUMNS))
        for row in rows if args.executed else ():
            found = row["executed"]
            print(
                f"{row['name']}: {found['clips']} clips as one batch: price {found['price']:,}, "
                f"executed {found['macs']:,} multiply-adds; {found['copied']:,} elements copied"
            )
    if every:
        print("\n" + "\n".join(f"{r['frames']:3d} {r['stages']} {r['macs']:,}" for r in every))
    measured = times(analysis) if args.times else {}
    if measured:
        print("\nseconds:\n" + "\n".join(f"  {n}: {value:.3g}" for n, value in measured.items()))
    if args.csv:
        write_csv(args.csv, every or [without_dicts(row) for row in rows] or analysis.price_list())
    if args.json:
        write_report(args, analysis, rows, every, measured)
    if args.plot:
        picture(analysis, args.plot)


def write_report(
    args: argparse.Namespace, analysis: Analysis, policies: list[dict], every: list[dict],
    seconds: dict[str, float],
) -> None:  # fmt: skip
    found, table = analysis.payoff, analysis.table
    result = {
        "config": args.config,
        "clip_shape": list(analysis.plan.clip_shape),
        "convention": args.convention,
        "views": args.views,
        "plan": str(analysis.plan),
        "prices": analysis.price_list(),
        "selector": analysis.selector,
        "payoff": {**asdict(found), "pays": found.pays, "verdict": found.verdict},
        "unsupported": table.unsupported,
        "uncalled": table.uncalled,
        "policies": policies,
        "all": every,
        "seconds": seconds,
        "versions": versions(),
    }
    records.write_json(args.json, result)


def without_dicts(row: dict) -> dict:
    return {key: value for key, value in row.items() if not isinstance(value, dict)}


if __name__ == "__main__":
    sys.exit(main())
