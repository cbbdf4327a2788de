#!/usr/bin/env python
"""Upper, Random, Random FT and Ada3D side by side, from one config and one trained recognizer.

    python tools/compare.py CONFIG [--recognizer CHECKPOINT] [--work-dir DIR] [--pictures N]

Rows, as in table 1 of the paper:

- upper: the recognizer as it is, all frames and all stages;
- random: the same recognizer under random policies that cost what ada3d costs, its selection
  network included;
- random_ft: from the same recognizer, trained under such policies for as many steps as ada3d;
- ada3d: the config's own training stages, then the greedy policies.

Leaves DIR/report.json, report.txt, report.md, and with --pictures policies.png.
"""

from __future__ import annotations

import argparse
import copy
import shlex
import sys
import time
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.runner import find_latest_checkpoint

import ada3d_fx.mm  # noqa: F401  registers models, hooks and metrics
from ada3d_fx import Ada3DError, Policy, report
from ada3d_fx.mm.checks import check_config
from ada3d_fx.mm.launch import build_runner, load_config, load_weights, user_errors, versions
from ada3d_fx.mm.metric import row_of

USAGE_DRAWS = 4096  # random policies by whose mean price the budgets are matched


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", help="an Ada3D config")
    parser.add_argument("--recognizer", help="the trained plain recognizer (stage 0) to start from")
    parser.add_argument("--work-dir", help="where runs and report go")
    parser.add_argument("--pictures", type=int, default=0, help="draw the policies of N clips")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, help="config entries to set, as key=value"
    )
    return parser.parse_args()


class Comparison:
    """The runs of one comparison; each row is a dict of `report.COLUMNS` and per-kind values."""

    def __init__(self, config: Config, work_dir: Path):
        self.config, self.work_dir, self.runs = config, work_dir, 0
        self.rows: dict[str, dict] = {}

    def runner(self, name: str, **model_options):
        config = copy.deepcopy(self.config)
        config.model.update(model_options)
        config.work_dir = str(self.work_dir / name)
        self.runs += 1
        config.experiment_name = f"compare_{self.runs}_{name}"
        return config

    def train(self, name: str, config: Config) -> tuple[str, float]:
        """Train, and give the last checkpoint and the seconds taken."""
        start = time.monotonic()
        build_runner(config).train()
        return find_latest_checkpoint(str(self.work_dir / name)), time.monotonic() - start

    def test(self, name: str, checkpoint: str, seconds: float = 0.0, **model_options):
        """Test, and enter the row."""
        runner = build_runner(self.runner(f"test_{name}", **model_options))
        load_weights(runner.model, checkpoint)
        row = row_of(name, runner.test())
        self.rows[name] = {**row, "train_seconds": round(seconds, 1)}
        return runner


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


def random_stages(stages: list[dict]) -> list[dict]:
    """The training stages of Random FT: ada3d's, step for step, with random policies.

    Where ada3d's recognizer is frozen, random_ft's learns, as in the joint stage.
    """
    joint = next((s for s in stages if s["name"] == "joint"), stages[-1])
    kept = [s for s in stages if s["name"] == "warmup"]
    rest = [s for s in stages if s["name"] != "warmup"]
    unit = "epochs" if "epochs" in joint else "iters"
    merged = {**joint, unit: sum(s[unit] for s in rest)}
    return [{**s, "name": "random"} for s in [*kept, merged]]


def compare(args: argparse.Namespace, config: Config) -> tuple[Comparison, object]:
    work_dir = Path(args.work_dir or config.get("work_dir") or "work_dirs/compare")
    config.randomness = {**(config.get("randomness") or {}), "seed": args.seed}
    if args.recognizer:
        config.model.recognizer_checkpoint = args.recognizer
    start = config.model.get("recognizer_checkpoint")
    if not start or not Path(start).is_file():
        raise Ada3DError(f"--recognizer: no trained recognizer at {start}; train stage 0 first")
    check_config(config, ("train", "val", "test"))
    runs = Comparison(config, work_dir)
    runs.test("upper", start, test_policy="full")
    trained, seconds = runs.train("ada3d", runs.runner("ada3d"))
    ours = runs.test("ada3d", trained, seconds)
    row, model = runs.rows["ada3d"], ours.model
    usage = match_usage(
        model,
        row["frames"] / model.plan.num_frames,
        row["stages"] / model.plan.num_stages,
        row["gmacs"],
    )
    runs.test("random", start, test_policy="random", random_policy=usage)
    tuned = runs.runner("random_ft", test_policy="random", random_policy=usage, selector=None)
    for hook in tuned.custom_hooks:
        if hook["type"] == "TrainingStageHook":
            hook["stages"] = random_stages(hook["stages"])
    for part in tuned.default_hooks.values():
        if part["type"] == "CheckpointHook":
            part.pop("save_best", None)
    tuned_checkpoint, seconds = runs.train("random_ft", tuned)
    runs.test("random_ft", tuned_checkpoint, seconds, test_policy="random", random_policy=usage)
    return runs, ours


def write_report(args: argparse.Namespace, config: Config, runs: Comparison, seconds: float) -> str:
    rows = [runs.rows[name] for name in ("upper", "random", "random_ft", "ada3d")]
    ours = runs.rows["ada3d"]
    kinds = [{"kind": key.removeprefix("frames_")} for key in ours if key.startswith("frames_")]
    for kind in kinds:
        for key in ("accuracy", "frames", "stages"):
            kind[key] = ours[f"{key}_{kind['kind']}"]
    result = {
        "rows": rows,
        "kinds": kinds,
        "gmacs_share": ours["gmacs"] / runs.rows["upper"]["gmacs"],
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "config": str(args.config),
        "seed": args.seed,
        "seconds": round(seconds, 1),
        "versions": versions(),
    }
    report.write_json(runs.work_dir / "report.json", result)
    for markdown, name in ((False, "report.txt"), (True, "report.md")):
        text = report.table(rows, markdown=markdown)
        if kinds:
            text += "\n\n" + report.table(kinds, report.KIND_COLUMNS, markdown)
        (runs.work_dir / name).write_text(text + "\n")
    return (runs.work_dir / "report.txt").read_text()


def draw(count: int, config: Config, runner, path: Path) -> None:
    """Draw ``count`` clips of the test list, taken from all classes in turn."""
    dataset, model = runner.test_dataloader.dataset, runner.model
    labels = [int(dataset.get_data_info(i)["label"]) for i in range(len(dataset))]
    order = sorted(range(len(labels)), key=lambda i: (labels[:i].count(labels[i]), labels[i]))
    names = class_names(config, max(labels) + 1)
    classes = list(dict.fromkeys(labels[i] for i in order))
    step = max(1, len(classes) // count)
    chosen = [i for i in order if labels[i] in classes[::step]][:count]
    examples = []
    for index in chosen:
        data = dataset[index]
        sample = model.test_step(pseudo_collate([data]))[0]
        macs = int(sample.recognizer_macs[0]) + sample.selector_macs
        examples.append(
            report.Example(
                report.pixels(data["inputs"][0]),
                sample.policy_frames[0],
                sample.policy_stages[0],
                [stage.name for stage in model.plan.stages],
                names[labels[index]],
                names[int(sample.pred_score.argmax())],
                macs / 1e9,
            )
        )
    report.draw_policies(examples, path)


def class_names(config: Config, count: int) -> list[str]:
    """The first word of each line of the config's ``class_file``, else the labels."""
    path = config.get("class_file")
    if path and Path(path).is_file():
        return [line.split()[0] for line in Path(path).read_text().splitlines() if line.strip()]
    return [str(label) for label in range(count)]


@user_errors
def main() -> None:
    args, start = parse_args(), time.monotonic()
    config = load_config(args.config, args.cfg_options)
    if config.model.get("type") != "Ada3DRecognizer":
        raise Ada3DError(f"{args.config}: its model is no Ada3DRecognizer; nothing to compare")
    runs, ours = compare(args, config)
    text = write_report(args, config, runs, time.monotonic() - start)
    if args.pictures:
        draw(args.pictures, config, ours, runs.work_dir / "policies.png")
    print(text)


if __name__ == "__main__":
    sys.exit(main())
