"""Each family exports adaptively, and the file computes what the network does, in both engines."""

import numpy as np
import onnx
import pytest
import torch
from exports import network
from families import FAMILIES, family
from odd_networks import runs_whole

import ada3d_fx
from ada3d_fx import Ada3DError, Policy
from ada3d_fx.exporting.graph import GraphWriter

SLOW = (
    "csn_ip",
    "c3d",
    "c3d_long",
    "tpn",
    "mvit",
    "uniformerv2",
    "swin",
)  # 6 to 13 seconds of a core each


def converted(name, **options):
    return ada3d_fx.convert(family(name).float(), FAMILIES[name][2], **options)


def policies(plan):
    """Each length twice with random stages, and all stages on and off."""
    units = max(plan.num_units, 1)
    kept = torch.arange(1, units + 1).repeat(2) / units
    drawn = Policy.random(plan, 2 * units, kept, 0.5, torch.Generator().manual_seed(3))
    ends = torch.tensor([True, False])[:, None].expand(2, plan.num_stages)
    both = Policy(torch.ones(2, plan.num_frames, dtype=torch.bool), ends)
    return Policy.cat([drawn, both])


def clips_of(plan, n):
    return torch.randn(n, *plan.clip_shape, generator=torch.Generator().manual_seed(4))


def assert_same(scores, wanted):
    assert np.abs(scores - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("name", "positions"),
    [pytest.param(n, "own", marks=pytest.mark.slow) if n in SLOW else (n, "own") for n in FAMILIES]
    + [pytest.param("mvit", "kept", marks=pytest.mark.slow)],
)
def test_a_family_exports_adaptively(tmp_path, name, positions):
    adaptive = converted(name, positions=positions)
    plan, path = adaptive.plan, tmp_path / "network.onnx"
    described = ada3d_fx.export(adaptive, path)
    assert described.parity["scores"] < 1e-5
    policy = policies(plan)
    clips = clips_of(plan, len(policy))
    with torch.no_grad():
        wanted = adaptive(clips, policy).numpy()
    if plan.num_stages:  # else the test could not see which branch ran
        assert np.abs(wanted[-1] - adaptive(clips[-1:]).detach().numpy()).max() > 1e-3
    order = torch.randperm(len(policy), generator=torch.Generator().manual_seed(0))
    for engine in ("onnxruntime", "openvino"):  # which reads this file too
        session = ada3d_fx.Session(path, engine, threads=1)
        assert_same(session(clips.numpy(), policy), wanted)
        assert_same(session(clips[order].numpy(), policy[order]), wanted[order])
        assert_same(session(clips[:1].numpy(), policy[:1]), wanted[:1])


@pytest.mark.parametrize(
    "name", ["custom", "slowfast", pytest.param("i3d_pool2", marks=pytest.mark.slow)]
)
def test_as_a_file_of_openvino(tmp_path, name):
    adaptive = network(name) if name.startswith("i3d") else converted(name)
    ada3d_fx.export(adaptive, tmp_path / "network.xml")
    policy = policies(adaptive.plan)
    clips = clips_of(adaptive.plan, len(policy))
    session = ada3d_fx.Session(tmp_path / "network.xml", threads=1)
    assert_same(session(clips.numpy(), policy), adaptive(clips, policy).detach().numpy())


@pytest.mark.parametrize(
    "grouping, stages",
    [
        ("layer", None),
        (  # a stage that is decided before and after another
            {r"backbone\.conv1|layer[24]": "even", r"layer[13]": "odd"},
            ["even", "odd"],
        ),
    ],
)
def test_other_groupings(tmp_path, grouping, stages):
    name = "posec3d" if stages is None else "r2plus1d"
    adaptive = converted(name, stages=grouping)
    plan = adaptive.plan
    if stages is None:
        assert plan.num_stages == sum(len(stage.sites) for stage in plan.stages) >= 3
    else:
        assert sorted(stage.name for stage in plan.stages) == stages
    ada3d_fx.export(adaptive, tmp_path / "network.onnx")
    policy = policies(plan)
    clips = clips_of(plan, len(policy))
    session = ada3d_fx.Session(tmp_path / "network.onnx", threads=1)
    assert_same(session(clips.numpy(), policy), adaptive(clips, policy).detach().numpy())


def test_too_many_stages_in_one_module_are_refused_and_one_policy_exports(tmp_path):
    adaptive = ada3d_fx.convert(runs_whole(5), (3, 8, 8, 8), stages="layer")
    assert adaptive.plan.num_stages == 5
    with pytest.raises(Ada3DError, match=r"5 stages .* \(0\): 32 branches; export it with fi"):
        ada3d_fx.export(adaptive, tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())
    stages = [True, False, False, True, True]
    ada3d_fx.export(adaptive, tmp_path / "network.onnx", fixed=(8, stages))
    clips = clips_of(adaptive.plan, 3)
    with torch.no_grad():
        wanted = ada3d_fx.specialize(adaptive, 8, stages)(clips).numpy()
    assert_same(ada3d_fx.Session(tmp_path / "network.onnx")(clips.numpy()), wanted)


def graphs_of(graph):
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from graphs_of(inner)


def test_weights_are_held_once():
    adaptive = network()
    model = GraphWriter(adaptive).write()
    onnx.checker.check_model(model, full_check=True)
    held = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    assert len({(str(a.dtype), a.shape, a.tobytes()) for a in held}) == len(held)
    sites = [
        adaptive.get_submodule(s).weight for stage in adaptive.plan.stages for s in stage.sites
    ]
    slices = sum(weight[:, :, 0].numel() for weight in sites)
    weights = sum(p.numel() for p in adaptive.parameters())
    # the centre slices beside the whole convolutions; BatchNorm is folded into both
    assert sum(a.size for a in held) < 1.05 * (weights + slices)
    inner = [g for g in graphs_of(model.graph) if g is not model.graph]
    assert len(inner) > 2 * adaptive.plan.num_stages and not any(g.initializer for g in inner)
