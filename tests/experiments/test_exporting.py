"""From a checkpoint to a file: what the config says goes into it, and what it cannot say is refused."""

import inference_parts
import numpy as np
import pytest
import torch

import ada3d_fx
from ada3d_fx import Ada3DError
from ada3d_fx.experiments.exporting import ExportOptions, export_checkpoint, preprocessing_of
from ada3d_fx.mm.config import load_config

CLIPS = torch.randn(6, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A model whose selection network predicts, too, and keeps the most probable frames."""
    folder = tmp_path_factory.mktemp("both")
    testing = {"predict_with": "both", "greedy": "count", "threshold": 0.6}
    model = inference_parts.write(folder, 3, 4, training={"classify": 1.0}, testing=testing)
    return folder, model.eval()


def exported(folder, out, entries=(), config="config.py", checkpoint="model.pth", **options):
    options = ExportOptions(out=str(out), **options)
    return export_checkpoint(str(folder / config), list(entries), str(folder / checkpoint), options)


@pytest.mark.parametrize("suffix", ["onnx", "xml"])
def test_how_the_config_tests_is_in_the_file(both, tmp_path, suffix):
    folder, model = both
    told = exported(folder, tmp_path / f"a.{suffix}")
    session = ada3d_fx.Session(tmp_path / f"a.{suffix}")
    described = session.description
    assert (described.greedy, described.threshold) == ("count", 0.6)
    assert described.predict_with == "both" and "predicts with both" in told
    assert described.parity["clips"] >= 12 and described.parity["decisions"] > 100
    with torch.no_grad():
        scored = model.score(CLIPS)
    policy, scores = scored.policy, scored.scores
    outcome = session.run(CLIPS)
    assert np.array_equal(outcome.policy.frames, policy.frames.numpy())
    assert np.abs(outcome.scores - scores.numpy()).max() < 1e-4 * scores.abs().max()
    assert described.selector_macs == model.selector_macs


def test_the_dials_are_told(both, tmp_path):
    folder, model = both
    gmacs = (0.5 * model.full_macs + model.selector_macs) / 1e9
    told = exported(folder, tmp_path / "a.onnx", gmacs=gmacs)
    found = ada3d_fx.Session(tmp_path / "a.onnx").description.threshold
    assert found != 0.6 and f"at threshold {found:.4g}" in told


def test_pixels_are_prepared_as_the_config_says(both):
    config = load_config(both[0] / "config.py")
    told = preprocessing_of(config)
    assert told["mean"] == [120.0] * 3 and told["format_shape"] == "NCTHW"
    assert [step["type"] for step in told["pipeline"]] == ["SampleFrames", "FormatShape"]
    assert told["pipeline"][0]["num_clips"] == 3
    config.model.data_preprocessor = {"type": "ActionDataPreprocessor", "mean": [1.0], "std": [2.0]}
    assert preprocessing_of(config) | {"pipeline": 0} == {
        "mean": [1.0],
        "std": [2.0],
        "pipeline": 0,
    }


def test_the_selection_network_may_stay_out(both, tmp_path):
    """Of a model that predicts with both, the recognizer alone is left."""
    folder, model = both
    assert "policies: given" in exported(folder, tmp_path / "a.onnx", selection=False)
    policy = ada3d_fx.Policy.random(model.plan, len(CLIPS))
    with torch.no_grad():
        wanted = model.recognizer(CLIPS, policy).numpy()
    scores = ada3d_fx.Session(tmp_path / "a.onnx")(CLIPS, policy)
    assert np.abs(scores - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize(
    "entries, words",
    [
        (["model.random_part=stages"], "not random"),
        (["model.testing.predict_with=selector"], "no recognizer runs"),
        (["model.testing.policy=recorded", "model.testing.policy_file=p.json"], "recorded"),
    ],
)
def test_what_a_file_cannot_do_is_refused(both, tmp_path, entries, words):
    with pytest.raises(Ada3DError, match=words):
        exported(both[0], tmp_path / "a.onnx", entries)
    assert list(tmp_path.iterdir()) == []
