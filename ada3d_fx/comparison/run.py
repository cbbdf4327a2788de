"""One seed and fold of a comparison: how its rows are trained, tested, kept and used again."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from .. import files
from ..errors import Ada3DError
from ..mm import console as mm_console
from ..mm import schema
from ..mm.build import build_runner
from ..mm.checkpoint import check_start, last_checkpoint, load_recognizer, load_weights
from ..mm.checks import check_config
from ..mm.config import calibration_list, load_config, merge, training_list
from ..mm.metric import row_of
from ..mm.testing import calibrate, record_policies
from ..progress import Console, quiet
from ..provenance import made_from
from ..provenance.command import command_line, versions
from ..provenance.fingerprints import fingerprint
from ..provenance.made_from import MadeOtherwise, Record
from ..report import records
from . import matching

Options = Mapping[str, Any]  # entries of the config's model, by dotted keys
NOTHING: Options = {}


class NotMade(Exception):
    """A row is not there, and this run only looks."""


class Weights(NamedTuple):
    """A checkpoint, and what was in it when it was made or given."""

    path: str
    fingerprint: str


@dataclass(frozen=True)
class Setup:
    """What all runs of a comparison have in common."""

    config: str  # path of an Ada3D config
    cfg_options: Sequence[str] = ()  # KEY=VALUE, for every row
    recognizer_checkpoint: str | None = None  # {seed} and {fold} stand for the run's
    work_dir: str | None = None  # None: the config's
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # row -> entries
    calibrate_on: str = "train"  # the list on which a budget's threshold is set
    redo: bool = False  # make anew what was made from something else, and keep the old beside it


class ComparisonRun:
    """The rows of one seed and fold.

    A row's result is DIR/RUN/ROW/result.json: ``row`` (see `tables.COLUMNS`), ``clips`` (see
    `records.POLICY_FIELDS`), and what it was made from and by. A result, the checkpoints of a row
    and the warm-up are used again only where they were made from the same: see `made_from`.

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
        self.config_path, self.redo = setup.config, setup.redo
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
        self.makes = True
        self._told: set[Path] = set()  # files that were said to be broken

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

    def looking(self) -> ComparisonRun:
        """Return this run as one that makes nothing: `NotMade` is raised where it would.

        It raises `MadeOtherwise` for what cannot be used again, whatever ``redo`` says.
        """
        run = copy.copy(self)
        run.makes = run.redo = False
        return run

    @property
    def phases(self) -> list[dict]:
        """The config's training phases."""
        return matching.phases_of(self.config)

    @property
    def start_weights(self) -> Weights:
        """The recognizer's checkpoint with which rows start."""
        return Weights(self.start, fingerprint(self.start))

    @cached_property
    def model(self):
        """The config's model: its plan and prices are used, not its weights.

        Runs of the same networks share it.
        """
        told = self.config.model.to_dict() | {"recognizer_checkpoint": None, "objective": None}
        if repr(told) not in _MODELS:
            _MODELS.clear()
            with quiet():
                _MODELS[repr(told)] = build_runner(self._config("plan")).model
        return _MODELS[repr(told)]

    # --------------------------------------------------------------------- what is there already

    def result(self, name: str) -> dict | None:
        """Read a row's result as it is, or give None where there is none that is whole."""
        path = self.folder / name / "result.json"
        if not path.is_file():
            return None
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(result["row"], dict) and isinstance(result["clips"], list):
                result["seed"], result["fold"], result["checkpoint"]  # KeyError in a foreign file
                return result
        except (OSError, ValueError, KeyError, TypeError):
            pass
        if path not in self._told:
            self._told.add(path)
            self.console.say(f"  {path} is cut off, or no result of this tool: it does not count")
        return None

    def weights_of(self, result: Mapping) -> Weights:
        """Return the checkpoint of a result; it is in this run's folder, wherever that is now."""
        inside = self.folder / result["checkpoint"]
        path = inside if inside.is_file() else Path(result["checkpoint"])
        return Weights(str(path), result.get("weights", "unknown"))

    @cached_property
    def _plain_record(self) -> Record:
        return self._record(copy.deepcopy(self.config))

    def _record(self, config: Config) -> Record:
        """Return what a row of this config is made from."""
        record = made_from.record_of(config)
        if (config.model.get("objective") or {}).get("budget") is not None:
            loader = calibration_list(config, self.calibrate_on)
            record |= made_from.entries_of(loader, "calibration.test_dataloader")
        return record

    def _is_reusable(self, result: Mapping | None, record: Record) -> bool:
        return result is not None and result.get("made_from") == record

    def _replace(self, path: Path, found: Sequence[str]) -> None:
        """Move a part aside that was made from something else, or refuse to.

        Raises:
            MadeOtherwise: without ``redo``.
        """
        if not self.redo:
            raise MadeOtherwise({path: found})
        aside = made_from.set_aside(path)
        told = "; ".join(made_from.shortened(found))
        self.console.say(f"  {path} is made anew, the old one is {aside.name} now: {told}")

    def _make_way(self, folder: Path, record: Record, result: Mapping | None = None) -> None:
        """Leave in a folder only what a training of this record may go on from.

        Args:
            folder: of a row, or of the warm-up.
            record: what the training is made from.
            result: the row's result, if there is one.

        Raises:
            MadeOtherwise: there is something else, and no ``redo``.
        """
        if result is not None or any(folder.glob("[!.]*.pth")):
            found = made_from.differences(made_from.read(folder), record)
            if found:
                self._replace(folder, found)

    # -------------------------------------------------------------------------------- training

    def train(
        self,
        name: str,
        phases: Sequence[dict] | None = None,
        options: Options = NOTHING,
        told: Mapping[str, Any] | None = None,
    ) -> dict:
        """Train a row, test its last checkpoint, and return the result.

        What is there already and was made from the same is not made again.

        Args:
            name: the row's name, and its folder's.
            phases: the training phases; None: those of the row's config.
            options: entries of the model that differ from the config's, such as testing.policy.
            told: what the result tells beside, of how the row came about.

        Raises:
            MadeOtherwise: the row is there, but was made from something else.
            NotMade: this run only looks.
        """
        begin, config = time.monotonic(), self._config(name, options)
        phases = matching.phases_of(config) if phases is None else phases
        matching.set_phases(config, phases)
        record, result, folder = self._record(config), self.result(name), self.folder / name
        record |= made_from.entries_of(told, "told") if told else {}
        if self._is_reusable(result, record):
            return result
        training = made_from.for_training(record)
        self._make_way(folder, training, result)
        if result is not None and (folder / "result.json").is_file():  # only its test differs
            found = made_from.differences(result.get("made_from"), record)
            self._replace(folder / "result.json", found)
        self._look_at_warmup(name, phases)
        if not self.makes:
            raise NotMade(name)
        made_from.write(folder, training)
        self._trainer(name, phases, options).train()
        checkpoint = last_checkpoint(folder)
        weights = Weights(checkpoint, fingerprint(checkpoint))
        seconds = time.monotonic() - begin
        return self._test(name, weights, options, record, seconds=seconds, told=told)

    def _trainer(self, name: str | Path, phases: Sequence[dict], options: Options = NOTHING):
        config = self._config(name, options)
        matching.set_phases(config, phases)
        last = last_checkpoint(config.work_dir)
        if last is None and self._shares_warmup(name, phases):
            last = self._warmed_up(phases[0])
        config.load_from, config.resume = last, last is not None
        runner = mm_console.build_runner(config, self.console, self._title(name))
        check_start(runner)
        return runner

    def _shares_warmup(self, name: str | Path, phases: Sequence[dict]) -> bool:
        """Whether a row begins with a warm-up, and changes nothing that a warm-up reads or keeps."""
        entries = self.variants.get(str(name), {})
        changed = [f"model.{key.removeprefix('model.')}" for key in entries]
        return (
            phases[0]["name"] == "warmup"
            and len(phases) > 1
            and all(key.startswith(made_from.AFTER_WARMUP) for key in changed)
            and not any(key in made_from.KIND_OF_ESTIMATOR for key in changed)
        )

    def _look_at_warmup(self, name: str, phases: Sequence[dict]) -> None:
        """See to it that the warm-up may be used, where the row needs it."""
        if self._shares_warmup(name, phases) and last_checkpoint(self.folder / name) is None:
            config = self._config(self.warm_start)
            matching.set_phases(config, [phases[0]])
            record = made_from.for_warmup(self._record(config))
            self._make_way(self.warm_start, record)

    def _warmed_up(self, phase: dict) -> str | None:
        """Return the checkpoint after the warm-up, which is the same for all rows that have one."""
        folder = self.warm_start
        if not (folder / "done").is_file():
            config = self._config(folder)
            matching.set_phases(config, [phase])
            made_from.write(folder, made_from.for_warmup(self._record(config)))
            self._trainer(folder, [phase]).train()
            files.write_text(folder / "done", "")
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

    # ------------------------------------------------------------------------------- searching

    def search(
        self, name: str, asked: Mapping[str, Any], options: Options, find: Callable[[Any], dict]
    ) -> dict:
        """Return what a search with the recognizer after the warm-up finds; it is kept.

        Args:
            name: of the folder in which it is kept.
            asked: what the search depends on beside the config, ready for JSON.
            options: entries of the model that differ from the config's, such as testing.policy.
            find: from a runner with that recognizer to what is found, ready for JSON.

        Raises:
            MadeOtherwise: it is there, but was made from something else.
            NotMade: it is not there, and this run only looks.
        """
        phases = matching.random_phases(self.phases, "fixed")
        path, config = self.folder / name / "found.json", self._config(name)
        matching.set_phases(config, phases[:1])
        record = made_from.for_warmup(self._record(config))
        record |= made_from.entries_of(training_list(config), "search.dataloader")
        record |= made_from.entries_of(asked, "search")
        if found := self._found(path):
            if found.get("made_from") == record:
                return found["found"]
            self._replace(path.parent, made_from.differences(found.get("made_from"), record))
        self._look_at_warmup(name, phases)
        if not self.makes:
            raise NotMade(name)
        weights = self.start_weights
        if self._shares_warmup(name, phases):
            warm = self._warmed_up(phases[0])
            weights = Weights(warm, fingerprint(warm))
        runner = self._tester(name, options)
        load_weights(runner.model, weights.path)
        found = {"found": find(runner), "weights": weights.fingerprint, "made_from": record}
        records.write_json(path, found)
        return found["found"]

    @staticmethod
    def _found(path: Path) -> dict:
        """Read what a search left; nothing where there is no file or one that is cut off."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return found if isinstance(found["found"], dict) else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    # --------------------------------------------------------------------------------- testing

    def test(
        self,
        name: str,
        weights: Weights,
        options: Options = NOTHING,
        recognizer: Weights | None = None,
        policies: Sequence[Mapping] | None = None,
    ) -> dict:
        """Test a checkpoint as a row, keep the result and give it.

        A result that is there already and was made from the same is given as it is.

        Args:
            name: the row's name, and its folder's.
            weights: the checkpoint.
            options: entries of the model that differ from the config's, such as testing.policy.
            recognizer: another checkpoint whose recognizer is tested.
            policies: execute these, rows of `records.POLICY_FIELDS`.

        Raises:
            MadeOtherwise: the row is there, but was made from something else.
            NotMade: this run only looks.
        """
        record = made_from.for_testing(self._record(self._config(name, options)))
        record["checkpoint"] = weights.fingerprint
        if recognizer is not None:
            record["checkpoint of the recognizer"] = recognizer.fingerprint
        if policies is not None:
            record["policies"] = made_from.digest(policies)
        result = self.result(name)
        if self._is_reusable(result, record):
            return result
        if result is not None:
            found = made_from.differences(result.get("made_from"), record)
            self._replace(self.folder / name, found)
        if not self.makes:
            raise NotMade(name)
        if policies is not None:
            path = self.folder / name / "recorded.json"
            records.write_policies(path, policies)
            options = {**options, "testing.policy": "recorded", "testing.policy_file": str(path)}
        return self._test(name, weights, options, record, recognizer)

    def _test(
        self,
        name: str,
        weights: Weights,
        options: Options,
        record: Record,
        recognizer: Weights | None = None,
        seconds: float = 0.0,
        told: Mapping[str, Any] | None = None,
    ) -> dict:
        """Test a checkpoint, whatever is there, and keep the result with what made it."""
        folder = self.folder / name
        paths = [unchanged(one) for one in (weights, recognizer) if one is not None]
        runner = self._tester(name, options)
        model, thresholds = runner.model, None
        load_weights(model, paths[0])
        if recognizer is not None:
            load_recognizer(model.recognizer, paths[1])
        budget, tested = model.estimator.objective.budget, model.testing_options
        learned = tested.policy == "learned" and tested.predict_with != "selector"
        if budget is not None and learned and model.random_part == "none":
            clips = runner.build_dataloader(calibration_list(self.config, self.calibrate_on))
            title = f"{self._title(name)}: setting the threshold"
            thresholds = calibrate(
                runner, clips, budget, track=lambda loader: self.console.track(loader, title)
            )
        row = row_of(name, runner.test())
        row["train_seconds"] = round(seconds, 1)
        result = {"row": row, "clips": records.read_clips(folder / "policies.json")}
        result |= {"seed": self.seed, "fold": self.fold}
        result |= {"checkpoint": self._inside(weights.path), "weights": weights.fingerprint}
        result |= {} if told is None else {"told": dict(told)}
        result |= {} if thresholds is None else thresholds.entries()
        result |= {"command": command_line(), "config": str(self.config_path)}
        result |= {
            "versions": versions(),
            "own_keys": made_from.own_keys(record, self._plain_record),
        }
        result["made_from"] = record
        if (folder / "result.json").is_file():  # a broken one, or a foreign one
            made_from.set_aside(folder / "result.json")
        records.write_json(folder / "result.json", result)
        return result

    def _inside(self, path: str) -> str:
        """Return a path relative to the run's folder if it is in it, so that a copy has its own."""
        if Path(path).is_relative_to(self.folder):
            return str(Path(path).relative_to(self.folder))
        return str(path)

    def _tester(self, name: str, options: Options = NOTHING):
        config = self._config(name, options)
        config.load_from, config.resume = None, False
        record_policies(config, str(self.folder / name / "policies.json"))
        return mm_console.build_runner(config, self.console, self._title(name))

    def tester(self, result: Mapping):
        """Build a runner with the checkpoint of a result, its threshold set."""
        runner = self._tester("pictures")
        load_weights(runner.model, unchanged(self.weights_of(result)))
        model = runner.model
        tested = model.testing_options
        tested.threshold = result.get("threshold", tested.threshold)
        model.exit = result.get("exit", model.exit)
        return runner


_MODELS: dict[str, Any] = {}  # the last of `ComparisonRun.model`, by its config


def unchanged(weights: Weights) -> str:
    """Return the path of a checkpoint that still holds what it held.

    Raises:
        Ada3DError: it is missing, or another one now.
    """
    if not Path(weights.path).is_file():
        raise Ada3DError(f"checkpoint: no file at {weights.path}; it is needed for another row")
    found = fingerprint(weights.path)
    if found != weights.fingerprint:
        raise Ada3DError(
            f"checkpoint: {weights.path} has changed since its result was made: {weights.fingerprint} "
            f"-> {found}; try --redo with the row's folder removed, or another --work-dir"
        )
    return weights.path
