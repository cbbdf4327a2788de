"""Int8 files: the recognizer is quantised, the selection network is not, and what is lost is told."""

import importlib.util
import os

import numpy as np
import onnx
import pytest
import torch
from exports import clips, network, selector
from models import CLIP, resnet3d

import ada3d_fx
from ada3d_fx.errors import Ada3DError
from ada3d_fx.exits import certainty, probability
from ada3d_fx.exporting import calibration as calibrating
from ada3d_fx.exporting.branches import Branches
from ada3d_fx.exporting.partition import partition
from ada3d_fx.exporting.programs import Programs

HAS_NNCF = importlib.util.find_spec("nncf") is not None
needs_nncf = pytest.mark.skipif(not HAS_NNCF, reason="nncf, of the extra `int8`, is not installed")
SUFFIXES = (".onnx", ".xml")
FIXED = (5, [True, False, True, False, True])


def calibration(n=16):
    return clips(n, seed=3)


def quantisers(graph):
    """Names of the values that a graph quantises, those of the graphs inside too."""
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            yield node.output[0]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from quantisers(attribute.g)


@needs_nncf
@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_policies_are_those_of_float32(tmp_path, suffix):
    path, selection = tmp_path / f"network{suffix}", selector(5)
    described = ada3d_fx.export(
        network(), path, selection, greedy="count", threshold=0.6, predict_with="both",
        int8=calibration(),
    )  # fmt: skip
    assert described.precision == "int8" and described.versions["nncf"]
    assert described.parity["clips"] == 16 and described.parity["agreement"] >= 0.9
    assert described.parity["decisions"] > 0 == described.parity["differing"]
    session = ada3d_fx.Session(path)
    assert session.description == described
    with torch.no_grad():
        policy = selection(clips(12)).mode(0.6, "count")
        wanted = network()(clips(12), policy)
        wanted += selection.classify(selection.frame_features(clips(12))).mean(1)
    assert policy.num_distinct > 4
    outcome, decided = session.run(clips(12)), session.decide(clips(12))
    for frames, stages in (outcome.policy, decided):
        assert np.array_equal(frames, policy.frames) and np.array_equal(stages, policy.stages)
    off = np.abs(outcome.scores - wanted.numpy()).max() / wanted.abs().max()
    assert 1e-5 < off < 0.1
    if suffix == ".onnx":
        names = list(quantisers(onnx.load(path).graph))
        assert {f"part_{number}" for number in range(5)} == {
            "_".join(name.split("_")[:2]) for name in names
        }


@needs_nncf
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_fixed_policy(tmp_path, suffix):
    whole, path = tmp_path / f"float32{suffix}", tmp_path / f"int8{suffix}"
    ada3d_fx.export(network(), whole, fixed=FIXED)
    described = ada3d_fx.export(network(), path, fixed=FIXED, int8=calibration())
    assert 1e-5 < described.parity["scores"] < 0.05 and described.parity["agreement"] >= 0.9
    with torch.no_grad():
        wanted = ada3d_fx.specialize(network(), *FIXED)(clips(3)[:, :, :5]).numpy()
    scores = ada3d_fx.Session(path)(clips(3)[:, :, :5])
    assert np.abs(scores - wanted).max() < 0.05 * np.abs(wanted).max()
    sizes = [f.with_suffix(".bin" if suffix == ".xml" else suffix) for f in (whole, path)]
    assert os.path.getsize(sizes[1]) < 0.35 * os.path.getsize(sizes[0])


@needs_nncf
def test_a_file_that_agrees_too_little_is_not_written(tmp_path):
    alike = ada3d_fx.convert(resnet3d("i3d_r18").float(), CLIP)
    with torch.no_grad():  # classes that differ by less than eight bits hold
        weight, bias = (
            alike.get_parameter(f"cls_head.fc_cls.{name}") for name in ("weight", "bias")
        )
        weight.copy_(weight[:1] + 1e-4 * torch.randn(weight.shape)), bias.zero_()
    with pytest.raises(Ada3DError, match=r"% of 16 clips get the label .* at least 100.0% are"):
        ada3d_fx.export(alike, tmp_path / "n.onnx", fixed=FIXED, int8=calibration(), agreement=1.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(HAS_NNCF, reason="nncf is installed")
def test_what_is_missing_is_told(tmp_path):
    with pytest.raises(Ada3DError, match=r"nncf is not installed; export in int8 needs it\ntry: "):
        ada3d_fx.export(network(), tmp_path / "n.onnx", fixed=FIXED, int8=calibration())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name, given, agreement, message",
    [
        ("n.pt2", calibration(), 0.9, "int8 is for .onnx and .xml"),
        ("n.xml", calibration()[0], 0.9, r"int8 is \[3, 8, 32, 32\]; expected clips \[N, 3, 8, 32"),
        ("n.xml", [1.0], 0.9, r"int8 is list; expected clips"),
        ("n.xml", calibration() / 0, 0.9, "normalised, floating and finite"),
        ("n.xml", calibration()[:0], 0.9, "one clip at least"),
        ("n.xml", calibration(), 1.5, "agreement=1.5"),
    ],
)
def test_what_cannot_be_quantised_is_told(tmp_path, name, given, agreement, message):
    with pytest.raises(Ada3DError, match=message):
        ada3d_fx.export(network(), tmp_path / name, fixed=FIXED, int8=given, agreement=agreement)
    assert list(tmp_path.iterdir()) == []


def test_frames_of_a_fixed_policy_are_spread_evenly():
    plan = network().plan
    numbers = torch.arange(8.0).view(1, 1, 8, 1, 1)
    kept = {n: calibrating.kept_evenly(numbers, n, plan).flatten().tolist() for n in (1, 3, 4, 8)}
    assert kept == {1: [0], 3: [0, 2, 5], 4: [0, 2, 4, 6], 8: list(range(8))}


def test_calibration_has_all_lengths_and_every_other_clip_its_own_policy():
    plan, given = network().plan, calibration(32)
    policy = calibrating.calibration_policy(plan, given, selector(), 0.5, "threshold")
    with torch.no_grad():
        own = selector()(given).mode(0.5, "threshold")
    assert policy[torch.arange(0, 32, 2)] == own[torch.arange(0, 32, 2)]
    others = calibrating.calibration_policy(plan, given, None, 0.5, "threshold")
    for numbers in (policy[torch.arange(1, 32, 2)], others):
        assert set(numbers.num_frames.tolist()) == set(range(1, 9))


def branches_of(adaptive):
    programs = Programs(adaptive)
    return Branches(programs, partition(programs))


@pytest.mark.parametrize("name", ["i3d_r18", "i3d_strided"])
def test_calibration_goes_through_the_network_as_clips_do(name):
    adaptive, given = network(name), calibration()
    policy = calibrating.calibration_policy(adaptive.plan, given, None, 0.5, "threshold")
    branches = branches_of(adaptive)
    passed, parts = calibrating.Calibration(given, policy, branches), branches.parts
    for number, part in enumerate(parts):
        assert sum(len(passed.samples(part, each)) for each in branches.classes(part)) == 16
        passed.advance(number, part)
        wanted = {node for later in parts[number + 1 :] for node in later.inputs}
        assert set(passed.values) <= wanted | set(parts[-1].outputs)
    ((scores,),) = (passed.values.values(),)
    with torch.no_grad():
        assert torch.allclose(torch.cat(scores), adaptive(given, policy), rtol=1e-4, atol=1e-4)


def test_lengths_without_a_clip_are_told():
    adaptive, given = network("i3d_strided"), calibration(1)
    branches = branches_of(adaptive)
    passed = calibrating.Calibration(given, ada3d_fx.Policy.full(adaptive.plan, 1), branches)
    with pytest.raises(Ada3DError, match="none of 1 calibration clips keeps 1 to 3 frames; give"):
        passed.samples(branches.parts[0], (1, 2, 3))


@needs_nncf
@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_clips_exit_as_in_float32(tmp_path, suffix):
    whole, path, given = tmp_path / f"float32{suffix}", tmp_path / f"int8{suffix}", clips(12)
    selection = selector(5)
    with torch.no_grad():
        classified = selection.classify(selection.frame_features(given)).mean(1)
    level = probability(certainty(classified).sort().values[5:7].mean().item())  # half of them exit
    options = dict(predict_with="both", exit=level)
    ada3d_fx.export(network(), whole, selection, **options)
    ada3d_fx.export(network(), path, selection, int8=calibration(), **options)
    found, wanted = (ada3d_fx.Session(file).run(given) for file in (path, whole))
    assert np.array_equal(found.policy[0], wanted.policy[0])
    exits = ~wanted.policy[0].any(1)
    assert exits.sum() == 6
    assert np.allclose(found.scores[exits], classified.numpy()[exits], rtol=1e-5, atol=1e-5)
    everything = ada3d_fx.Session(path).run(given, exit=0.99)  # none exits
    assert everything.policy[0].any(1).all()
    assert np.allclose(found.scores[~exits], everything.scores[~exits], rtol=1e-5, atol=1e-5)
    assert np.abs(found.scores - wanted.scores)[~exits].max() > 1e-3  # which is int8
