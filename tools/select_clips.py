#!/usr/bin/env python
"""Learn which clips of long videos to look at, on top of a trained Ada3D (table 2).

    python tools/select_clips.py CONFIG CHECKPOINT [--costs 0.05,0.1,0.2,0.4] [--work-dir DIR]

The config's test pipeline gives each video's candidate clips (num_clips of SampleFrames), for the
training list and for the test list. Every clip goes through Ada3D once and its scores are kept;
the clip selector then learns from these in seconds. Compared: all clips (the paper's vanilla),
the first k of an even spread, and the selector at several costs per clip. GMACs are per video: the
selection network's preview at all clips, and the recognizer on the clips looked at. Leaves
DIR/clips.json, clips.md, clips.png and the selectors' weights.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config, DictAction
from torch import Tensor

import ada3d_fx.mm  # noqa: F401  registers models, hooks and metrics
from ada3d_fx import Ada3DError
from ada3d_fx.cli import provenance, user_errors
from ada3d_fx.learn.clip_selector import ClipSelector, clip_loss, previews
from ada3d_fx.mm.build import build_runner
from ada3d_fx.mm.checkpoint import load_weights
from ada3d_fx.mm.checks import check_config
from ada3d_fx.mm.config import load_config, training_list
from ada3d_fx.report import figures, records, tables

COLUMNS = (
    ("name", "clips", "{}"),
    ("clips", "#Clip", "{:.2f}"),
    ("accuracy", "accuracy %", "{:.2f}"),
    ("gmacs", "GMACs per video", "{:.4g}"),
)


class Videos(NamedTuple):
    """A list's clips: previews [V, M, D], scores [V, M, classes], GMACs of the recognizer [V, M],
    labels [V]."""

    preview: Tensor
    scores: Tensor
    gmacs: Tensor
    labels: Tensor


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(__doc__.splitlines()[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="an Ada3D config whose test pipeline samples several clips")
    parser.add_argument("checkpoint", help="a trained Ada3D checkpoint")
    parser.add_argument("--costs", default="0.05,0.1,0.2,0.4", help="costs of looking at all clips")
    parser.add_argument("--steps", type=int, default=1500, help="training steps for each cost")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--work-dir", help="where runs and report go")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, help="config entries to set, as key=value"
    )
    args = parser.parse_args()
    try:
        args.costs = [float(cost) for cost in args.costs.split(",")]
    except ValueError:
        parser.error(f"--costs {args.costs}: expected numbers, a,b,...")
    return args


@torch.no_grad()
def preview_all(runner, loader_config: Config) -> Videos:
    """Every clip of a list through Ada3D."""
    model, parts = runner.model.eval(), []
    for batch in runner.build_dataloader(loader_config):
        data = model.data_preprocessor(batch, training=False)
        inputs, samples = data["inputs"], data["data_samples"]
        clips = inputs.flatten(0, 1)
        features = model.selector.frame_features(clips)
        policy, scores = model.score(clips, features)
        shape = inputs.shape[:2]
        found = (previews(features), scores, model.price(policy)[:, None].double() / 1e9)
        preview, scores, gmacs = (value.unflatten(0, shape).cpu() for value in found)
        labels = torch.stack([sample.gt_label for sample in samples]).flatten().cpu()
        parts.append(Videos(preview, scores, gmacs[..., 0], labels))
    whole = Videos(*(torch.cat(column) for column in zip(*parts)))
    if len(whole.labels) != len(whole.preview):
        raise Ada3DError("select_clips: videos with several labels are not supported")
    if whole.preview.shape[1] < 2:
        raise Ada3DError(
            "the test pipeline gives one clip of each video; set num_clips of its SampleFrames"
        )
    return whole


def train(videos: Videos, cost: float, steps: int, seed: int) -> ClipSelector:
    torch.manual_seed(seed)
    selector = ClipSelector(videos.preview.shape[2], videos.scores.shape[2]).train()
    optimizer = torch.optim.AdamW(selector.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        part = torch.randint(len(videos.labels), (64,))
        loss, _ = clip_loss(
            selector, videos.preview[part], videos.scores[part], videos.labels[part], cost
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(selector.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    return selector.eval()


def row(
    name: str, way: str, videos: Videos, probs: Tensor, looked: Tensor, preview_gmacs: float
) -> dict:
    """``way``: how clips are chosen; ``looked`` bool [V, M]; ``preview_gmacs``: the selection
    network on the clips of a video that it saw."""
    right = (probs.argmax(1) == videos.labels).double()
    return {
        "name": name,
        "way": way,
        "clips": looked.double().sum(1).mean().item(),
        "accuracy": 100 * right.mean().item(),
        "gmacs": (videos.gmacs * looked).sum(1).mean().item() + preview_gmacs,
    }


def even(count: int, total: int) -> Tensor:
    """bool [total]: ``count`` clips, evenly spread."""
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[((torch.arange(count) + 0.5) * total / count).long()] = True
    return chosen


def compare(train_videos: Videos, videos: Videos, args: argparse.Namespace, macs: int, out: Path):
    number, clips = videos.preview.shape[:2]
    probs, rows = videos.scores.softmax(2), []
    for count in range(1, clips + 1):
        chosen = even(count, clips)
        mean = probs[:, chosen].mean(1)
        # without a selector only the clips that are computed are glanced at, for their policies
        preview = count * macs / 1e9
        name = "all (vanilla)" if count == clips else f"{count}, even"
        rows.append(row(name, "even", videos, mean, chosen.expand(number, -1), preview))
    for cost in args.costs:
        selector = train(train_videos, cost, args.steps, args.seed)
        with torch.no_grad():
            rollout = selector(videos.preview, lambda rows, at: videos.scores[rows, at])
        looked = torch.zeros(number, clips + 1, dtype=torch.bool).scatter(
            1, rollout.order % (clips + 1), True
        )[:, :clips]
        name, preview = f"chosen, cost {cost:g}", clips * macs / 1e9
        rows.append(row(name, "chosen", videos, rollout.probs, looked, preview))
        torch.save(selector.state_dict(), out / f"clip_selector_{cost:g}.pth")
    return rows


@user_errors
def main() -> None:
    args, start = parse_args(), time.monotonic()
    config = load_config(args.config, args.cfg_options)
    if config.model.get("type") != "Ada3DRecognizer":
        raise Ada3DError(f"{args.config}: its model is no Ada3DRecognizer")
    if (config.model.get("testing") or {}).get("predict_with") == "selector":
        raise Ada3DError("predict_with='selector' looks at every clip; try 'both' or 'recognizer'")
    out = Path(args.work_dir or config.get("work_dir") or "work_dirs/select_clips")
    config.work_dir, config.load_from, config.resume = str(out), None, False
    config.model.recognizer_checkpoint, config.randomness = None, {"seed": args.seed}
    check_config(config, ("train", "test"))
    runner = build_runner(config)
    load_weights(runner.model, args.checkpoint)
    rows = compare(
        preview_all(runner, training_list(config)), preview_all(runner, config.test_dataloader), args,
        runner.model.selector_macs, out,
    )  # fmt: skip
    result = {
        "rows": rows,
        "seed": args.seed,
        **provenance(args.config, start),
    }
    records.write_json(out / "clips.json", result)
    (out / "clips.md").write_text(tables.table(rows, COLUMNS, markdown=True) + "\n")
    curves: dict[str, list] = {}
    for one in rows:
        curves.setdefault(one["way"], []).append((one["gmacs"], one["accuracy"]))
    curves = {name: sorted(points) for name, points in curves.items()}
    figures.draw_curves(curves, out / "clips.png", "clips of long videos", per="video")
    print(tables.table(rows, COLUMNS))


if __name__ == "__main__":
    sys.exit(main())
