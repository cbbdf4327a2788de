"""The test of one checkpoint: accuracy, and what its policies cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from ..errors import Ada3DError
from ..mm import console as mm_console
from ..mm import schema
from ..mm.checkpoint import load_weights
from ..mm.checks import check_config
from ..mm.config import calibration_list, forget_start, load_config, require, set_policy
from ..mm.metric import row_of
from ..mm.testing import calibrate, record_policies
from ..progress import Console, is_main_process
from ..provenance.command import provenance
from ..report import records, tables


@dataclass(frozen=True)
class EvaluationOptions:
    """How a checkpoint is tested."""

    policy: str | None = None  # as --policy takes it; None: the config's
    gmacs: float | None = None  # GMACs per clip for which the threshold is set
    calibrate_on: str = "val"  # the list on which it is set
    work_dir: str | None = None  # None: the config's, or work_dirs/CONFIG
    policies: str | None = None  # write each clip's policy here; None: to the work dir
    dump: str | None = None  # write the predictions to this .pkl file
    json: str | None = None  # write the metrics to this file
    seed: int | None = None  # None: the config's
    launcher: str = "none"  # 'pytorch', 'slurm' or 'mpi' in distributed runs


def evaluate(
    path: str,
    cfg_options: Sequence[str],
    checkpoint: str,
    options: EvaluationOptions,
    console: Console,
) -> str | None:
    """Test a checkpoint and return the summary.

    It is None where nothing measures policies, and in all processes but the first.

    Args:
        path: an Ada3D config or a plain recognizer's.
        cfg_options: KEY=VALUE entries of it.
        checkpoint: its checkpoint, or a plain recognizer's.
        options: how it is tested.
        console: where progress is shown.

    Raises:
        Ada3DError: bad input, told before the test starts, or a cost that cannot be met.
    """
    begin = time.monotonic()
    config = testing_config(path, cfg_options, options)
    policies = options.policies or str(Path(config.work_dir) / "policies.json")
    recorded = record_policies(config, policies)
    if options.policies and not recorded:
        raise Ada3DError("--policies: the config's test_evaluator has no PolicyCostMetric")
    if not Path(checkpoint).is_file():
        raise Ada3DError(f"checkpoint: no file at {checkpoint}")
    calibrated = options.gmacs is not None
    check_config(config, (options.calibrate_on, "test") if calibrated else ("test",))
    runner = mm_console.build_runner(config, console)
    load_weights(runner.model, checkpoint)
    console.say(f"log: {runner.logger.log_file}")
    if calibrated:
        loader = runner.build_dataloader(calibration_list(config, options.calibrate_on))
        thresholds = calibrate(
            runner,
            loader,
            options.gmacs,
            lambda clips: console.track(clips, "setting the threshold"),
        )
        console.say(f"threshold for {options.gmacs:.4g} GMACs per clip: {thresholds}")
    metrics = runner.test()
    if not is_main_process():  # it has written the policies, where other machines may not see them
        return None
    if options.json:
        row = row_of("tested", metrics)
        left_out = [
            {"video": one.video, "why": one.why} for one in runner.test_loop.evaluator.left_out
        ]
        content = {"row": row, "left_out": left_out, **provenance(path, begin)}
        records.write_json(options.json, content)
    if not recorded:
        return None
    clips = records.read_clips(policies)
    return f"{summary(metrics, clips)}\neach clip's policy and price: {policies}"


def testing_config(path: str, cfg_options: Sequence[str], options: EvaluationOptions) -> Config:
    """Read a config and set the options in it; its ``test_evaluator`` is a list then.

    Raises:
        Ada3DError: no such config, a policy that it does not take, or a bad file name.
    """
    config = load_config(path, cfg_options)
    require(config, "test_dataloader", "test_cfg", "test_evaluator")
    config.launcher = options.launcher
    default = f"work_dirs/{Path(path).stem}"
    config.work_dir = options.work_dir or config.get("work_dir") or default
    config.load_from, config.resume = None, False
    forget_start(config)
    if options.policy:
        set_policy(config, options.policy)
    if options.seed is not None:
        config.randomness = {"seed": options.seed}
        schema.check(config)
    if not isinstance(config.test_evaluator, (list, tuple)):
        config.test_evaluator = [config.test_evaluator]
    if options.dump:
        if not options.dump.endswith((".pkl", ".pickle")):
            raise Ada3DError(f"--dump {options.dump}: the file's name must end with .pkl")
        dump = {"type": "DumpPredictions", "out_file_path": options.dump}
        config.test_evaluator = [*config.test_evaluator, dump]
    return config


def summary(metrics: Mapping[str, float], clips: Sequence[Mapping]) -> str:
    """Tell the paper's columns, and how the cost is distributed over the clips."""
    row = row_of("tested", metrics)
    whole = row.get("tested", 0) + row.get("left_out", 0)
    partial = f"of {row.get('tested')} of {whole} videos: {row.get('left_out')} do not decode"
    cost = [(clip["macs"] + clip["selector_macs"]) / 1e9 for clip in clips]
    percentiles = ", ".join(f"{p} % {row[f'gmacs_p{p}']:.4g}" for p in (10, 50, 90))
    return "\n".join(
        [
            tables.table([row], tables.with_exits(tables.COLUMNS, [row])),
            *([partial] if whole else []),
            "",
            f"GMACs per clip: {percentiles}, most {row['gmacs_max']:.4g}",
            tables.histogram(cost),
            "kept frames",
            tables.histogram([clip["num_frames"] for clip in clips], bins=64),
            "3D stages",
            tables.histogram([clip["num_stages"] for clip in clips], bins=64),
            f"{row['distinct_policies']:.0f} distinct policies of {len(clips)} clips",
            *_exits(clips),
        ]
    )


def _exits(clips: Sequence[Mapping]) -> list[str]:
    """Tell how many clips need no recognizer, and how right those are; nothing where none exits."""
    exited = [clip for clip in clips if not clip["num_frames"]]
    if not exited:
        return []
    line = f"{len(exited)} of {len(clips)} clips need no recognizer: no frame, no stage"
    right = [clip["predicted"] == clip["label"] for clip in exited if clip["label"] is not None]
    return [f"{line}; {sum(right)} of {len(right)} are right" if right else line]
