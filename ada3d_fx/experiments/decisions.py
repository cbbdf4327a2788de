"""What was decided for single videos: a picture, an animation and rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from mmengine.config import Config
from mmengine.dataset import Compose

from ..errors import Ada3DError
from ..mm import console as mm_console
from ..mm.checkpoint import load_weights
from ..mm.config import calibration_list, class_names, forget_start, inner_datasets, load_config
from ..mm.testing import calibrate, examples
from ..progress import Console
from ..report import figures, policy_pictures, records, tables
from ..videos.broken import BrokenVideo, NamedPipeline


def show_decisions(
    path: str,
    cfg_options: Sequence[str],
    checkpoint: str,
    videos: Sequence[str],
    views: int = 1,
    gmacs: float | None = None,
    calibrate_on: str = "val",
    out: str = "policies.png",
    gif: str | None = None,
    json_file: str | None = None,
    console: Console | None = None,
) -> str:
    """Decide for the clips of these videos, draw them, and return the rows as a table.

    Args:
        path: an Ada3D config.
        cfg_options: KEY=VALUE entries of it.
        checkpoint: a trained Ada3D checkpoint.
        videos: video files.
        views: clips shown of each video.
        gmacs: GMACs per clip for which the threshold is set; None: the config's threshold.
        calibrate_on: the list on which it is set.
        out: the picture.
        gif: an animated preview.
        json_file: decisions and predictions for machines.
        console: where progress is shown.

    Raises:
        Ada3DError: a plain recognizer's config, a file that is missing or no video, a picture of an
            unknown kind, or a cost that cannot be met.
        OSError: a file cannot be written.
    """
    config = load_config(path, cfg_options)
    if config.model.get("type") != "Ada3DRecognizer":
        raise Ada3DError(f"{path}: its model is no Ada3DRecognizer; it decides nothing")
    missing = [video for video in videos if not Path(video).is_file()]
    if missing:
        raise Ada3DError(f"no video at {', '.join(missing)}")
    figures.picture_kind(out)
    if gif:
        policy_pictures.check_gif(gif)
    steps = next(inner_datasets(config.test_dataloader.dataset))["pipeline"]
    names = class_names(config)
    console = console or Console()
    with TemporaryDirectory() as config.work_dir:  # the runner's own log and config
        model = _loaded(config, checkpoint, gmacs, calibrate_on, console)
    transforms = Compose(steps).transforms  # after the runner, which says whose these are
    pipeline = NamedPipeline(transforms)
    shown = []
    for video in console.track(videos, "deciding"):
        data = pipeline({"filename": video, "label": -1, "start_index": 0, "modality": "RGB"})
        if isinstance(data, BrokenVideo):
            raise Ada3DError(str(data))
        shown += examples(model, data, Path(video).name, names, views=views)
    policy_pictures.draw_policies(shown, out)
    if gif:
        policy_pictures.animate(shown, gif)
    rows = [
        {"video": e.label, "predicted": e.prediction, "gmacs": e.gmacs,
         **records.policy_words(e.frames, e.stages)}
        for e in shown
    ]  # fmt: skip
    if json_file:
        records.write_json(json_file, rows)
    written = "\n".join(file for file in (out, gif, json_file) if file)
    return f"{tables.table(rows, tables.DECISION_COLUMNS)}\n\n{written}"


def _loaded(
    config: Config, checkpoint: str, gmacs: float | None, calibrate_on: str, console: Console
):
    """Return the model with the checkpoint's weights, its threshold set."""
    config.load_from, config.resume = None, False
    forget_start(config)
    if gmacs is None:  # the lists need not exist
        for name in ("train", "val", "test"):
            for key in ("dataloader", "evaluator", "cfg"):
                config[f"{name}_{key}"] = None
        config.optim_wrapper = config.param_scheduler = None
    runner = mm_console.build_runner(config, console)
    load_weights(runner.model, checkpoint)
    if gmacs is not None:
        loader = runner.build_dataloader(calibration_list(config, calibrate_on))
        calibrate(
            runner, loader, gmacs, lambda clips: console.track(clips, "setting the threshold")
        )  # fmt: skip
    return runner.model
