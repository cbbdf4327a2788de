#!/usr/bin/env python
"""Show what was decided for videos: kept frames, stage gates, prediction, cost (figure 4).

    python tools/visualize_policy.py CONFIG CHECKPOINT VIDEO... [--out POLICIES.png]
        [--gif PREVIEW.gif] [--views N] [--budget GMACS]

Each clip that the test pipeline takes from a video is a line of the picture (--views of them):
dropped frames are dark and crossed out, stages are green (3D) or grey (2D). The GIF plays the kept
frames beside all frames. --budget turns the dial first, on the validation list.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from mmengine.config import Config, DictAction
from mmengine.dataset import Compose

import ada3d_fx.mm  # noqa: F401  registers models, hooks and metrics
from ada3d_fx import Ada3DError
from ada3d_fx.cli import user_errors
from ada3d_fx.mm.build import build_runner
from ada3d_fx.mm.checkpoint import load_weights
from ada3d_fx.mm.config import class_names, inner_datasets, load_config
from ada3d_fx.mm.testing import calibrate, examples
from ada3d_fx.report import figures, records, tables


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(__doc__.splitlines()[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="an Ada3D config")
    parser.add_argument("checkpoint", help="a trained Ada3D checkpoint")
    parser.add_argument("videos", nargs="+", help="video files")
    parser.add_argument("--out", default="policies.png", help="the picture")
    parser.add_argument("--gif", help="an animated preview")
    parser.add_argument("--json", help="write decisions and predictions to this file too")
    parser.add_argument("--views", type=int, default=1, help="clips shown of each video")
    parser.add_argument("--budget", type=float, help="GMACs per clip, see tools/test.py")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, help="config entries to set, as key=value"
    )
    return parser.parse_args()


def load(args: argparse.Namespace, config: Config):
    """A runner with the checkpoint's weights, the dial turned."""
    config.load_from, config.resume = None, False
    config.model.recognizer_checkpoint = None
    if args.budget is None:  # the lists need not exist
        for name in ("train", "val", "test"):
            for key in ("dataloader", "evaluator", "cfg"):
                config[f"{name}_{key}"] = None
        config.optim_wrapper = config.param_scheduler = None
    runner = build_runner(config)
    load_weights(runner.model, args.checkpoint)
    if args.budget is not None:
        calibrate(runner, runner.build_dataloader(config.val_dataloader), args.budget)
    return runner


@user_errors
def main() -> None:
    args = parse_args()
    config = load_config(args.config, args.cfg_options)
    if config.model.get("type") != "Ada3DRecognizer":
        raise Ada3DError(f"{args.config}: its model is no Ada3DRecognizer; it decides nothing")
    missing = [video for video in args.videos if not Path(video).is_file()]
    if missing:
        raise Ada3DError(f"no video at {', '.join(missing)}")
    steps = next(inner_datasets(config.test_dataloader.dataset))["pipeline"]
    names = class_names(config)
    with TemporaryDirectory() as config.work_dir:  # the runner's own log and config
        model = load(args, config).model
    pipeline = Compose(steps)  # after the runner, which says whose transforms these are
    shown = []
    for video in args.videos:
        data = pipeline({"filename": video, "label": -1, "start_index": 0, "modality": "RGB"})
        shown += examples(model, data, Path(video).name, names, views=args.views)
    figures.draw_policies(shown, args.out)
    if args.gif:
        figures.animate(shown, args.gif)
    rows = [
        {"video": e.label, "predicted": e.prediction, "gmacs": e.gmacs,
         **records.policy_words(e.frames, e.stages)}
        for e in shown
    ]  # fmt: skip
    print(tables.table(rows, tables.DECISION_COLUMNS))
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=2) + "\n")
    print("\n" + "\n".join(path for path in (args.out, args.gif, args.json) if path))


if __name__ == "__main__":
    sys.exit(main())
