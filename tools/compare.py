#!/usr/bin/env python
"""Upper, Random, Random FT, Ada3D and its ablations side by side, over seeds and folds.

    python tools/compare.py CONFIG --recognizer CHECKPOINT [--rows all] [--seeds 0,1,2]
        [--folds 0,1,2,3] [--variant NAME KEY=VALUE ...] [--work-dir DIR] [--pictures N]

Rows, as in tables 1, 5 and 6 of the paper:

- upper: the recognizer as it is, all frames and all stages;
- random: the same recognizer under random policies that cost what ada3d costs, its selection
  network included;
- random_ft: from the same recognizer, trained under such policies for as many steps as ada3d;
- ada3d: the config's own training phases, then the greedy policies;
- shuffled: ada3d's recognizer under ada3d's policies, dealt out among the clips at random;
- recognizer_only, recognizer_shuffled, selector_only: where the config predicts with both
  networks, ada3d and shuffled by the scores of one of them; the last without any policy;
- upper_both, random_ft_both: upper's and random_ft's recognizers, whose scores are added to those
  of ada3d's selection network; random policies such that both cost what ada3d costs;
- upper_ft: from the same recognizer, all frames and all stages, trained for as many steps as ada3d;
- no_phase1, no_phase2: without the selection network's own stage, without joint training;
- random_frames, random_stages: one of the two policies random, of ada3d's usage; the other learned;
- each --variant: ada3d with other config entries. It shares ada3d's warm-up if it changes nothing
  that a warm-up reads.

With a budget in the config, the threshold of greedy policies is set so that they cost it on the
training list. In CHECKPOINT, {fold} and {seed} stand for the run's. Every part leaves its result in
DIR and is not repeated: an interrupted comparison goes on where it stopped, more seeds and rows add to it, and
several processes may share DIR if they take different seeds or folds. Leaves DIR/report.json,
report.txt, report.md, usage.png, and with --pictures policies.png.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import find_latest_checkpoint

import ada3d_fx.mm  # noqa: F401  registers models, hooks and metrics
from ada3d_fx import Ada3DError, Policy
from ada3d_fx.cli import provenance, quiet, user_errors, versions
from ada3d_fx.mm.build import build_runner
from ada3d_fx.mm.checkpoint import load_recognizer, load_weights
from ada3d_fx.mm.checks import check_config
from ada3d_fx.mm.config import class_names, load_config, training_list
from ada3d_fx.mm.metric import row_of
from ada3d_fx.mm.testing import calibrate, examples, record_policies
from ada3d_fx.report import figures, records, statistics, tables
from ada3d_fx.report.statistics import DIFFERENCE_COLUMNS, aggregate, differences

USAGE_DRAWS = 4096  # random policies by whose mean price the budgets are matched
ROWS = ("upper", "random", "random_ft", "ada3d")
ABLATIONS = ("shuffled", "upper_ft", "no_phase1", "no_phase2", "random_frames", "random_stages")
SCORES = (
    *("recognizer_only", "recognizer_shuffled", "selector_only"),
    *("upper_both", "random_ft_both"),
)
EVERY_ROW = (*ROWS, *SCORES, *ABLATIONS)
NOTHING: Mapping = {}
PLAIN = {"testing.predict_with": "recognizer"}  # of rows without a selection network


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(__doc__.splitlines()[5:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="an Ada3D config")
    parser.add_argument("--recognizer", help="the trained plain recognizer (stage 0) to start from")
    parser.add_argument("--work-dir", help="where runs and report go")
    parser.add_argument("--rows", default=",".join(ROWS), help="a,b,..., or all")
    parser.add_argument("--seeds", default="0", help="random seeds, a,b,...")
    parser.add_argument("--folds", help="values of the config's `fold`, a,b,...")
    parser.add_argument(
        "--variant", nargs="+", action="append", default=[], dest="variants",
        metavar=("NAME", "KEY=VALUE"), help="one more row; may be given several times",
    )  # fmt: skip
    parser.add_argument("--pictures", type=int, default=0, help="draw the policies of N clips")
    parser.add_argument("--report-only", action="store_true", help="report what DIR holds already")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, help="config entries to set, as key=value"
    )
    args = parser.parse_args()
    args.all = args.rows == "all"
    args.rows = list(EVERY_ROW) if args.all else args.rows.split(",")
    unknown = [name for name in args.rows if name not in EVERY_ROW]
    if unknown:
        parser.error(f"--rows: {', '.join(unknown)}; there are {', '.join(EVERY_ROW)}")
    args.seeds, args.folds = numbers(parser, args.seeds), numbers(parser, args.folds)
    args.variants = {name: entries(pairs) for name, *pairs in args.variants}
    taken = [name for name in args.variants if name in EVERY_ROW]
    if taken or not all(args.variants.values()):
        parser.error("--variant takes a name of its own and config entries, NAME KEY=VALUE ...")
    args.rows += args.variants
    return args


def entries(pairs: list[str]) -> dict:
    """['key=value', ...], as --cfg-options takes them."""
    inner = argparse.ArgumentParser(prog="--variant")
    inner.add_argument("--set", nargs="+", action=DictAction)
    return inner.parse_args(["--set", *pairs]).set if pairs else {}


def numbers(parser: argparse.ArgumentParser, text: str | None) -> list:
    """'0,1' -> [0, 1]; nothing -> [None]."""
    try:
        return [int(part) for part in text.split(",")] if text else [None]
    except ValueError:
        return parser.error(f"{text}: --seeds and --folds take whole numbers, a,b,...")


class Run:
    """The rows of one seed and fold. A row's result is DIR/RUN/ROW/result.json: ``row`` (see
    `tables.COLUMNS`) and ``clips`` (see `report.POLICY_FIELDS`)."""

    def __init__(self, args: argparse.Namespace, seed: int, fold: int | None):
        options = dict(args.cfg_options or {}) | ({} if fold is None else {"fold": fold})
        self.config = load_config(args.config, options)
        if self.config.model.get("type") != "Ada3DRecognizer":
            raise Ada3DError(f"{args.config}: its model is no Ada3DRecognizer; nothing to compare")
        self.seed, self.fold, self.count = seed, fold, 0
        self.variants = getattr(args, "variants", {})
        self.name = f"seed{seed}" + ("" if fold is None else f"_fold{fold}")
        work_dir = args.work_dir or self.config.get("work_dir") or "work_dirs/compare"
        self.folder = Path(work_dir) / self.name
        self.warm_start = self.folder / "warmup"
        self.config.randomness = {**(self.config.get("randomness") or {}), "seed": seed}
        start = args.recognizer or self.config.model.get("recognizer_checkpoint")
        self.start = start and start.format(seed=seed, fold=fold)
        self.config.model.recognizer_checkpoint = self.start

    def check(self) -> None:
        if not self.start or not Path(self.start).is_file():
            raise Ada3DError(
                f"--recognizer: no trained recognizer at {self.start}; train stage 0 first"
            )
        check_config(self.config, ("train", "val", "test"))

    def result(self, name: str) -> dict | None:
        path = self.folder / name / "result.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def make(self, name: str) -> dict:
        """The row's result, made now if it is not there yet."""
        if (result := self.result(name)) is not None:
            return result
        if name in self.variants:
            return self._trained(name, phases_of(self._config(name, {})))
        return getattr(self, f"_{name}")()

    # ------------------------------------------------------------------------------------- rows

    def _upper(self) -> dict:
        return self._test("upper", self.start, {"testing.policy": "full", **PLAIN})

    def _ada3d(self) -> dict:
        return self._trained("ada3d", self.phases)

    def _random(self) -> dict:
        return self._test("random", self.start, {**self.random_options, **PLAIN})

    def _random_ft(self) -> dict:
        options = {**self.random_options, **PLAIN}
        return self._trained("random_ft", random_phases(self.phases), options)

    @property
    def random_options(self) -> dict:
        """Random policies that cost what ada3d costs."""
        return {"testing.policy": "random", "random_policy": self.usage}

    def _shuffled(self) -> dict:
        return self._under("shuffled", shuffled)

    def _recognizer_only(self) -> dict:
        return self._under("recognizer_only", options=PLAIN)

    def _recognizer_shuffled(self) -> dict:
        return self._under("recognizer_shuffled", shuffled, PLAIN)

    def _selector_only(self) -> dict:
        checkpoint = self.make("ada3d")["checkpoint"]
        return self._test("selector_only", checkpoint, {"testing.predict_with": "selector"})

    def _upper_both(self) -> dict:
        checkpoint = self.make("ada3d")["checkpoint"]
        options = {"testing.policy": "full", "testing.predict_with": "both"}
        return self._test("upper_both", checkpoint, options, recognizer=self.start)

    def _random_ft_both(self) -> dict:
        ours, theirs = self.make("ada3d"), self.make("random_ft")
        left = ours["row"]["gmacs"] - self.model.classifier_macs / 1e9
        options = {
            "testing.policy": "random",
            "testing.predict_with": "both",
            "random_policy": match_usage(self.model, **self.own_usage, gmacs=left),
        }
        return self._test(
            "random_ft_both", ours["checkpoint"], options, recognizer=theirs["checkpoint"]
        )

    def _upper_ft(self) -> dict:
        phases, everything = random_phases(self.phases), {"frames": 1.0, "stages": 1.0}
        unit = "epochs" if "epochs" in phases[-1] else "iters"
        steps = sum(phase[unit] for phase in phases)
        options = {"testing.policy": "full", "random_policy": everything, **PLAIN}
        return self._trained("upper_ft", [{**phases[-1], unit: steps}], options)

    def _no_phase1(self) -> dict:
        return self._trained("no_phase1", [s for s in self.phases if s["name"] != "selection"])

    def _no_phase2(self) -> dict:
        return self._trained("no_phase2", [s for s in self.phases if s["name"] != "joint"])

    def _random_frames(self) -> dict:
        options = {"random_part": "frames", "random_policy": self.own_usage}
        return self._trained("random_frames", self.phases, options)

    def _random_stages(self) -> dict:
        options = {"random_part": "stages", "random_policy": self.own_usage}
        return self._trained("random_stages", self.phases, options)

    # ------------------------------------------------------------------------------------ parts

    def _under(
        self,
        name: str,
        change: Callable[[Policy], Policy] = lambda same: same,
        options: Mapping | None = None,
    ) -> dict:
        """ada3d's networks under its own policies, or what ``change`` makes of them."""
        result = self.make("ada3d")
        policies = change(records.policies_of(result["clips"]))
        path = self.folder / name / "recorded.json"
        records.write_policies(path, [
            {**clip, **records.policy_words(frames, stages)}
            for clip, frames, stages in zip(result["clips"], policies.frames, policies.stages)
        ])  # fmt: skip
        recorded = {"testing.policy": "recorded", "testing.policy_file": str(path)}
        return self._test(name, result["checkpoint"], {**(options or {}), **recorded})

    @property
    def phases(self) -> list[dict]:
        """The config's training phases."""
        return phases_of(self.config)

    @cached_property
    def own_usage(self) -> dict[str, float]:
        """The fractions of frames and stages that ada3d uses."""
        row, model = self.make("ada3d")["row"], self.model
        return {
            "frames": row["frames"] / model.plan.num_frames,
            "stages": row["stages"] / max(model.plan.num_stages, 1),
        }

    @cached_property
    def usage(self) -> dict[str, float]:
        """Those at which random policies cost what ada3d costs, its selection network included."""
        gmacs = self.make("ada3d")["row"]["gmacs"]
        return match_usage(self.model, **self.own_usage, gmacs=gmacs)

    @cached_property
    def model(self):
        """The config's model: its plan and prices are used, not its weights."""
        with quiet():
            return self._runner("plan").model

    def _config(self, name: str | Path, model_options: Mapping) -> Config:
        """A copy of the config whose work dir is this path, or what has this name in the run's."""
        config = copy.deepcopy(self.config)
        config.merge_from_dict(self.variants.get(str(name), {}))
        config.merge_from_dict({f"model.{key}": value for key, value in model_options.items()})
        config.work_dir = str(name if isinstance(name, Path) else self.folder / name)
        self.count += 1  # MMEngine wants another name for each runner of a process
        config.experiment_name = f"{self.folder}_{Path(name).name}_{self.count}".replace("/", "_")
        return config

    def _runner(
        self, name: str | Path, phases: list[dict] | None = None, options: Mapping = NOTHING
    ):
        config = self._config(name, options)
        if phases is not None:
            self._set_phases(config, phases)
            last = find_latest_checkpoint(config.work_dir)
            warm = phases[0]["name"] == "warmup" and len(phases) > 1
            if last is None and warm and self._shares_warmup(name):
                last = self._warmed_up(phases[0])
            config.load_from, config.resume = last, last is not None
        return build_runner(config)

    def _shares_warmup(self, name: str | Path) -> bool:
        later = ("objective.", "training.classify", "testing.")  # not in a warm-up
        entries = self.variants.get(str(name), {})
        return all(key.removeprefix("model.").startswith(later) for key in entries)

    def _set_phases(self, config: Config, phases: list[dict]) -> None:
        for hook in config.custom_hooks:
            if hook["type"] == "TrainingPhaseHook":
                hook["phases"] = phases
        unit = "epochs" if "epochs" in phases[0] else "iters"
        config.train_cfg[f"max_{unit}"] = sum(phase[unit] for phase in phases)
        for part in config.default_hooks.values():
            if part["type"] == "CheckpointHook":
                part.pop("save_best", None)

    def _warmed_up(self, stage: dict) -> str:
        """The checkpoint after the warm-up, which is the same for all rows that have one."""
        folder = self.warm_start
        if not (folder / "done").is_file():
            self._runner(folder, [stage]).train()
            (folder / "done").touch()
        return find_latest_checkpoint(str(folder))

    def _trained(self, name: str, phases: list[dict], options: Mapping = NOTHING) -> dict:
        begin = time.monotonic()
        self._runner(name, phases, options).train()
        seconds = time.monotonic() - begin
        checkpoint = find_latest_checkpoint(str(self.folder / name))
        return self._test(name, checkpoint, options, seconds)

    def _test(
        self,
        name: str,
        checkpoint: str,
        options: Mapping = NOTHING,
        seconds: float = 0.0,
        recognizer: str | None = None,
    ) -> dict:
        """Test a checkpoint; with the recognizer of another checkpoint."""
        folder = self.folder / name
        runner = self._tester(name, options)
        load_weights(runner.model, checkpoint)
        model, threshold = runner.model, None
        if recognizer is not None:
            load_recognizer(model.recognizer, recognizer)
        budget, tested = model.estimator.objective.budget, model.testing_options
        learned = tested.policy == "learned" and tested.predict_with != "selector"
        if budget is not None and learned and model.random_part == "none":
            clips = runner.build_dataloader(training_list(self.config))
            threshold = calibrate(runner, clips, budget)
        row = row_of(name, runner.test())
        row["train_seconds"] = round(seconds, 1)
        result = {"row": row, "clips": records.read_clips(folder / "policies.json")}
        result |= {"seed": self.seed, "fold": self.fold, "checkpoint": str(checkpoint)}
        result |= {} if threshold is None else {"threshold": threshold}
        records.write_json(folder / "result.json", {**result, "versions": versions()})
        return result

    def _tester(self, name: str, options: Mapping = NOTHING):
        config = self._config(name, options)
        config.load_from, config.resume = None, False
        record_policies(config, str(self.folder / name / "policies.json"))
        return build_runner(config)

    def tester(self):
        """A runner with ada3d's last checkpoint, for pictures."""
        runner, result = self._tester("pictures"), self.make("ada3d")
        load_weights(runner.model, result["checkpoint"])
        tested = runner.model.testing_options
        tested.threshold = result.get("threshold", tested.threshold)
        return runner


def phases_of(config: Config) -> list[dict]:
    """The training phases of a config."""
    return next(
        [dict(stage) for stage in hook["phases"]]
        for hook in config.custom_hooks
        if hook["type"] == "TrainingPhaseHook"
    )


def shuffled(policies: Policy) -> Policy:
    """The same policies, dealt out at random."""
    return policies[torch.randperm(len(policies), generator=torch.Generator().manual_seed(0))]


def match_usage(model, frames: float, stages: float, gmacs: float) -> dict[str, float]:
    """Fractions of frames and stages, in the proportion given, at which random policies cost
    ``gmacs``."""
    low, high = 0.0, 1 / max(min(frames, stages), 1e-3)
    for _ in range(30):
        scale = (low + high) / 2
        usage = {"frames": min(1.0, scale * frames), "stages": min(1.0, scale * stages)}
        drawn = Policy.random(
            model.plan, USAGE_DRAWS, **usage, generator=torch.Generator().manual_seed(0)
        )
        cost = model.price(drawn).double().mean().item() / 1e9
        low, high = (scale, high) if cost < gmacs else (low, scale)
    return usage


def random_phases(phases: list[dict]) -> list[dict]:
    """The training phases of Random FT: ada3d's warm-up, then as many steps with random policies.

    Where ada3d's recognizer is frozen, random_ft's learns, as in the joint phase; steps of the
    selection network without the recognizer do not count.
    """
    joint = next((s for s in phases if s["name"] == "joint"), phases[-1])
    kept = [s for s in phases if s["name"] == "warmup"]
    rest = [s for s in phases if s["name"] not in ("warmup", "pretrain")]
    unit = "epochs" if "epochs" in joint else "iters"
    return [*kept, {**joint, unit: sum(s[unit] for s in rest), "name": "random"}]


# -------------------------------------------------------------------------------------- the report


COLUMNS = (*tables.COLUMNS[:2], ("mean_class_accuracy", "mean class %", "{:.2f}"),
           ("accuracy_std", "std of seeds", "{:.2f}"), *tables.COLUMNS[2:],
           ("runs", "runs", "{}"))  # fmt: skip


def write_report(args: argparse.Namespace, runs: list[Run], begin: float) -> str:
    results = {
        name: found
        for name in (*EVERY_ROW, *args.variants)
        if (found := [r for run in runs if (r := run.result(name)) is not None])
    }
    if not results:
        raise Ada3DError(f"--report-only: {runs[0].folder.parent} holds no results of these runs")
    rows = [aggregate(name, found) for name, found in results.items()]
    ours = next((row for row in rows if row["name"] == "ada3d"), {})
    kinds = [{"kind": key.removeprefix("frames_")} for key in ours if key.startswith("frames_")]
    for kind in kinds:
        for key in ("accuracy", "frames", "stages"):
            kind[key] = ours[f"{key}_{kind['kind']}"]
    names = class_names(runs[0].config)
    usage = statistics.usage_by_class(results.get("ada3d", []), names)
    gaps, folder = differences(results), runs[0].folder.parent
    plain = [*ROWS[:3], "recognizer_only", "recognizer_shuffled"]
    gaps += differences({k: v for k, v in results.items() if k in plain}, "recognizer_only")
    share = {row["name"]: row["gmacs"] / rows[0]["gmacs"] for row in rows}
    result = {
        "rows": rows, "kinds": kinds, "classes": usage, "differences": gaps,
        "gmacs_share": share.get("ada3d"), "shares": share,
        "seeds": args.seeds, "folds": args.folds, **provenance(args.config, begin),
    }  # fmt: skip
    records.write_json(folder / "report.json", result)
    for markdown, name in ((False, "report.txt"), (True, "report.md")):
        parts = [tables.table(rows, COLUMNS, markdown)]
        parts += [tables.table(gaps, DIFFERENCE_COLUMNS, markdown)] if gaps else []
        parts += [tables.table(kinds, tables.KIND_COLUMNS, markdown)] if kinds else []
        parts += [tables.table(usage, tables.CLASS_COLUMNS, markdown)] if usage else []
        (folder / name).write_text("\n\n".join(parts) + "\n")
    if usage:
        figures.draw_usage(usage, folder / "usage.png")
    return (folder / "report.txt").read_text()


def picture(count: int, config: Config, runner, path: Path) -> None:
    """Draw ``count`` clips of the test list, taken from all classes in turn."""
    dataset, model = runner.test_dataloader.dataset, runner.model
    labels = [int(dataset.get_data_info(i)["label"]) for i in range(len(dataset))]
    order = sorted(range(len(labels)), key=lambda i: (labels[:i].count(labels[i]), labels[i]))
    names = {label: str(label) for label in range(model.num_classes)} | class_names(config)
    classes = list(dict.fromkeys(labels[i] for i in order))
    step = max(1, len(classes) // count)
    chosen = [i for i in order if labels[i] in classes[::step]][:count]
    shown = [examples(model, dataset[i], names[labels[i]], names, known=True)[0] for i in chosen]
    figures.draw_policies(shown, path)


@user_errors
def main() -> None:
    args, begin = parse_args(), time.monotonic()
    runs = [Run(args, seed, fold) for seed in args.seeds for fold in args.folds]
    if (runs[0].config.model.get("testing") or {}).get("predict_with") != "both":
        asked = [name for name in args.rows if name in SCORES]
        if asked and not args.all:
            raise Ada3DError(f"--rows {','.join(asked)}: for a config with predict_with='both'")
        args.rows = [name for name in args.rows if name not in SCORES]
    for run in () if args.report_only else runs:
        run.check()
    for run in () if args.report_only else runs:
        for name in args.rows:
            run.make(name)
    text = write_report(args, runs, begin)
    if args.pictures:
        picture(
            args.pictures, runs[0].config, runs[0].tester(), runs[0].folder.parent / "policies.png"
        )
    print(text)


if __name__ == "__main__":
    sys.exit(main())
