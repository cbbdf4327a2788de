"""Ada3DInferencer: from files of videos to labels, policies and prices."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmaction.registry import INFERENCERS, MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.infer import BaseInferencer
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import Tensor, nn

from .. import files
from ..errors import Ada3DError, require_number
from ..progress import Console, quiet
from ..report import policy_pictures
from ..runtime.session import Session
from ..videos.inputs import Videos
from ..videos.loader import VideoLoader
from ..videos.streaming import (
    VideoDataset,
    decoded,
    default_workers,
    video_pipeline,
)
from ..videos.timed_pipeline import TimedPipeline
from .build import build_recognizer
from .checkpoint import load_weights
from .checks import check_config
from .config import calibration_list, class_names, load_config
from .exported import ExportedModel, is_exported, open_session
from .inference_config import InferenceOptions, dataset_of, find, prepare_config
from .results import (
    COLUMNS,
    TEXTS,
    VideoResult,
    batches,
    data_sample,
    examples_of,
    row_of,
    scores_of,
)
from .scoring import Ada3DScorer, ClipScorer, PlainScorer, SessionScorer
from .testing import calibrate


@INFERENCERS.register_module()
class Ada3DInferencer(BaseInferencer):
    """Predicts videos with an Ada3D model, or with a plain recognizer.

    ``inferencer('video.mp4')['predictions'][0]`` is a row, see `row_of`, with MMAction2's
    ``rec_labels`` and ``rec_scores``. Videos are decoded by worker processes ahead of the network,
    and the clips of several videos fill a batch. A video that does not decode is a row with its
    ``error``.

    `BaseInferencer`'s own call decodes in this process, has one video in a batch for each of its
    views and keeps everything until the end; `preprocess` and `forward` here are made for streams,
    so the call that goes through them is one of its own.

    Args:
        config: an Ada3D config or a plain recognizer's: its path, or the config itself.
        checkpoint: its checkpoint; or a file that tools/export.py wrote (.onnx, .xml), or its session.
        device: such as 'cpu' or 'cuda:0'; None: a GPU if there is one. An exported file runs on the
            CPU.
        cfg_options: KEY=VALUE entries of the config.
        options: see `InferenceOptions`; or these as keyword arguments.
        batch_size: clips that are run at once.
        num_workers: processes that decode; None: one for each core but one, 8 at most; 0: none.
        console: where the progress of setting a threshold is shown.

    Raises:
        Ada3DError: a config or a checkpoint that will not do, or a cost that no threshold gives.
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path | Session,
        device: str | None = None,
        *,
        cfg_options: Sequence[str] = (),
        batch_size: int = 8,
        num_workers: int | None = None,
        console: Console | None = None,
        **options: Any,
    ):
        unknown = set(options) - set(InferenceOptions._fields)
        if unknown:
            raise Ada3DError(
                f"Ada3DInferencer: unknown options {', '.join(sorted(unknown))}; there are "
                f"{', '.join(InferenceOptions._fields)}"
            )
        self.options = InferenceOptions(**options)
        self.batch_size = _whole("batch_size", batch_size, 1)
        self.num_workers = default_workers() if num_workers is None else num_workers
        _whole("num_workers", self.num_workers, 0)
        init_default_scope("mmaction")
        given = isinstance(config, Config)
        loaded = copy.deepcopy(config) if given else load_config(config, cfg_options)
        self.session: Session | None = None
        prepare_config(loaded, self.options, is_exported(checkpoint))
        if is_exported(checkpoint):
            self.session = open_session(checkpoint, loaded, self.options, device)
        super().__init__(loaded, str(checkpoint), device or get_device(), "mmaction", False)
        self.names = class_names(loaded)
        if self.session and not self.names:
            self.names = dict(enumerate(self.session.description.classes or ()))
        self.clips_kept = False  # with the results, for pictures
        self._calibrate(console or Console())
        self.scorer: ClipScorer = self._scorer()

    # -------------------------------------------------------------------------- its own parts

    def _init_model(self, cfg: Config, weights: str, device: str = "cpu") -> nn.Module:
        """Build the model, load its checkpoint, and move it to the device."""
        if self.session:
            return ExportedModel(cfg.model).eval()
        if not Path(weights).is_file():
            raise Ada3DError(f"checkpoint: no file at {weights}")
        with quiet():
            adaptive = cfg.model.type == "Ada3DRecognizer"
            model = MODELS.build(cfg.model) if adaptive else build_recognizer(cfg.model)
        load_weights(model, weights)
        return model.to(_device(device)).eval()

    def _init_pipeline(self, cfg: Config) -> TimedPipeline:
        return video_pipeline(dataset_of(cfg)["pipeline"])

    def _init_visualizer(self, cfg: Config) -> None:
        return None

    def _calibrate(self, console: Console) -> None:
        """Set the dials for the cost that was asked for."""
        if self.options.gmacs is not None:
            name = self.options.calibrate_on
            check_config(self.cfg, (name,))
            loader = Runner.build_dataloader(calibration_list(self.cfg, name), seed=0)
            calibrate(  # which looks at nothing but `model`
                self, VideoLoader.of(loader, self.cfg), self.options.gmacs,
                lambda clips: console.track(clips, "setting the threshold"),
            )  # fmt: skip

    @property
    def dials(self) -> dict[str, float]:
        """What a cost sets: the threshold, and where clips may exit the confidence that they need.

        Nothing of an exported file.
        """
        options = getattr(self.model, "testing_options", None)
        found = {} if options is None else {"threshold": options.threshold}
        exits = getattr(self.model, "exit", None)
        return found if exits is None else {**found, "exit": exits}

    def set_dials(self, dials: Mapping[str, float]) -> None:
        """Set what `dials` of the same model were."""
        self.model.testing_options.threshold = dials["threshold"]
        if "exit" in dials:
            self.model.exit = dials["exit"]

    def _scorer(self) -> ClipScorer:
        if self.session:
            options = self.options
            full = options.policy == "full"
            return SessionScorer(self.session, self.model, full, options.threshold)
        if self.cfg.model.type == "Ada3DRecognizer":
            return Ada3DScorer(self.model)
        return PlainScorer(self.model)

    # ------------------------------------------------------------------------------ the stream

    def _inputs_to_list(self, inputs: Any) -> Videos:
        """Find the videos; one in a sequence that is not there is a row with its error."""
        if isinstance(inputs, Videos):
            return inputs
        one = isinstance(inputs, (str, Path))
        return find(self.cfg, inputs, self.options.data_prefix, must_exist=one)

    def preprocess(
        self, inputs: Videos, batch_size: int = 1, order: Iterable[int] | None = None
    ) -> Iterator[list[tuple[VideoResult, Tensor | None]]]:
        """Decode videos, and yield batches of their clips, each with the result that it belongs to.

        Args:
            inputs: the videos.
            batch_size: clips of a batch.
            order: indices of the videos; None: all of them.
        """
        pipeline = self.pipeline
        if inputs[0].frames is not None:
            pipeline = video_pipeline(dataset_of(self.cfg)["pipeline"], frames=True)
        order = range(len(inputs)) if order is None else order
        shape = self.session.description.executed_shape if self.session else None
        dataset = VideoDataset(inputs, pipeline, shape)
        return batches(decoded(dataset, order, self.num_workers), batch_size)

    def forward(
        self, inputs: Sequence[tuple[VideoResult, Tensor | None]], **_: Any
    ) -> list[VideoResult]:
        """Run a batch of clips, and return the results that are complete with it, in their order."""
        owners = [result for result, clip in inputs if clip is not None]
        clips = [clip for _, clip in inputs if clip is not None]
        if clips:
            scored, share = self.scorer.run(clips), 1 / len(clips)
            for i, result in enumerate(owners):
                result.scores.append(scored.scores[i])
                result.macs.append(int(scored.macs[i]))
                if scored.frames is not None and scored.stages is not None:
                    result.frames.append(scored.frames[i])
                    result.stages.append(scored.stages[i])
                result.selector_macs = scored.selector_macs
                result.prepare += scored.prepare * share
                result.select += scored.select * share
                result.recognise += scored.recognise * share
        done = []
        for result, clip in inputs:
            result.missing -= clip is not None
            if not result.missing:
                done.append(result)
                if not self.clips_kept:
                    result.video.clips = None
        return done

    def results(
        self, videos: Videos, batch_size: int | None = None, order: Iterable[int] | None = None
    ) -> Iterator[VideoResult]:
        """Yield what comes of each video, in their order; no more are in memory than are in work.

        Args:
            videos: the videos.
            batch_size: clips that are run at once; None: the inferencer's.
            order: indices of the videos; None: all of them.
        """
        for batch in self.preprocess(videos, batch_size or self.batch_size, order):
            yield from self.forward(batch)

    # -------------------------------------------------------------------------------- the call

    def __call__(
        self,
        inputs: Any,
        return_datasamples: bool = False,
        batch_size: int | None = None,
        out_dir: str = "",
        pictures: bool = False,
        print_result: bool = False,
    ) -> dict:
        """Predict videos.

        Args:
            inputs: a video, a folder of videos, a pattern, a list (.txt), or a sequence of these; or
                a batch of Ray Data's, whose column ``video`` has paths.
            return_datasamples: predictions are MMAction2's data samples instead of rows.
            batch_size: clips that are run at once; None: the inferencer's.
            out_dir: the folder for ``predictions.jsonl``, a row for each video, and for pictures.
            pictures: draw what was decided for each video; needs ``out_dir``.
            print_result: print the result.

        Returns:
            ``predictions``: for each video a row or a data sample; ``visualization``: the pictures'
            paths, or None. For a batch of Ray Data's, its columns with those of the rows.

        Raises:
            Ada3DError: nothing there, or pictures without a folder.
        """
        if isinstance(inputs, Mapping):
            return self._columns(inputs, batch_size)
        if pictures and not out_dir:
            raise Ada3DError("Ada3DInferencer: pictures=True needs out_dir")
        size = None if batch_size is None else _whole("batch_size", batch_size, 1)
        self.clips_kept, results, drawn = pictures, [], []
        for result in self.results(self._inputs_to_list(inputs), size):
            if pictures:
                drawn += self.visualize([], [result], out_dir)
                result.video.clips = None
            results.append(result)
        done = self.postprocess(results, drawn if pictures else None, return_datasamples)
        if out_dir:
            rows = [json.dumps({**row_of(r, self.names), **scores_of(r)}) + "\n" for r in results]
            files.write_text(Path(out_dir) / "predictions.jsonl", "".join(rows))
        if print_result:
            print(done)
        return done

    def visualize(self, inputs: Any, preds: Sequence[VideoResult], out_dir: str = "") -> list[str]:
        """Draw what was decided for videos whose clips are kept; return the pictures' paths."""
        return [path for result in preds for path in self.draw(result, out_dir)]

    def draw(
        self, result: VideoResult, folder: str | Path, ending: str = "png",
        draw: Callable = policy_pictures.draw_policies,
    ) -> list[str]:  # fmt: skip
        """Draw what was decided for a video whose clips are kept, and return the picture's path.

        There is none of a video that does not decode.

        Args:
            result: complete.
            folder: where the picture goes, under the video's place in the list and its name.
            ending: of the picture's name.
            draw: makes the picture.
        """
        shown = examples_of(result, self.scorer.stage_names, self.names)
        if not shown:
            return []
        name = f"{result.video.index:06d}_{Path(result.video.video.path).stem}.{ending}"
        draw(shown, Path(folder) / name)
        return [str(Path(folder) / name)]

    def postprocess(
        self,
        preds: Sequence[VideoResult],
        visualization: list[str] | None = None,
        return_datasample: bool = False,
    ) -> dict:
        """Return predictions as rows or as data samples, and the pictures' paths."""
        if return_datasample:
            predictions: list = [data_sample(result) for result in preds]
        else:
            predictions = [{**scores_of(r), **row_of(r, self.names)} for r in preds]
        return {"predictions": predictions, "visualization": visualization}

    def _columns(self, batch: Mapping[str, Any], batch_size: int | None) -> dict[str, Any]:
        """Return a batch's columns with those of the rows; what a row lacks is '' or NaN there."""
        if "video" not in batch:
            raise Ada3DError(
                f"Ada3DInferencer: a batch with the columns {', '.join(batch)}; its column 'video' "
                "should have paths"
            )
        videos = self._inputs_to_list([str(video) for video in batch["video"]])
        rows = [row_of(result, self.names) for result in self.results(videos, batch_size)]
        columns = dict(batch)
        for name in (key for key in COLUMNS if key not in ("index", "video", "label")):
            values = [row[name] for row in rows]
            if name in TEXTS:
                columns[name] = np.array([value or "" for value in values], dtype=object)
            else:
                columns[name] = np.array([np.nan if v is None else v for v in values], np.float64)
        return columns


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).partition("\n")[0]
        raise Ada3DError(f"--device {name}: {first}; try cpu") from error
    return device


def _whole(name: str, value: int, low: int) -> int:
    require_number(name, value, low, whole=True)
    return value
