"""What a training run changes of its config, and what it refuses before it starts."""

import dataclasses

import mm_parts
import pytest
import torch
from mmengine.config import Config

import ada3d_fx.mm  # noqa: F401
from ada3d_fx import Ada3DError
from ada3d_fx.experiments import evaluation
from ada3d_fx.experiments.training import RunOptions, train, training_config
from ada3d_fx.progress import Console


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """The files of an Ada3D config and of a plain recognizer's, whose lists are not read here."""
    folder = tmp_path_factory.mktemp("training")
    config = mm_parts.run_config(folder, folder / "work")
    config.dump(str(folder / "ada3d.py"))
    plain = {**config.to_dict(), "model": mm_parts.recognizer(), "custom_hooks": []}
    plain["optim_wrapper"] = {"optimizer": {"type": "SGD", "lr": 0.1}}
    Config(plain).dump(str(folder / "plain.py"))
    return {name: str(folder / f"{name}.py") for name in ("ada3d", "plain")}


NOTHING = RunOptions()


@pytest.mark.parametrize(
    "name, options, cfg_options, message",
    [
        ("ada3d", {}, ["auto_scale_lr.enable=True"], "auto_scale_lr.base_batch_size=64 does"),
        ("plain", {"auto_scale_lr": True}, [], "auto_scale_lr.base_batch_size=64 does"),
        ("ada3d", {"seed": -1}, [], "randomness.seed=-1: expected a whole number from 0"),
        ("ada3d", {"seed": 2**32}, [], "randomness.seed=4294967296"),
        ("ada3d", {"resume": "absent.pth"}, [], "--resume: no checkpoint at absent.pth"),
        ("ada3d", {"resume": "."}, [], "--resume: no checkpoint at ."),
        ("ada3d", {}, ["train_dataloader=None"], "it has no train_dataloader"),
        ("plain", {}, ["train_cfg=None"], "it has no train_cfg"),
        ("ada3d", {}, ["optim_wrapper=None"], "it has no optim_wrapper"),
        ("ada3d", {}, ["model.objective.gama=8"], "did you mean 'gamma'"),
    ],
)
def test_options_that_cannot_be_met(paths, name, options, cfg_options, message):
    with pytest.raises(Ada3DError, match=message):
        training_config(paths[name], cfg_options, dataclasses.replace(NOTHING, **options))


def test_options_that_can(paths):
    base = ["auto_scale_lr.base_batch_size=16"]
    options = RunOptions(auto_scale_lr=True, seed=2**32 - 1, deterministic=True)
    config = training_config(paths["plain"], base, options)
    assert config.auto_scale_lr == {"base_batch_size": 16, "enable": True}
    assert config.randomness.seed == 2**32 - 1 and config.randomness.deterministic


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("cfg_options", [[], ["optim_wrapper.type=AmpOptimWrapper"]])
def test_mixed_precision_without_a_gpu(paths, cfg_options):
    with pytest.raises(Ada3DError, match="needs a GPU"):
        training_config(paths["ada3d"], cfg_options, RunOptions(amp=not cfg_options))


def test_a_test_needs_its_parts_and_a_seed_in_range(paths):
    with pytest.raises(Ada3DError, match="it has no test_evaluator"):
        evaluation.testing_config(
            paths["ada3d"], ["test_evaluator=None"], evaluation.EvaluationOptions()
        )
    with pytest.raises(Ada3DError, match="seed=-1"):
        evaluation.testing_config(paths["ada3d"], [], evaluation.EvaluationOptions(seed=-1))


@pytest.mark.slow
def test_a_training_goes_on_with_what_fits_it_or_not_at_all(tmp_path):
    """A foreign checkpoint is left for the one before; named itself, or alone, it is refused."""
    mm_parts.write_clips(tmp_path)
    config = mm_parts.run_config(tmp_path, tmp_path / "work", epochs=2)
    config.experiment_name = "goes_on"
    config.dump(str(tmp_path / "config.py"))

    def run(name, **options):
        entry = [f"experiment_name={name}"]
        return train(str(tmp_path / "config.py"), entry, RunOptions(**options), Console())

    run("first")
    last = tmp_path / "work" / "epoch_2.pth"
    content = torch.load(last, weights_only=True)
    whole = content["state_dict"]
    content["state_dict"] = {f"backbone.{key}": value for key, value in whole.items()}
    torch.save(content, last)
    with pytest.raises(Ada3DError, match="does not fit the model"):
        run("named", resume=str(last))
    assert run("second", resume="auto").startswith("trained 4 iterations")
    again = torch.load(last, weights_only=True)["state_dict"]
    assert again.keys() == whole.keys()
    assert all(torch.equal(value, whole[key]) for key, value in again.items())
    torch.save(content, last)
    (tmp_path / "work" / "epoch_1.pth").unlink()
    with pytest.raises(Ada3DError, match="does not fit the model"):
        run("third", resume="auto")
    entry = ["experiment_name=fourth", f"load_from={last}"]
    with pytest.raises(Ada3DError, match="load_from: none of the"):
        train(str(tmp_path / "config.py"), entry, RunOptions(), Console())
