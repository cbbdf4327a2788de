"""Exported files compute what the network does, and a file that does not is not written."""

import json

import numpy as np
import onnx
import pytest
import torch
from exports import clips, network, selector

import ada3d_fx
from ada3d_fx.errors import Ada3DError
from ada3d_fx.exporting import parity
from ada3d_fx.learn.backbones import SmallConvNet
from ada3d_fx.learn.selector import SelectionNetwork
from ada3d_fx.runtime.contract import KEY

BOTH = (".onnx", ".xml")


def scores_of(policy, n=12):
    with torch.inference_mode():
        return network()(clips(n), policy).numpy()


@pytest.mark.parametrize("suffix", BOTH)
def test_given_policies(tmp_path, suffix):
    path = tmp_path / f"network{suffix}"
    described = ada3d_fx.export(network(), path)
    assert described.parity["scores"] < 1e-5 and not described.selects
    session = ada3d_fx.Session(path)
    policy = ada3d_fx.Policy.random(network().plan, 12)
    wanted = scores_of(policy)
    assert np.abs(session(clips(12), policy) - wanted).max() < 1e-4 * np.abs(wanted).max()
    full = ada3d_fx.Policy.full(network().plan, 12)
    assert np.abs(session(clips(12)) - scores_of(full)).max() < 1e-4
    assert np.array_equal(session.price(policy), ada3d_fx.price(network(), policy).numpy())


@pytest.mark.parametrize("suffix", BOTH)
@pytest.mark.parametrize("classes", [0, 5])
def test_the_selection_network_is_inside(tmp_path, suffix, classes):
    path, selection = tmp_path / f"network{suffix}", selector(classes)
    predict_with = "both" if classes else "recognizer"
    described = ada3d_fx.export(
        network(), path, selection, greedy="count", threshold=0.6, predict_with=predict_with
    )
    assert described.selects and described.selector_macs > 0
    session = ada3d_fx.Session(path)
    with torch.no_grad():
        policy = selection(clips(12)).mode(0.6, "count")
        added = selection.classify(selection.frame_features(clips(12))).mean(1) if classes else 0
    assert policy.num_distinct > 4
    outcome, decided = session.run(clips(12)), session.decide(clips(12))
    for frames, stages in (outcome.policy, decided):
        assert np.array_equal(frames, policy.frames) and np.array_equal(stages, policy.stages)
    wanted = scores_of(policy) + np.asarray(added)
    assert np.abs(outcome.scores - wanted).max() < 1e-4 * np.abs(wanted).max()
    other = ada3d_fx.Policy.random(network().plan, 12)
    wanted = scores_of(other) + np.asarray(added)
    assert np.abs(session(clips(12), other) - wanted).max() < 1e-4 * np.abs(wanted).max()
    with torch.no_grad():
        cheaper = selection(clips(12)).mode(0.9, "count")
    assert np.array_equal(session.decide(clips(12), 0.9).frames, cheaper.frames)


@pytest.mark.parametrize("suffix", (*BOTH, ".pt2"))
def test_a_fixed_policy_is_a_plain_network(tmp_path, suffix):
    path = tmp_path / f"network{suffix}"
    stages = [True, False, True, False, True]
    described = ada3d_fx.export(network(), path, fixed=(5, stages))
    assert described.fixed == (5, tuple(stages))
    static = ada3d_fx.specialize(network(), 5, stages)
    short = clips(3)[:, :, :5]
    with torch.no_grad():
        wanted = static(short).numpy()
    if suffix == ".pt2":
        held = {KEY: ""}
        scores = torch.export.load(path, extra_files=held).module()(short).detach().numpy()
        assert json.loads(held[KEY])["fixed"] == [5, stages]
    else:
        session = ada3d_fx.Session(path)
        scores = session(short)
        assert session.run(short).policy.frames.shape == (3, 5)
        with pytest.raises(Ada3DError, match="one fixed policy; it takes none"):
            session(short, ada3d_fx.Policy.full(network().plan, 3))
        with pytest.raises(Ada3DError, match=r"shape \[3, 3, 8, 32, 32\], expected \[N, 3, 5"):
            session(clips(3))
    assert np.abs(scores - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("suffix", BOTH)
def test_a_selection_network_with_a_normalisation_of_its_own(tmp_path, suffix):
    """Which OpenVINO 2026.4 cannot compile where it follows the resizing, a matrix product."""
    torch.manual_seed(0)
    mean, std = [120.0, 110.0, 100.0], [60.0, 50.0, 40.0]
    made = SelectionNetwork(
        network().plan, SmallConvNet((4, 6)), input_size=16, clip_mean=mean, clip_std=std,
        input_mean=[127.5] * 3, input_std=[30.0] * 3,
    )  # fmt: skip
    ada3d_fx.export(network(), tmp_path / f"n{suffix}", made.eval())
    decided = ada3d_fx.Session(tmp_path / f"n{suffix}").decide(clips(8), 0.9)
    with torch.no_grad():
        wanted = made(clips(8)).mode(0.9)
    assert np.array_equal(decided.frames, wanted.frames.numpy())


def test_weights_are_held_once(tmp_path):
    ada3d_fx.export(network(), tmp_path / "network.onnx")
    held = sum(p.numel() * 4 for p in network().parameters())
    assert (tmp_path / "network.onnx").stat().st_size < 1.4 * held + 300_000


def test_the_network_is_left_as_it_was(tmp_path):
    adaptive = ada3d_fx.convert(network().plain(), network().plan.clip_shape).double().train()
    before = {name: value.clone() for name, value in adaptive.state_dict().items()}
    ada3d_fx.export(adaptive, tmp_path / "network.onnx")
    assert all(torch.equal(before[name], value) for name, value in adaptive.state_dict().items())
    assert all(module.training for module in adaptive.modules() if not hasattr(module, "graph"))


def test_a_file_with_other_results_is_not_written(tmp_path, monkeypatch):
    path = tmp_path / "network.onnx"
    path.write_text("the old one")
    written = ada3d_fx.export.__globals__["GraphWriter"].write

    def other_weights(self):
        model = written(self)
        largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        array = onnx.numpy_helper.to_array(largest) * 1.01
        largest.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float32), largest.name))
        return model

    monkeypatch.setattr(ada3d_fx.export.__globals__["GraphWriter"], "write", other_weights)
    with pytest.raises(Ada3DError, match=r"scores of clip \d+ are .* off"):
        ada3d_fx.export(network(), path)
    assert path.read_text() == "the old one" and list(tmp_path.iterdir()) == [path]


def test_other_decisions_are_seen(tmp_path):
    path = tmp_path / "network.onnx"
    ada3d_fx.export(network(), path, selector())
    other = selector(head=ada3d_fx.learn.heads.MeanHead)
    with pytest.raises(Ada3DError, match="clips get another policy"):
        parity.check_adaptive(ada3d_fx.Session(path), network(), other)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("network.pb", {}, r"network.pb: a file ends with .onnx, .xml, .pt2"),
        ("network.pt2", {}, "is for a fixed policy"),
        ("network.onnx", {"fixed": (9, [1] * 5)}, "num_frames=9, expected a multiple of 1 up to 8"),
        ("network.onnx", {"fixed": (5, [1] * 4)}, "4 stage decisions, expected 5"),
        ("network.onnx", {"predict_with": "both"}, "needs selector="),
        ("network.onnx", {"predict_with": "all"}, "there are recognizer and both"),
        ("network.onnx", {"threshold": float("nan")}, "threshold=nan"),
    ],
)
def test_what_cannot_be_exported_is_told(tmp_path, name, options, message):
    with pytest.raises(Ada3DError, match=message):
        ada3d_fx.export(network(), tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_both_a_fixed_policy_and_a_selection_network_are_refused(tmp_path):
    with pytest.raises(Ada3DError, match="exclude each other"):
        ada3d_fx.export(network(), tmp_path / "n.onnx", selector(), fixed=(5, [1] * 5))


@pytest.mark.parametrize("suffix", BOTH)
def test_clips_that_exit_are_not_recognized(tmp_path, suffix):
    path, selection = tmp_path / f"network{suffix}", selector(5)
    with torch.no_grad():
        classified = selection.classify(selection.frame_features(clips(12))).mean(1)
    confidence = classified.softmax(1).amax(1).sort().values[5:7].mean().item()
    ada3d_fx.export(network(), path, selection, predict_with="both", exit=confidence)
    session = ada3d_fx.Session(path)
    with torch.no_grad():
        policy = selection(clips(12)).mode()
    outcome = session.run(clips(12))
    exited = ~outcome.policy.frames.any(1)
    assert np.array_equal(exited, classified.softmax(1).amax(1) > confidence)
    assert exited.sum() == 6 and not outcome.policy.stages[exited].any()
    assert np.array_equal(outcome.policy.frames[~exited], policy.frames[~exited])
    wanted = classified.numpy() + np.where(exited[:, None], 0, scores_of(policy))
    assert np.abs(outcome.scores - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert (session.price(outcome.policy) == 0).tolist() == exited.tolist()
    # given policies without a frame exit; a call may let none exit, or all of them
    assert np.abs(session(clips(12), outcome.policy) - wanted).max() < 1e-4 * np.abs(wanted).max()
    both = classified.numpy() + scores_of(policy)
    assert np.abs(session(clips(12), exit=1) - both).max() < 1e-4 * np.abs(both).max()
    alone = session.run(clips(12), exit=1e-6)
    assert not alone.policy.frames.any()
    assert np.abs(alone.scores - classified.numpy()).max() < 1e-5
    for wrong in (0, 1.5, float("nan"), "sure"):
        with pytest.raises(Ada3DError, match="Session: exit="):
            session(clips(2), exit=wrong)


def test_exits_need_both_networks(tmp_path):
    with pytest.raises(Ada3DError, match="exit= needs predict_with='both'"):
        ada3d_fx.export(network(), tmp_path / "n.onnx", selector(), exit=0.9)
    ada3d_fx.export(network(), tmp_path / "n.onnx", selector())
    with pytest.raises(Ada3DError, match="for a file that predicts with both networks"):
        ada3d_fx.Session(tmp_path / "n.onnx")(clips(2), exit=0.9)
