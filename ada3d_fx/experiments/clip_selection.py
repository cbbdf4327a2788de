"""Which clips of long videos to look at: a clip selector on top of a trained Ada3D (table 2)."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor

from .. import files
from ..comparison.matching import middles
from ..errors import Ada3DError
from ..learn.clip_selector import ClipSelector, clip_loss
from ..mm import console as mm_console
from ..mm.checkpoint import load_weights
from ..mm.checks import check_config
from ..mm.config import forget_start, load_config, training_list
from ..progress import Console
from ..provenance.command import provenance
from ..report import figures, records, tables
from .clip_videos import Videos, score_clips

COLUMNS = (
    ("name", "clips", "{}"),
    ("clips", "#Clip", "{:.2f}"),
    ("accuracy", "accuracy %", "{:.2f}"),
    ("gmacs", "GMACs per video", "{:.4g}"),
)


def select_clips(
    path: str,
    cfg_options: Sequence[str],
    checkpoint: str,
    costs: Sequence[float],
    steps: int = 1500,
    seed: int = 0,
    work_dir: str | None = None,
    console: Console | None = None,
) -> str:
    """Train a clip selector at each cost, leave clips.json, clips.md and clips.png; return the table.

    Args:
        path: an Ada3D config whose test pipeline samples several clips of each video.
        cfg_options: KEY=VALUE entries of it.
        checkpoint: a trained Ada3D checkpoint.
        costs: costs of looking at all clips, in rewards; a selector for each.
        steps: training steps for each cost.
        seed: random seed.
        work_dir: where the results go; None: the config's.
        console: where progress is shown.

    Raises:
        Ada3DError: a config or lists that clips cannot be selected of, or another's checkpoint.
    """
    begin, console = time.monotonic(), console or Console()
    config = load_config(path, cfg_options)
    if config.model.get("type") != "Ada3DRecognizer":
        raise Ada3DError(f"{path}: its model is no Ada3DRecognizer")
    if (config.model.get("testing") or {}).get("predict_with") == "selector":
        raise Ada3DError("predict_with='selector' looks at every clip; try 'both' or 'recognizer'")
    out = Path(work_dir or config.get("work_dir") or "work_dirs/select_clips")
    config.work_dir, config.load_from, config.resume = str(out), None, False
    config.randomness = {"seed": seed}
    forget_start(config)
    check_config(config, ("train", "test"))
    runner = mm_console.build_runner(config, console)
    load_weights(runner.model, checkpoint)

    def scored(loader: Config, name: str) -> Videos:
        batches = runner.build_dataloader(loader)
        return score_clips(runner, console.track(batches, f"scoring the clips of the {name} list"))

    learned_from = scored(training_list(config), "training")
    tested = scored(config.test_dataloader, "test")
    macs = runner.model.selector_macs
    rows = evenly_spread(tested, macs)
    for cost in costs:
        selector = train(learned_from, cost, steps, seed, console)
        weights = io.BytesIO()  # torch.save itself names no file where the disk is full
        torch.save(selector.state_dict(), weights)
        files.write_bytes(out / f"clip_selector_{cost:g}.pth", weights.getvalue())
        rows.append(chosen(selector, tested, cost, macs))
    records.write_json(out / "clips.json", {"rows": rows, "seed": seed, **provenance(path, begin)})
    files.write_text(out / "clips.md", tables.table(rows, COLUMNS, markdown=True) + "\n")
    figures.draw_curves(curves(rows), out / "clips.png", "clips of long videos", per="video")
    return f"{tables.table(rows, COLUMNS)}\n\npicture: {out / 'clips.png'}"


def train(
    videos: Videos, cost: float, steps: int, seed: int, console: Console | None = None
) -> ClipSelector:
    """Train a clip selector at a cost of looking at all clips of a video."""
    torch.manual_seed(seed)
    selector = ClipSelector(videos.preview.shape[2], videos.scores.shape[2]).train()
    optimizer = torch.optim.AdamW(selector.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in (console or Console()).track(range(steps), f"learning at cost {cost:g}"):
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


def evenly_spread(videos: Videos, selector_macs: int) -> list[dict]:
    """Return a row for each number of clips, evenly spread over the video.

    Without a selector only the clips that are computed are previewed, for their policies.
    """
    number, clips = videos.preview.shape[:2]
    probs, rows = videos.scores.softmax(2), []
    for count in range(1, clips + 1):
        looked = even(count, clips)
        name = "all (vanilla)" if count == clips else f"{count}, even"
        mean, preview = probs[:, looked].mean(1), count * selector_macs / 1e9
        rows.append(clips_row(name, "even", videos, mean, looked.expand(number, -1), preview))
    return rows


def chosen(selector: ClipSelector, videos: Videos, cost: float, selector_macs: int) -> dict:
    """Return the row of a clip selector."""
    number, clips = videos.preview.shape[:2]
    with torch.no_grad():
        rollout = selector(videos.preview, lambda rows, at: videos.scores[rows, at])
    looked = torch.zeros(number, clips + 1, dtype=torch.bool)
    looked = looked.scatter(1, rollout.order % (clips + 1), True)[:, :clips]
    name, preview = f"chosen, cost {cost:g}", clips * selector_macs / 1e9
    return clips_row(name, "chosen", videos, rollout.probs, looked, preview)


def clips_row(
    name: str, way: str, videos: Videos, probs: Tensor, looked: Tensor, preview_gmacs: float
) -> dict:
    """Return a row of the table.

    Args:
        name: the row's name.
        way: how clips are chosen.
        videos: all clips.
        probs: [V, classes], what is predicted.
        looked: bool [V, M], the clips that the recognizer computes.
        preview_gmacs: the selection network, on the clips of a video that it saw.
    """
    right = (probs.argmax(1) == videos.labels).double()
    return {
        "name": name,
        "way": way,
        "clips": looked.double().sum(1).mean().item(),
        "accuracy": 100 * right.mean().item(),
        "gmacs": (videos.gmacs * looked).sum(1).mean().item() + preview_gmacs,
    }


def even(count: int, total: int) -> Tensor:
    """Choose ``count`` of ``total`` clips, evenly spread: bool [total]."""
    looked = torch.zeros(total, dtype=torch.bool)
    looked[middles(count, total)] = True
    return looked


def curves(rows: Sequence[dict]) -> dict[str, list[tuple[float, float]]]:
    """Collect (GMACs, accuracy) of each way to choose clips, the cheapest first."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        points.setdefault(row["way"], []).append((row["gmacs"], row["accuracy"]))
    return {way: sorted(of_way) for way, of_way in points.items()}
