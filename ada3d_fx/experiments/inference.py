"""From many videos to rows: in one process or several, killed and gone on with, and a summary."""

from __future__ import annotations

import array
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.dist import all_gather_object, barrier, get_rank, get_world_size, init_dist
from torch import distributed

from ..errors import Ada3DError
from ..mm import processes
from ..mm.config import class_names, load_config
from ..mm.console import only_warnings
from ..mm.exported import is_exported, open_session
from ..mm.inference_config import InferenceOptions, dataset_of, find, prepare_config
from ..mm.inferencer import Ada3DInferencer
from ..mm.results import COLUMNS, VideoResult, row_of
from ..progress import Console, duration, is_main_process
from ..provenance import fingerprints, made_from
from ..provenance.command import provenance
from ..report import policy_pictures, records
from ..runtime.session import Session
from ..videos.inputs import Videos
from .inference_profile import Profile, merged
from .inference_summary import summary
from .journal import Journal

WAIT = 30 * 24 * 3600  # seconds that the first process waits for the last
# The code that makes the rows.
CODE = (
    *("mm/inference_config", "mm/inferencer", "videos/inputs", "mm/normalising", "mm/results"),
    *("mm/scoring", "videos/streaming", "mm/exported"),
    *("runtime/contract", "runtime/engines", "runtime/session"),
)


@dataclass(frozen=True)
class RunOptions:
    """How videos are inferred."""

    out: str | None = None  # the rows, .jsonl or .csv; None: they are not kept
    model: InferenceOptions = field(default_factory=InferenceOptions)
    also: tuple[str, str] | None = None  # config and checkpoint of a second model, for comparison
    batch_size: int = 8  # clips that are run at once
    workers: int | None = None  # processes that decode, for each that infers; None: by the cores
    device: str | None = None  # None: a GPU if there is one
    pictures: str | None = None  # a folder for pictures of what was decided
    animations: str | None = None  # a folder for animations of it
    scores: bool = False  # keep the scores of all classes
    redo: bool = False  # set aside what was made from something else
    json: str | None = None  # write the summary to this file
    profile: bool = False  # tell where the seconds went
    launcher: str = "none"  # 'pytorch', 'slurm' or 'mpi' in several processes


class Model(NamedTuple):
    """One of the models that predict."""

    name: str
    path: str  # of its config
    config: Config
    checkpoint: str
    options: InferenceOptions
    session: Session | None = None  # of an exported file


def infer(
    path: str,
    cfg_options: Sequence[str],
    checkpoint: str,
    inputs: Sequence[str],
    options: RunOptions,
    console: Console,
) -> str | None:
    """Predict videos, and return a table of few and a summary of all of them.

    It is None in all processes but the first.

    Args:
        path: an Ada3D config or a plain recognizer's.
        cfg_options: KEY=VALUE entries of it.
        checkpoint: its checkpoint, or an exported file.
        inputs: videos, folders, patterns and lists.
        options: how.
        console: where progress is shown.

    Raises:
        Ada3DError: bad input, told before the first video; or rows that another run made.
        OSError: the rows cannot be written.
    """
    begin = time.monotonic()
    models = _models(path, cfg_options, checkpoint, options)
    _join(models[0].config, options)
    only_warnings(console)
    videos = find(models[0].config, inputs, options.model.data_prefix)
    names = [model.name for model in models]

    def place(row: Mapping[str, Any]) -> int:
        index = row["index"]
        if row["video"] != videos[index].path or index < 0:
            raise ValueError(f"video {index} is {videos[index].path}, not {row['video']}")
        return index * len(names) + names.index(row["model"])

    with ExitStack() as stack:
        folder = None if options.out else stack.enter_context(TemporaryDirectory())
        out = options.out or f"{folder}/rows.jsonl"
        journal = Journal(out, len(videos) * len(names), place)
        profiles = _make(models, videos, journal, options, console)
        if not is_main_process():
            return None
        told, found = summary(journal, names)
    seconds, made = time.monotonic() - begin, sum(profile.videos for profile in profiles)
    found["profiles"] = [profile.found() for profile in profiles]
    if options.profile:
        told = "\n\n".join([told, *(profile.text() for profile in profiles)])
    if options.json:
        records.write_json(options.json, {**found, **provenance(path, begin)})
    speed = f"{made} predicted in {duration(seconds)}, {made / seconds:.3g} a second"
    return f"{told}\n\n{speed if made else 'all were there'}" + f"\n{out}" * bool(options.out)


def _models(
    path: str, cfg_options: Sequence[str], checkpoint: str, options: RunOptions
) -> list[Model]:
    """Read the configs; the options are the first model's, but for how lists are read."""
    given = [(path, cfg_options, checkpoint, options.model)]
    if options.also:
        shared = InferenceOptions(data_prefix=options.model.data_prefix)
        given.append((options.also[0], (), options.also[1], shared))
    models: list[Model] = []
    for config_path, entries, weights, how in given:
        config = load_config(config_path, entries)
        prepare_config(config, how, is_exported(weights))
        if not Path(weights).is_file():
            raise Ada3DError(f"checkpoint: no file at {weights}")
        session = None
        if is_exported(weights):
            session = open_session(weights, config, how, options.device)
        name = Path(config_path).stem
        if any(name == other.name for other in models):
            name = f"{name}, {Path(weights).name if session else Path(weights).stem}"
            name += ", also" if any(name == other.name for other in models) else ""
        models.append(Model(name, config_path, config, weights, how, session))
    return models


def _join(config: Config, options: RunOptions) -> None:
    """Join the processes of a distributed run; they wait for each other at the start and the end.

    Raises:
        Ada3DError: the launcher did not start this process, or there is no place for all their rows.
    """
    if options.launcher != "none" and not options.out:
        raise Ada3DError("several processes need --out FILE, beside which each writes its rows")
    config.launcher = options.launcher
    env_cfg = config.get("env_cfg") or {}
    config.env_cfg = {**env_cfg, "dist_cfg": {"backend": "gloo", "timeout": WAIT}}
    processes.prepare(config)
    if options.launcher != "none" and not distributed.is_initialized():  # on GPUs
        init_dist(options.launcher, backend="gloo", timeout=WAIT)


# -------------------------------------------------------------------------------- the rows


def _make(
    models: Sequence[Model], videos: Videos, journal: Journal, options: RunOptions,
    console: Console,
) -> list[Profile]:  # fmt: skip
    """Make the rows that are not there, and return where their seconds went, in all processes."""
    record, rank = _record(models, videos, options), get_rank()
    if rank == 0:
        journal.check_free()
        journal.begin(record, options.redo)
    barrier()
    different = made_from.differences(journal.record(), record)
    if different:
        raise Ada3DError(
            f"process {rank} would make other rows than process 0: "
            f"{'; '.join(made_from.shortened(different))}; have all machines the same files, and is "
            f"{journal.out} in a folder that they share?"
        )
    made: list[Profile] = []
    with journal.held(rank):
        whole = journal.complete
        there = None if whole else journal.places()[0]
        barrier()  # before anything is appended, or removed
        for number, model in enumerate(models if there is not None else ()):
            lacking = array.array(
                "q", (i for i in range(len(videos)) if there[i * len(models) + number] < 0)
            )
            if lacking:
                names = class_names(models[0].config)
                made.append(_predict(model, names, videos, lacking, journal, options, console))
        made = merged([one for share in all_gather_object(made) for one in share])
        if rank == 0:
            journal.remove_parts() if whole else journal.merge(columns(models, options))
        barrier()
    return made


def _predict(
    model: Model, names: Mapping[int, str], videos: Videos, lacking: Sequence[int],
    journal: Journal, options: RunOptions, console: Console,
) -> Profile:  # fmt: skip
    """Append this process's share of the rows that a model lacks, and return where its seconds went.

    ``names`` are of the classes, where the model's config has none.
    """
    rank, world, begin = get_rank(), get_world_size(), time.perf_counter()
    inferencer = _inferencer(model, journal, options, console)
    inferencer.names = inferencer.names or names
    inferencer.clips_kept = bool(options.pictures or options.animations)
    mine = lacking[rank::world]
    done = (len(videos) - len(lacking)) // world
    profile = Profile(model.name, start=time.perf_counter() - begin)
    with console.bar(f"predicting ({model.name})", len(mine) + done, done) as bar:
        profile.begin()
        for result in inferencer.results(videos, order=mine):
            begin = time.perf_counter()
            _draw(result, inferencer, model, options)
            row = {"model": model.name, **row_of(result, inferencer.names)}
            if options.scores:
                row["scores"] = result.score.tolist() if result.scores else None
            journal.add(row, rank)
            profile.add(result, writing=time.perf_counter() - begin)
            bar.advance()
        profile.end()
    return profile


def _inferencer(
    model: Model, journal: Journal, options: RunOptions, console: Console
) -> Ada3DInferencer:
    """Build the inferencer of a model, with the dials that an earlier start found, if one did."""
    key, how = f"dials of {model.name}", model.options
    known = journal.noted(key)
    barrier()  # before the first process notes what it finds
    searched = how.gmacs is not None and not known
    inferencer = Ada3DInferencer(
        model.config, model.session or model.checkpoint, options.device,
        batch_size=options.batch_size,
        num_workers=options.workers, console=console,
        **(how if searched else how._replace(gmacs=None))._asdict(),
    )  # fmt: skip
    if known:
        inferencer.set_dials(known)
    if searched:
        told = ", ".join(f"{name} {value:.4f}" for name, value in inferencer.dials.items())
        console.say(f"for {how.gmacs:.4g} GMACs per clip: {told}")
        if get_rank() == 0:
            journal.note(key, inferencer.dials)
    return inferencer


def _draw(
    result: VideoResult, inferencer: Ada3DInferencer, model: Model, options: RunOptions
) -> None:
    """Draw what was decided for a video, where that is asked for, and let go of its pixels."""
    if inferencer.clips_kept:
        for folder, ending, draw in (
            (options.pictures, "png", policy_pictures.draw_policies),
            (options.animations, "gif", policy_pictures.animate),
        ):
            if folder:
                inferencer.draw(result, Path(folder) / model.name, ending, draw)
        result.video.clips = None


def columns(models: Sequence[Model], options: RunOptions) -> list[str]:
    """The columns of a .csv file."""
    return ["model", *COLUMNS, *(["scores"] if options.scores else [])]


def _record(models: Sequence[Model], videos: Videos, options: RunOptions) -> dict[str, Any]:
    """Return what the rows are made from."""
    record: dict[str, Any] = {"input": videos.digest, "scores": options.scores}
    for number, model in enumerate(models):
        config = model.config
        parts: dict[str, Any] = {"model": config.model, "pipeline": dataset_of(config)["pipeline"]}
        parts["custom_imports"] = config.get("custom_imports") or {}
        prefix = "also: " if number else ""
        found = made_from.record_of(Config(parts))
        record |= {f"{prefix if '.' in key else ''}{key}": value for key, value in found.items()}
        record[f"{prefix}name"] = model.name
        record[f"{prefix}checkpoint"] = fingerprints.fingerprint(model.checkpoint)
        names = config.get("class_file")
        if names and Path(names).is_file():
            record[f"{prefix}class_file"] = fingerprints.fingerprint(names)
        if model.options.gmacs is not None:
            record[f"{prefix}--gmacs"] = model.options.gmacs
            record[f"{prefix}--calibrate-on"] = model.options.calibrate_on
        if model.session:  # whose config does not say it
            record[f"{prefix}--policy"] = model.options.policy
            record[f"{prefix}--threshold"] = model.options.threshold
            engine = model.session.engine_name
            record[f"version of {engine}"] = metadata.version(engine)
    for name in CODE:
        path = fingerprints.PACKAGE / f"{name}.py"
        code = fingerprints.bare_code(path.read_text(encoding="utf-8"))
        record[f"code of ada3d_fx/{name}"] = made_from.digest(code)
    return json.loads(json.dumps(record))  # as it is read back
