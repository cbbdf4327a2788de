"""One seed and fold of a comparison: how its rows are trained, tested and kept."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..cli import quiet
from ..errors import Ada3DError
from ..mm import console as mm_console
from ..mm import schema
from ..mm.build import build_runner
from ..mm.checkpoint import check_start, last_checkpoint, load_recognizer, load_weights
from ..mm.checks import check_config
from ..mm.config import calibration_list, load_config, merge
from ..mm.metric import row_of
from ..mm.testing import calibrate, record_policies
from ..progress import Console
from ..report import records
from . import matching
from .provenance import versions

Options = Mapping[str, Any]  # entries of the config's model, by dotted keys
NOTHING: Options = {}


@dataclass(frozen=True)
class Setup:
    """What all runs of a comparison have in common."""

    config: str  # path of an Ada3D config
    cfg_options: Sequence[str] = ()  # KEY=VALUE, for every row
    recognizer_checkpoint: str | None = None  # {seed} and {fold} stand for the run's
    work_dir: str | None = None  # None: the config's
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # row -> entries
    calibrate_on: str = "train"  # the list on which a budget's threshold is set


class ComparisonRun:
    """The rows of one seed and fold.

    A row's result is DIR/RUN/ROW/result.json: ``row`` (see `tables.COLUMNS`) and ``clips`` (see
    `records.POLICY_FIELDS`).

    Args:
        setup: what the runs have in common.
        seed: the random seed.
        fold: the value of the config's ``fold``; None: the config's own.
        console: where progress is shown.
        warm_start: the folder of the warm-up that several runs share; None: the run's own.

    Raises:
        Ada3DError: the config of a plain recognizer.
    """

    def __init__(
        self, setup: Setup, seed: int, fold: int | None = None, console: Console | None = None,
        warm_start: Path | None = None,
    ):  # fmt: skip
        options = [*setup.cfg_options, *([] if fold is None else [f"fold={fold}"])]
        self.config = load_config(setup.config, options)
        if self.config.model.get("type") != "Ada3DRecognizer":
            raise Ada3DError(f"{setup.config}: its model is no Ada3DRecognizer; nothing to compare")
        self.seed, self.fold, self.count = seed, fold, 0
        self.console, self.variants = console or Console(), setup.variants
        self.calibrate_on = setup.calibrate_on
        self.name = f"seed{seed}" + ("" if fold is None else f"_fold{fold}")
        work_dir = setup.work_dir or self.config.get("work_dir") or "work_dirs/compare"
        self.folder = Path(work_dir) / self.name
        self.warm_start = warm_start or self.folder / "warmup"
        self.config.randomness = {**(self.config.get("randomness") or {}), "seed": seed}
        start = setup.recognizer_checkpoint or self.config.model.get("recognizer_checkpoint")
        self.start = start and start.format(seed=seed, fold=fold)
        self.config.model.recognizer_checkpoint = self.start

    def check(self) -> None:
        """Look for what the run will read.

        Raises:
            Ada3DError: no trained recognizer, bad lists or videos, or wrong entries of a variant.
        """
        for name in self.variants:
            config = self._config(name)
            schema.check(config, set(config) - set(self.config))
        if not self.start or not Path(self.start).is_file():
            raise Ada3DError(
                f"--recognizer-checkpoint: no trained recognizer at {self.start}; train the recognizer "
                "alone first (its *_stage0.py config)"
            )
        check_config(self.config, ("train", "val", "test"))

    def result(self, name: str) -> dict | None:
        """Read a row's result, or give None where it is not made yet."""
        path = self.folder / name / "result.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    @property
    def phases(self) -> list[dict]:
        """The config's training phases."""
        return matching.phases_of(self.config)

    @cached_property
    def model(self):
        """The config's model: its plan and prices are used, not its weights."""
        with quiet():
            return build_runner(self._config("plan")).model

    # -------------------------------------------------------------------------------- training

    def train(
        self, name: str, phases: Sequence[dict] | None = None, options: Options = NOTHING
    ) -> dict:
        """Train a row, test its last checkpoint, and return the result.

        Args:
            name: the row's name, and its folder's.
            phases: the training phases; None: those of the row's config.
            options: entries of the model that differ from the config's, such as testing.policy.
        """
        begin = time.monotonic()
        if phases is None:
            phases = matching.phases_of(self._config(name))
        self._trainer(name, phases, options).train()
        checkpoint = last_checkpoint(self.folder / name)
        return self.test(name, checkpoint, options, time.monotonic() - begin)

    def _trainer(self, name: str | Path, phases: Sequence[dict], options: Options = NOTHING):
        config = self._config(name, options)
        matching.set_phases(config, phases)
        last = last_checkpoint(config.work_dir)
        warm = phases[0]["name"] == "warmup" and len(phases) > 1
        if last is None and warm and self._shares_warmup(name):
            last = self._warmed_up(phases[0])
        config.load_from, config.resume = last, last is not None
        runner = mm_console.build_runner(config, self.console, self._title(name))
        check_start(runner)
        return runner

    def _shares_warmup(self, name: str | Path) -> bool:
        """Whether a variant changes nothing that a warm-up reads."""
        later = ("objective.", "training.classify", "testing.")
        entries = self.variants.get(str(name), {})
        return all(key.removeprefix("model.").startswith(later) for key in entries)

    def _warmed_up(self, phase: dict) -> str | None:
        """Return the checkpoint after the warm-up, which is the same for all rows that have one."""
        folder = self.warm_start
        if not (folder / "done").is_file():
            self._trainer(folder, [phase]).train()
            (folder / "done").touch()
        return last_checkpoint(folder)

    def _config(self, name: str | Path, options: Options = NOTHING) -> Config:
        """Copy the config; its work dir is this path, or what has this name in the run's."""
        config = copy.deepcopy(self.config)
        merge(config, self.variants.get(str(name), {}), f"--variant {name}: the config")
        config.merge_from_dict({f"model.{key}": value for key, value in options.items()})
        config.work_dir = str(name if isinstance(name, Path) else self.folder / name)
        self.count += 1  # MMEngine wants another name for each runner of a process
        config.experiment_name = f"{self.folder}_{Path(name).name}_{self.count}".replace("/", "_")
        return config

    def _title(self, name: str | Path) -> str:
        return self.name if isinstance(name, Path) else f"{self.name}, {name}"

    # --------------------------------------------------------------------------------- testing

    def test(
        self,
        name: str,
        checkpoint: str | None,
        options: Options = NOTHING,
        seconds: float = 0.0,
        recognizer: str | None = None,
    ) -> dict:
        """Test a checkpoint as a row, keep the result and give it.

        Args:
            name: the row's name, and its folder's.
            checkpoint: the checkpoint's path.
            options: entries of the model that differ from the config's, such as testing.policy.
            seconds: how long its training took.
            recognizer: another checkpoint whose recognizer is tested.
        """
        folder = self.folder / name
        runner = self._tester(name, options)
        load_weights(runner.model, checkpoint)
        model, threshold = runner.model, None
        if recognizer is not None:
            load_recognizer(model.recognizer, recognizer)
        budget, tested = model.estimator.objective.budget, model.testing_options
        learned = tested.policy == "learned" and tested.predict_with != "selector"
        if budget is not None and learned and model.random_part == "none":
            clips = runner.build_dataloader(calibration_list(self.config, self.calibrate_on))
            title = f"{self._title(name)}: setting the threshold"
            threshold = calibrate(
                runner, clips, budget, track=lambda loader: self.console.track(loader, title)
            )
        row = row_of(name, runner.test())
        row["train_seconds"] = round(seconds, 1)
        result = {"row": row, "clips": records.read_clips(folder / "policies.json")}
        result |= {"seed": self.seed, "fold": self.fold, "checkpoint": str(checkpoint)}
        result |= {} if threshold is None else {"threshold": threshold}
        records.write_json(folder / "result.json", {**result, "versions": versions()})
        return result

    def _tester(self, name: str, options: Options = NOTHING):
        config = self._config(name, options)
        config.load_from, config.resume = None, False
        record_policies(config, str(self.folder / name / "policies.json"))
        return mm_console.build_runner(config, self.console, self._title(name))

    def tester(self, result: Mapping):
        """Build a runner with the checkpoint of a result, its threshold set."""
        runner = self._tester("pictures")
        load_weights(runner.model, result["checkpoint"])
        tested = runner.model.testing_options
        tested.threshold = result.get("threshold", tested.threshold)
        return runner
