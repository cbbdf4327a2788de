"""Several processes give what one gives; a lost one ends the others."""

import json
import re

import mm_parts
import process_parts
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from process_parts import BATCH, CLIPS, PHASES, VIEWS

from ada3d_fx import Ada3DError
from ada3d_fx.mm import processes

# Sums over clips are taken in another order, in float64; the loss of a policy, the classes' losses
# and rewards are in float32, of which one unit in the last place is 1.2e-7.
TOLERANCE = 1e-7


def largest(ours, theirs):
    """The largest difference of two dicts of tensors that have the same entries and gaps."""
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert (value is None) == (theirs[name] is None), name
    pairs = [(value, theirs[name]) for name, value in ours.items() if value is not None]
    return max((a.double() - b.double()).abs().max().item() for a, b in pairs)


@pytest.fixture(
    scope="module",
    params=[(2, "pytorch"), pytest.param((4, "slurm"), marks=pytest.mark.slow)],
    ids=["two processes", "four processes"],
)
def runs(request, tmp_path_factory):
    """What one process saw, what each of several saw, and the folder of both."""
    size, launcher = request.param
    folder = tmp_path_factory.mktemp(f"processes_{size}")
    process_parts.write_inputs(folder)
    one = process_parts.alone(folder, size)
    several = process_parts.spawn(folder, size, launcher)
    for several_saw in several:  # figures, with pytest -s
        print(size, {
            "gradients": max(map(largest, several_saw["gradients"], one["gradients"])),
            "weights": largest(several_saw["weights"], one["weights"]),
        })  # fmt: skip
    return one, several, folder


def test_gradients_of_every_step_are_those_of_one_process(runs):
    """In all phases, where the last batch is small, and where all clips of a process turn a stage
    off; parameters that do not learn have no gradient, rather than zeros for the optimizer."""
    one, several, _ = runs
    assert len(one["gradients"]) == len(PHASES) * -(-CLIPS // BATCH)
    selection = one["gradients"][3]
    assert all(v is None for k, v in selection.items() if k.startswith("recognizer."))
    for seen in several:
        for ours, theirs in zip(seen["gradients"], one["gradients"], strict=True):
            assert largest(ours, theirs) < TOLERANCE


def test_weights_after_all_phases_are_those_of_one_process(runs):
    one, several, _ = runs
    for seen in several:
        assert largest(seen["weights"], one["weights"]) < TOLERANCE
        assert largest(seen["weights"], several[0]["weights"]) == 0


def test_logged_values_are_means_over_all_processes(runs):
    one, several, _ = runs
    for seen in several:
        for ours, theirs in zip(seen["logs"], one["logs"], strict=True):
            assert ours.keys() == theirs.keys()
            for name in ours.keys() - {"distinct_policies"}:  # counted in each process's batch
                assert ours[name] == pytest.approx(theirs[name], abs=1e-6), name


def test_resumed_processes_end_as_the_unbroken_ones(runs):
    for seen in runs[1]:
        assert largest(seen["resumed"], seen["weights"]) == 0


def test_metrics_policies_and_threshold_are_those_of_one_process(runs):
    one, several, folder = runs
    size = len(several)
    for seen in several:
        assert seen["threshold"] == one["threshold"]
        assert ", of exits: 0." in seen["threshold"]
    assert several[0]["summary"].splitlines()[:-1] == one["summary"].splitlines()[:-1]
    assert several[0]["told"] == one["told"]
    ours, theirs = (json.loads((folder / f"{n}.json").read_text()) for n in (size, 1))
    assert ours == theirs
    clips = ours["clips"] if isinstance(ours, dict) else ours
    assert [clip["view"] for clip in clips] == list(range(VIEWS)) * CLIPS
    assert len({str(clip["video"]) for clip in clips}) == CLIPS
    assert len({(clip["frames"], clip["stages"]) for clip in clips}) > 3
    rows = [
        json.loads((folder / f"metrics_{n}_0.json").read_text())["row"] for n in (size, 1)
    ]  # fmt: skip
    assert rows[0] == rows[1]
    logs = [next((folder / f"test_{n}").rglob("*.log")).read_text() for n in (size, 1)]
    last = [[x for x in log.splitlines() if "distinct policies of" in x][-1] for log in logs]
    told = re.search(r"distinct policies of (\d+) clips; (\d+) more exit$", last[0])
    assert int(told[1]) + int(told[2]) == CLIPS * VIEWS
    assert last[0].rpartition("policies: ")[2] == last[1].rpartition("policies: ")[2]


def test_the_first_process_alone_writes_and_tells(runs):
    _, several, folder = runs
    assert all(seen["summary"] is None for seen in several[1:])
    assert len(list(folder.glob(f"metrics_{len(several)}_*.json"))) == 1


def test_each_process_draws_numbers_of_its_own(runs):
    one, several, _ = runs
    size = len(several)
    for rank, seen in enumerate(several):
        assert torch.equal(seen["random"], one["random"][rank::size])
    for seeds in zip(*(seen["seeds"] for seen in several), strict=True):
        assert len(set(seeds)) == size
    assert len({seen["seed"] for seen in several}) == size


def test_clips_with_the_full_policy_are_a_share_of_all_processes(runs):
    one, several, _ = runs
    size = len(several)
    for n in range(12):
        assert sum(seen["full clips"][n] for seen in several) == round(size * n / 3)
    assert one["full clips"] == [round(n / 3) for n in range(12)]


def test_a_loss_that_is_wrong_in_one_process_stops_all(runs):
    assert all("not a finite number" in seen["stopped"] for seen in runs[1])


def test_processes_that_start_from_different_checkpoints_are_refused(runs):
    for seen in runs[1]:
        assert "process 1: epoch_1.pth" in seen["refused"]
        assert "all machines share" in seen["refused"]


def test_a_wrapper_that_waits_for_every_gradient_is_refused(runs):
    """Its processes would wait for ever, in the phases in which a network does not learn."""
    assert all("find_unused_parameters=True" in seen["waiting"] for seen in runs[1])


# ------------------------------------------------------------------------------- one process only

LAUNCHED = {
    "pytorch": {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
    "slurm": {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0",
              "SLURM_NODELIST": "node[1-2]"},
    "mpi": {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2",
            "OMPI_COMM_WORLD_LOCAL_RANK": "0"},
}  # fmt: skip


@pytest.fixture
def launched(monkeypatch):
    """Sets what a launcher sets, and takes away what others might have."""

    def setter(launcher, **changed):
        for name in {name for names in LAUNCHED.values() for name in names}:
            monkeypatch.delenv(name, raising=False)
        for name, value in {**LAUNCHED.get(launcher, {}), **changed}.items():
            monkeypatch.setenv(name, value)

    return setter


def prepare(launcher, **entries):
    processes.prepare(Config({"launcher": launcher, "model": {}, **entries}))


@pytest.mark.parametrize("launcher", LAUNCHED)
def test_a_launcher_that_did_not_start_the_process_is_named(launcher, launched):
    launched("none")
    with pytest.raises(Ada3DError) as error:
        prepare(launcher)
    for words in (f"--launcher {launcher}", next(iter(LAUNCHED[launcher])), "start it with"):
        assert words in str(error.value)


def test_what_a_launcher_says_must_be_numbers(launched):
    launched("pytorch", LOCAL_RANK="one")
    with pytest.raises(Ada3DError, match=r"must be whole numbers.*'one'"):
        prepare("pytorch")


def test_torchrun_without_the_option_is_refused(launched):
    launched("pytorch", TORCHELASTIC_RUN_ID="run")
    with pytest.raises(Ada3DError, match="add --launcher pytorch"):
        prepare("none")
    launched("pytorch", TORCHELASTIC_RUN_ID="run", WORLD_SIZE="1")
    prepare("none")


@pytest.mark.parametrize("launcher", ["slurm", "mpi"])
def test_the_first_machine_must_be_known(launcher, launched, monkeypatch, tmp_path):
    """There is no Slurm here to ask."""
    launched(launcher)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Ada3DError, match=r"set MASTER_ADDR|MASTER_ADDR; set"):
        prepare(launcher)


def test_synchronised_batchnorm_needs_gpus(launched):
    launched("pytorch")
    with pytest.raises(Ada3DError, match="sync_bn"):
        prepare("pytorch", sync_bn="torch")


def test_learning_rates_scale_with_the_batch(tmp_path):
    """Of the phases too, which set those of MMEngine's optimizer anew in each iteration."""
    mm_parts.write_clips(tmp_path)
    config = mm_parts.run_config(tmp_path, tmp_path / "work", epochs=1)
    config.auto_scale_lr = {"enable": True, "base_batch_size": 16}  # batches are of 4
    config.visualizer.vis_backends = []
    config.train_cfg.val_interval = config.default_hooks.checkpoint.interval = 9
    runner = Runner.from_cfg(config)
    runner.train()
    rates = {group["name"]: group["lr"] for group in runner.optim_wrapper.optimizer.param_groups}
    assert rates == {"recognizer": 1e-2 / 4, "selector": 1e-2 / 4}
    assert runner.message_hub.get_scalar("train/recognizer_lr").current() == 1e-2 / 4
