"""Trainings leave what they are made from, and say when they go on from something else."""

import experiment_parts
import pytest
from experiment_parts import Said

import ada3d_fx.mm  # noqa: F401
from ada3d_fx.experiments.training import RunOptions, keep_record, training_config
from ada3d_fx.provenance import made_from


@pytest.mark.parametrize("old", ["same", "other", "none"])
def test_a_resumed_training_says_what_differs(tmp_path, old):
    experiment_parts.write(tmp_path, experiment_parts.config_of(tmp_path))
    path, work_dir, said = str(tmp_path / "config.py"), str(tmp_path / "run"), Said()
    options = ["model.objective.gamma=2"] if old == "other" else []
    if old != "none":
        first = training_config(path, options, RunOptions(work_dir=work_dir))
        keep_record(first, said)
        assert not said.lines
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "epoch_1.pth").write_bytes((tmp_path / "model.pth").read_bytes())
    resumed = training_config(path, [], RunOptions(work_dir=work_dir, resume="auto"))
    keep_record(resumed, said)
    told = {"same": [], "other": ["model.objective.gamma: 2 -> nothing"], "none": ["unknown"]}
    assert len(said.lines) == len(told[old])
    assert all(words in line for words, line in zip(told[old], said.lines, strict=True))
    assert made_from.read(tmp_path / "run") == made_from.for_training(made_from.record_of(resumed))
