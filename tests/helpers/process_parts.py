"""One program that several processes run together, and one process alone: each tells what it saw.

It is in float64 but for the scores that MMAction2's heads and the reward are given. The random
numbers of policies come from one table for the clips of all processes, of which each takes the rows
of its own clips; BatchNorm does not take the statistics of batches.
"""

from __future__ import annotations

import math
import os
import socket
from pathlib import Path
from unittest import mock

import mm_parts
import torch
from mmaction.registry import MODELS
from mmengine.config import Config
from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from torch import distributed
from torch.nn.modules.batchnorm import _BatchNorm

from ada3d_fx import Ada3DError
from ada3d_fx.experiments.evaluation import EvaluationOptions, evaluate
from ada3d_fx.mm.console import build_runner
from ada3d_fx.mm.hooks import InvalidLossHook, TrainingPhaseHook
from ada3d_fx.mm.optim import unwrap
from ada3d_fx.mm.processes import check_agreement
from ada3d_fx.mm.steps import share_of_process
from ada3d_fx.progress import Console

CLIPS, BATCH, VIEWS = 17, 8, 3  # neither list nor batches come out even; views of a tested video
PHASES = ("warmup", "selection", "joint", "transfer")
OFF = 2  # the stage that all clips of the last process turn off where policies are sampled


@MODELS.register_module()
class DoublePreprocessor(MODELS.get("ActionDataPreprocessor")):
    """Gives float64."""

    def preprocess(self, *args, **kwargs):
        inputs, samples = super().preprocess(*args, **kwargs)
        return inputs.double(), samples


class Draws:
    """``torch.rand`` as one process has it for the clips of all, of which each takes its own rows."""

    def __init__(self):
        self.generator = torch.Generator()
        self.samples = 1  # rows of a clip

    def rand(self, *shape, **_):
        rank, size = get_dist_info()
        rows, *rest = shape[0] if isinstance(shape[0], torch.Size) else shape
        every = torch.empty(size * rows, *rest, dtype=torch.float64)
        every = every.uniform_(generator=self.generator).reshape(-1, self.samples, *rest)
        if self.samples > 1 and rest == [5]:
            every[1::2, :, OFF] = 1.0  # process 1 of two has these clips, 1 and 3 of four
        return every[rank::size].flatten(0, 1)


class Watch(Hook):
    """Keeps the gradients of each step, what is logged of it, and the processes' seeds."""

    def __init__(self):
        self.draws, self.gradients, self.logs, self.seeds = Draws(), [], [], []

    def before_train(self, runner):
        parameters = dict(unwrap(runner.model).named_parameters())

        def keep(*_):
            self.gradients.append(
                {k: None if p.grad is None else p.grad.clone() for k, p in parameters.items()}
            )

        runner.optim_wrapper.optimizer.register_step_pre_hook(keep)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        model = unwrap(runner.model)
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        self.draws.generator.manual_seed(runner.iter)
        sampled = model.training_phase in ("selection", "joint")
        self.draws.samples = model.estimator.samples if sampled else 1
        self.seeds.append(torch.initial_seed())

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.logs.append({name: float(value.detach()) for name, value in outputs.items()})


# ------------------------------------------------------------------------------------- inputs


def write_inputs(folder: Path) -> None:
    """Write clips, the recognizer that training starts from, and a whole model to be tested."""
    mm_parts.write_clips(folder, CLIPS)
    torch.manual_seed(1)
    plain = MODELS.build(mm_parts.recognizer())
    torch.save({"state_dict": plain.state_dict()}, folder / "plain.pth")
    model = MODELS.build(mm_parts.model())
    model.init_weights()
    with torch.no_grad():  # policies that differ from clip to clip
        for parameter in model.selector.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape))
    torch.save({"state_dict": model.state_dict()}, folder / "model.pth")
    gmacs = (0.5 * model.full_macs + model.selector_macs) / 1e9
    (folder / "gmacs.txt").write_text(repr(gmacs))


def padded_list(folder: Path, size: int) -> Path:
    """The list as MMEngine's sampler deals it out to ``size`` processes: the first clips again."""
    lines = (folder / "list.txt").read_text().splitlines(keepends=True)
    path = folder / f"list_{size}.txt"
    path.write_text("".join((lines + lines)[: math.ceil(CLIPS / size) * size]))
    return path


def configuration(folder: Path, work: Path, size: int, launcher: str, train_list: Path) -> Config:
    """The config for one of ``size`` processes."""
    config = mm_parts.run_config(
        folder,
        work,
        recognizer_checkpoint=str(folder / "plain.pth"),
        training={"warmup_full": 0.0, "distill": 0.5, "classify": 0.3},
        objective={"samples": 2, "baseline": "moving_average", "budget": 1e-3, "entropy": 0.1},
        data_preprocessor={
            **mm_parts.recognizer()["data_preprocessor"], "type": "DoublePreprocessor"
        },
    )  # fmt: skip
    config.launcher = launcher
    for split in ("train", "val", "test"):
        loader = config[f"{split}_dataloader"]
        loader.sampler.shuffle = False
        loader.batch_size = BATCH // size
        steps = [step for step in loader.dataset.pipeline if step["type"] != "Flip"]
        steps[1]["test_mode"] = True  # nothing is drawn
        steps[1]["num_clips"] = VIEWS if split == "test" else 1
        loader.dataset.pipeline = steps
        loader.dataset.serialize_data = False  # which takes long
    config.train_dataloader.dataset.ann_file = str(train_list)
    config.visualizer.vis_backends = [{"type": "LocalVisBackend"}]
    config.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": 2}
    rates = {"recognizer_lr": 1e-2, "selector_lr": 1e-2}
    config.train_cfg.max_epochs = len(PHASES)
    config.train_cfg.val_interval = len(PHASES)
    config.custom_hooks = [
        {
            "type": "TrainingPhaseHook",
            "phases": [{"name": n, "epochs": 1, **rates} for n in PHASES],
        },
        {"type": "PolicyLogHook", "interval": 1},
        {"type": "EMAHook"},
    ]
    return config


# ---------------------------------------------------------------------------------- processes


def spawn(folder: Path, size: int, launcher: str) -> list[dict]:
    """Run all processes, and return what each of them saw."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_process, (str(folder), size, launcher, port), nprocs=size)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def alone(folder: Path, size: int) -> dict:
    """Return what one process sees of all that ``size`` processes together see."""
    return run(folder, 1, "none", padded_list(folder, size))


def _process(rank: int, folder: str, size: int, launcher: str, port: int) -> None:
    torch.set_num_threads(1)
    names = {
        "pytorch": {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank},
        "slurm": {"SLURM_PROCID": rank, "SLURM_NTASKS": size, "SLURM_LOCALID": rank,
                  "SLURM_NODELIST": "here"},
    }[launcher]  # fmt: skip
    os.environ.update({name: str(value) for name, value in names.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.chdir(folder)  # MMEngine gathers results in a folder of the current one
    seen = run(Path(folder), size, launcher, Path(folder) / "list.txt")
    torch.save(seen, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def run(folder: Path, size: int, launcher: str, train_list: Path) -> dict:
    """Train in all phases, resume, test, and return what was seen."""
    init_default_scope("mmaction")
    config = configuration(folder, folder / f"work_{size}", size, launcher, train_list)
    normal = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    # to lay the config out for the log takes longer than the run
    laid_out = mock.patch.object(Config, "pretty_text", "text = 'left out'")
    laid_out.start()
    try:
        seen, runner = _train(config)
        if size > 1:
            config.work_dir = str(folder / "resumed")
            config.experiment_name = "resumed"
            config.resume, config.load_from = True, str(folder / f"work_{size}" / "epoch_2.pth")
            seen["resumed"] = _train(config)[0]["weights"]
            config.resume, config.load_from = False, None
        config.custom_hooks.pop()  # no EMAHook
        seen |= _test(config, folder, size)
        seen |= _details(runner)
    finally:
        laid_out.stop()
        torch.set_default_dtype(normal)
    return seen


def _train(config: Config) -> tuple[dict, object]:
    watch = Watch()
    runner = build_runner(config, Console(terminal=False))
    runner.register_hook(watch)
    with mock.patch("torch.rand", watch.draws.rand):
        runner.train()
    weights = {k: v.clone() for k, v in unwrap(runner.model).state_dict().items()}
    averages = next(h.ema_model for h in runner.hooks if hasattr(h, "ema_model")).module
    weights |= {f"ema.{k}": v.clone() for k, v in averages.state_dict().items()}
    seen = {"gradients": watch.gradients, "logs": watch.logs, "seeds": watch.seeds}
    return {**seen, "weights": weights}, runner


def _test(config: Config, folder: Path, size: int) -> dict:
    """Test the whole model as the tool does, to a budget, which some clips meet by an exit."""
    rank, _ = get_dist_info()
    config.model.exit, config.model.testing = 0.9, {"predict_with": "both"}
    config.work_dir = str(folder / f"test_{size}")
    config.experiment_name = f"test_{size}"
    path = folder / f"config_{size}_{rank}.py"
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in config.to_dict().items()))
    options = EvaluationOptions(
        gmacs=float((folder / "gmacs.txt").read_text()), policies=str(folder / f"{size}.json"),
        json=str(folder / f"metrics_{size}_{rank}.json"), launcher=config.launcher,
    )  # fmt: skip
    lines: list[str] = []
    console = Console(terminal=False)
    with mock.patch.object(console, "say", lines.append):
        summary = evaluate(str(path), [], str(folder / "model.pth"), options, console)
    threshold = next(line for line in lines if line.startswith("threshold"))
    return {"summary": summary, "threshold": threshold, "told": lines[-1]}


def _details(runner) -> dict:
    """What else processes must agree on, or differ in."""
    rank, size = get_dist_info()
    model = unwrap(runner.model)
    model.testing_options.policy = "random"
    torch.manual_seed(11)
    random = model.choose_policy(torch.zeros(12 // size, *mm_parts.CLIP_SHAPE))
    loss = math.nan if rank == size - 1 else 1.0
    checkpoint = {"load_from": f"work/epoch_{rank}.pth", "resume": True}
    phases = [{"name": name, "epochs": 1} for name in PHASES]
    hook = TrainingPhaseHook(phases, reseed=False)
    hook.before_train(runner)
    seed = torch.initial_seed()
    runner.model.find_unused_parameters = False
    return {
        "random": torch.cat([random.frames, random.stages], 1),
        "stopped": _error(InvalidLossHook().after_train_iter, runner, 0, None, {"loss": loss}),
        "refused": _error(check_agreement, checkpoint),
        "waiting": _error(hook.before_train, runner),
        "full clips": [share_of_process(n, 1 / 3) for n in range(12)],
        "seed": seed,
    }


def _error(function, *arguments) -> str:
    try:
        function(*arguments)
    except Ada3DError as error:
        return str(error)
    return ""
