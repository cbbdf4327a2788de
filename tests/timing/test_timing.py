"""The benchmark times what it says, and checks that it times the same thing."""

import json

import pytest
import torch
from models import CLIP, resnet3d
from torch import nn

import ada3d_fx
from ada3d_fx import Ada3DError
from ada3d_fx.progress import Console
from ada3d_fx.report import records
from ada3d_fx.timing import benchmark, dense_peers, peak_memory, torch_rows
from ada3d_fx.timing import networks as timed_networks
from ada3d_fx.timing import policies as timed_policies
from ada3d_fx.timing import text as timing_text
from ada3d_fx.timing.networks import Request

CONFIG, SHAPE = "mmaction_configs/demo_stage0.py", (3, 8, 32, 32)
ADA3D = "mmaction_configs/ada3d_demo.py"
PEERS = ["eager", "channels_last_3d", "channels_last_3d, clip by clip", "BatchNorm folded"]
USAGES = [(7 / 16, 1 / 5)]


@pytest.fixture(scope="module")
def networks():
    return timed_networks.make_networks(Request(CONFIG, clip_shape=SHAPE), torch.device("cpu"))


@pytest.mark.parametrize("config", [CONFIG, ADA3D])
def test_rows_of_one_interleaved_run(tmp_path, config):
    out = tmp_path / "times.json"
    request = Request(config, (), SHAPE, clips=(2,), usages=USAGES, repeats=2)
    found = benchmark.measure(request, str(out))
    result = json.loads(out.read_text())
    (table,) = result["tables"]
    names = [row["name"] for row in table["rows"]]
    assert names[:4] == [f"dense, {name}" for name in PEERS]
    assert names[4:7] == [
        "packed, full policy",
        "packed, all stages 2D",
        "packed, 7 of 16 frames, 2 of 10 stages",
    ]
    assert names[7].startswith("packed, selection network inside: ") and len(names) == 8
    assert table["relative_difference_of_full_policy"] < 1e-4
    rows = dict(zip(names, table["rows"]))
    assert all(len(row["rounds"]) == 2 and min(row["rounds"]) > 0 for row in rows.values())
    assert rows[names[4]]["macs"] == 1 > rows[names[5]]["macs"] > rows[names[6]]["macs"]
    assert (
        rows[names[7]]["macs"] > 1
    )  # at this size, the selection network costs more than it saves
    assert (
        rows[names[4]]["against"][dense_peers.EAGER]["realised"] is None
    )  # nothing is to be saved
    assert rows[names[5]]["against"][table["best_peer"]["float32"]]["realised"] is not None
    assert {"torch", "ada3d_fx", "python"} <= result["versions"].keys()
    text = timing_text.text(found)
    assert "packed, all stages 2D" in text and f"'{table['best_peer']['float32']}'" in text


def test_a_row_tells_its_rate_and_comparisons():
    runs = [
        benchmark.Run("dense, eager", None, 4_000_000_000, dense=True),
        benchmark.Run("dense, other", None, 4_000_000_000, dense=True),
        benchmark.Run("packed", None, 1_000_000_000),
    ]
    product = benchmark.SIDE**3 / 1e10  # seconds at 10 GMAC/s
    seconds = {
        "dense, eager": [4.0],
        "dense, other": [2.0],
        "packed": [1.0],
        benchmark.PRODUCT: [product],
    }
    table = benchmark.table_of(runs, seconds)
    assert table["matrix_product"]["gmacs_per_second"] == pytest.approx(10)
    eager, _, packed = table["rows"]
    assert [eager["gmacs_per_second"], packed["gmacs_per_second"]] == [1, 1]
    assert packed["share_of_matrix_product"] == pytest.approx(0.1)
    assert packed["macs"] == 0.25 and table["best_peer"] == {"float32": "dense, other"}
    assert packed["against"]["dense, eager"]["realised"] == 1  # a quarter of the time
    assert packed["against"]["dense, other"]["realised"] == pytest.approx(0.5 / 0.75)


def test_every_number_of_clips_has_a_table():
    request = Request(CONFIG, (), SHAPE, clips=(1, 3), usages=[(0.5, 0.2)], repeats=1)
    one, three = benchmark.measure(request)["tables"]
    assert (one["clips"], three["clips"]) == (1, 3)
    names = [row["name"] for row in one["rows"]]
    assert dense_peers.CLIP_BY_CLIP not in names  # one clip is clip by clip anyhow
    assert "packed, 4 of 8 frames, 1 of 5 stages" in names
    assert "packed, 12 of 24 frames, 3 of 15 stages" in [row["name"] for row in three["rows"]]


@pytest.mark.slow
def test_all_backends_take_turns_in_one_run(networks):
    request = Request(CONFIG, (), SHAPE, (2,), USAGES, repeats=1, engines=benchmark.BACKENDS)
    result = benchmark.measure(request)
    rows = result["tables"][0]["rows"]
    assert {row["backend"] for row in rows} == set(benchmark.BACKENDS)
    dense = {row["name"] for row in rows if row["dense"]}
    assert {"dense, openvino", "dense, openvino, static shapes", "dense, onnxruntime"} < dense
    for engine in benchmark.BACKENDS[1:]:
        ours = [row for row in rows if row["backend"] == engine and not row["dense"]]
        assert len(ours) == 5 and result["relative_difference"][engine] < 1e-4
        assert engine in result["versions"]
    inside = [row["macs"] for row in rows if "inside" in row["name"]]
    assert len(set(inside)) == 1 and len(inside) == 3  # they decide the same
    alone = [row for row in rows if row["part"]]
    assert [row["name"] for row in alone] == [
        f"selection network alone, {engine}" for engine in benchmark.BACKENDS[1:]
    ]
    assert all(set(row["against"]) == (set() if row["part"] else dense) for row in rows)
    assert alone[0]["multiply_adds"] == networks.selector_macs(2)
    assert alone[0]["macs"] < min(inside) and alone[0]["name"] in timing_text.text(result)


def test_an_engine_alone_has_its_rows_only():
    request = Request(CONFIG, (), SHAPE, (1,), USAGES, repeats=1, engines=("openvino",))
    result = benchmark.measure(request)
    assert {row["backend"] for row in result["tables"][0]["rows"]} == {"openvino"}
    assert "of saving, eager" not in timing_text.text(result)


@pytest.mark.slow
def test_int8_is_compared_with_int8():
    pytest.importorskip("nncf")
    request = Request(CONFIG, (), SHAPE, (2,), USAGES, repeats=1, engines=("openvino",), int8=True)
    (table,) = benchmark.measure(request)["tables"]
    rows = [row for row in table["rows"] if row["precision"] == "int8"]
    assert len(rows) == len(table["rows"]) / 2 and set(table["best_peer"]) == {"float32", "int8"}
    dense = {row["name"] for row in rows if row["dense"]}
    assert dense == {"dense, openvino, int8", "dense, openvino, static shapes, int8"}
    assert all(set(row["against"]) == dense for row in rows if not row["part"])
    assert all(row["to_float32"] > 0 for row in rows)


PACKED = "packed, 7 of 16 frames, 2 of 10 stages"


@pytest.mark.slow
def test_memory_of_torchs_rows():
    result = benchmark.measure(Request(CONFIG, (), SHAPE, (2,), USAGES, repeats=1, memory=True))
    (table,) = result["tables"]
    taken = {row["name"]: row["peak_mib"] for row in table["rows"] if row["peak_mib"] is not None}
    assert list(taken) == [*PROFILED, "packed, full policy", PACKED] and min(taken.values()) > 0
    assert "peak MiB" in timing_text.text(result)


PROFILED = ["dense, eager", "dense, channels_last_3d"]
BY_FORM = [f"{PACKED}, {form}" for form in ("runs", "gathered", "separated")]


def batch_of(networks, **options):
    return timed_networks.make_batch(
        networks, 2, Request(CONFIG, (), SHAPE, usages=USAGES, **options)
    )


def test_every_form_is_a_row_of_its_own(networks):
    asked = Request(CONFIG, (), SHAPE, (2,), USAGES, repeats=1, forms=True, profile=True)
    result = benchmark.measure(asked)
    (table,) = result["tables"]
    rows = {row["name"]: row for row in table["rows"]}
    assert [name for name in rows if name.startswith(PACKED)] == [PACKED, *BY_FORM]
    assert {rows[name]["multiply_adds"] for name in BY_FORM} == {rows[PACKED]["multiply_adds"]}
    counts = {row["name"]: row["convolutions"] for row in table["profile"]}
    assert [name for name in counts if name.startswith(PACKED)] == [PACKED, *BY_FORM]
    runs, *others = (counts[name] for name in BY_FORM)
    assert counts[PACKED] == runs > max(others)  # on the CPU, runs are the form
    assert f"{runs} convolutions" in timing_text.text(result)


def test_the_forms_score_alike(networks):
    batch = batch_of(networks)
    runs = torch_rows.form_runs(networks, batch)
    assert [run.name for run in runs] == BY_FORM
    wanted = networks.adaptive(batch.clips, batch.policies[batch.usages[0]])
    for run in runs:
        torch.testing.assert_close(run.call(), wanted, rtol=1e-3, atol=1e-4)


def test_bfloat16_is_compared_with_bfloat16():
    asked = Request(CONFIG, (), SHAPE, (2,), USAGES, repeats=1, forms=True, amp=True)
    result = benchmark.measure(asked)
    (table,) = result["tables"]
    rows = [row for row in table["rows"] if row["precision"] == "bfloat16"]
    assert len(rows) == len(table["rows"]) / 2 and set(table["best_peer"]) == {
        "float32",
        "bfloat16",
    }
    dense = {row["name"] for row in rows if row["dense"]}
    assert dense == {f"dense, {name}, bfloat16" for name in PEERS}
    assert f"{BY_FORM[1]}, bfloat16" in {row["name"] for row in rows}
    assert all(set(row["against"]) == dense for row in rows)
    assert all(row["to_float32"] > 0 for row in rows if "inside" not in row["name"])
    assert "best: the fastest dense row in bfloat16 is" in timing_text.text(result)


def test_rows_in_bfloat16_score_nearly_as_in_float32(networks):
    batch = batch_of(networks)
    dense = dense_peers.DensePeers(networks)
    asked = Request(CONFIG, (), SHAPE, usages=USAGES, forms=True, amp=True)
    with torch.inference_mode():
        runs = torch_rows.torch_runs(dense, networks, batch, asked)
        scores = {run.name: run.call() for run in runs if "inside" not in run.name}
    low = {name for name in scores if name.endswith(", bfloat16")}
    assert len(low) == len(scores) / 2
    for name in low:
        wanted = scores[name.removesuffix(", bfloat16")]
        off = (scores[name] - wanted).abs().max() / wanted.abs().max()
        assert 0 < off < 0.05, name


def test_dense_rows_can_be_the_recognizer_as_it_is_only(networks):
    asked = Request(CONFIG, (), SHAPE, (2,), USAGES, repeats=1, eager_only=True)
    result = benchmark.measure(asked)
    (table,) = result["tables"]
    assert [row["name"] for row in table["rows"] if row["dense"]] == [dense_peers.EAGER]
    assert f"best: the fastest dense row is '{dense_peers.EAGER}'" in timing_text.text(result)


def test_the_row_inside_in_bfloat16_tells_what_is_chosen_in_bfloat16(networks):
    asked = Request(CONFIG, (), SHAPE, usages=USAGES, amp=True)
    batch = timed_networks.make_batch(networks, 16, asked)
    runs = torch_rows.torch_runs(dense_peers.DensePeers(networks), networks, batch, asked)
    (row,) = [run for run in runs if "inside" in run.name and run.precision == "bfloat16"]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        chosen = timed_networks.choose(networks, batch)
    assert row.macs == networks.macs(chosen) + networks.selector_macs(16)


def test_profile_of_torchs_rows(capfd):
    result = benchmark.measure(Request(CONFIG, (), SHAPE, (2,), USAGES, repeats=1, profile=True))
    profiles = {row["name"]: row for row in result["tables"][0]["profile"]}
    (inside,) = (name for name in profiles if "inside" in name)
    assert list(profiles) == [*PROFILED, PACKED, inside]
    for row in profiles.values():
        assert row["kinds"]["convolution"] > 0
        assert row["seconds"] == pytest.approx(sum(row["kinds"].values()))
    assert "selection network" in profiles[inside]["kinds"]
    assert "selection network" not in profiles["dense, eager"]["kinds"]
    assert "batch_norm" in timing_text.text(result)
    assert "profiler" not in capfd.readouterr().err  # its native code tells when it starts


def test_the_peak_is_that_of_the_run():
    size = 64 * peak_memory.MIB
    before = peak_memory._begin(torch.device("cpu"))
    block = torch.ones(size // 4)
    del block
    assert 0.9 * size < peak_memory._peak(torch.device("cpu")) - before < 1.5 * size


def test_a_process_that_fails_is_told(networks):
    request = Request("nowhere.py", clip_shape=SHAPE)
    with pytest.raises(Ada3DError, match=r"--memory: the process of 'dense, eager' ended.*nowhere"):
        peak_memory.peak_memory(request, 1, ["dense, eager"], torch.device("cpu"), Console())


def test_clips_that_are_no_pictures_have_no_row_with_a_selection_network():
    flow = ("model.backbone.in_channels=2",)
    result = benchmark.measure(Request(CONFIG, flow, (2, *SHAPE[1:]), (1,), USAGES, repeats=1))
    names = [row["name"] for row in result["tables"][0]["rows"]]
    assert not [name for name in names if "inside" in name] and "packed, full policy" in names
    why = "left out: selection network inside: it takes 3 channels, and clips have 2"
    assert why in timing_text.text(result)


@pytest.mark.slow
def test_why_torch_compile_fails_is_told(networks):
    peers = dense_peers.DensePeers(networks, compiled=True)
    clips = timed_policies.varied_clips(1, SHAPE, 0)
    broken = {"cpp.cxx": (None, "/nowhere/g++"), "force_disable_caches": True}
    with torch._inductor.config.patch(broken):
        names = [run.name for run in peers.runs(clips)]
    why = networks.left_out.pop(dense_peers.COMPILED)
    assert dense_peers.COMPILED not in names and dense_peers.FOLDED in names
    assert "/nowhere/g++" in why and "\n" not in why


@pytest.mark.slow
def test_torch_compile_is_a_row_that_scores_as_the_recognizer(networks):
    clips = timed_policies.varied_clips(1, SHAPE, 0)
    runs = {run.name: run for run in dense_peers.DensePeers(networks, compiled=True).runs(clips)}
    if dense_peers.COMPILED in networks.left_out:
        pytest.skip(networks.left_out.pop(dense_peers.COMPILED))
    with torch.inference_mode():
        eager, compiled = (runs[n].call() for n in (dense_peers.EAGER, dense_peers.COMPILED))
    assert (compiled - eager).abs().max() < 1e-4 * eager.abs().max()


def test_dense_peers_score_as_the_recognizer(networks):
    clips = timed_policies.varied_clips(2, SHAPE, 0)
    runs = dense_peers.DensePeers(networks).runs(clips)
    with torch.inference_mode():
        eager, *others = [run.call() for run in runs]
    for scores in others:
        assert (scores - eager).abs().max() < 1e-4 * eager.abs().max()


def test_the_folded_peer_has_no_batch_norm_left(networks):
    peer = dense_peers.folded(networks.adaptive)
    assert not any(isinstance(module, nn.BatchNorm3d) for module in peer.modules())
    assert {type(m) for m in peer.modules() if isinstance(m, nn.Conv3d)} == {nn.Conv3d}
    assert any(isinstance(module, nn.BatchNorm3d) for module in networks.adaptive.modules())


def test_the_selection_network_inside_costs_what_the_first_usage_does(networks):
    request = Request(CONFIG, (), SHAPE, usages=[(0.75, 0.4)])
    batch = timed_networks.make_batch(networks, 4, request)
    given = networks.macs(batch.policies[batch.usages[0]])
    chosen = networks.macs(batch.chosen)
    assert 0.7 * given < chosen <= given
    run = timed_networks.packed_runs(networks, batch)[-1]
    assert run.macs == chosen + networks.selector_macs(4)


def test_recorded_policies_are_a_row(tmp_path, networks):
    words = [("11110000", "10000"), ("00000000", "00000"), ("11000000", "11000")]
    row = {"video": "a", "view": 0, "macs": 0, "selector_macs": 0}
    file = tmp_path / "policies.json"
    records.write_policies(
        file,
        [
            {
                **row,
                "frames": f,
                "stages": s,
                "num_frames": f.count("1"),
                "num_stages": s.count("1"),
            }
            for f, s in words
        ],
    )
    batch = timed_networks.make_batch(networks, 2, Request(CONFIG, policy=str(file)))
    policy = batch.policies["recorded: 6 of 16 frames, 3 of 10 stages"]  # the second clip exited
    assert policy.num_frames.tolist() == [4, 2] and policy.num_stages.tolist() == [1, 2]
    with pytest.raises(Ada3DError, match=r"of 2 clips that did not exit.*try --clips 2"):
        timed_policies.recorded_policy(str(file), networks.adaptive, 3)
    other = ada3d_fx.convert(resnet3d("i3d").float(), (CLIP[0], 4, *CLIP[2:]))
    with pytest.raises(Ada3DError, match=r"policies\.json.*another network"):
        timed_policies.recorded_policy(str(file), other, 1)


def test_usages_are_kept_to_the_decision():
    plan = ada3d_fx.convert(resnet3d("i3d"), CLIP).plan
    generator = torch.Generator().manual_seed(0)
    policy = timed_policies.usage_policy(plan, 4, 23 / 32, 9 / 20, generator)
    assert int(policy.num_frames.sum()) == 23 and int(policy.num_stages.sum()) == 9


@pytest.mark.parametrize(
    "total, clips, most", [(64, 8, 16), (28, 8, 8), (60, 8, 8), (8, 8, 8), (9, 1, 16)]
)
def test_ragged_policies_keep_the_total_at_even_steps(total, clips, most):
    kept = timed_policies.distribute_unevenly(total, clips, most, 1)
    assert sum(kept) == total and min(kept) >= 1 and max(kept) <= most
    steps = [b - a for a, b in zip(kept, kept[1:])]
    assert all(step >= 0 for step in steps) and max(steps, default=0) - min(steps, default=0) <= 1
    if clips > 1 and total == clips * most / 2:
        assert kept[0] == 1


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(clips=(0,)), "--clips 0"),
        (dict(clips=(1, 0)), "--clips 1,0"),
        (dict(engines=("torch", "tensorrt")), "'tensorrt'; there are torch, openvino, onnxruntime"),
        (dict(engines=("torch", "torch")), "named twice"),
        (dict(policy="nowhere.json"), "nowhere.json"),
        (dict(int8=True), "add --engine openvino or onnxruntime"),
        (dict(engines=("openvino",), compiled=True), "--compile is of torch"),
        (dict(engines=("openvino",), memory=True), "--memory is of torch; try --engine openvino,torch"),
        (dict(engines=("openvino",), forms=True), "--forms is of torch"),
        (dict(engines=("openvino",), amp=True), "--amp is of torch"),
        (dict(training=True, forms=True), "--forms is of inference"),
        (dict(training=True, amp=True), "--amp is of inference"),
        (dict(device="cuda:77"), "--device cuda:77"),
    ],
)  # fmt: skip
def test_what_cannot_be_timed_is_told(options, message):
    with pytest.raises(Ada3DError, match=message):
        benchmark.measure(Request(CONFIG, **options))


@pytest.mark.parametrize("name", ["foo", "cuda:77", "meta:x"])
def test_a_device_that_is_none_is_told(name):
    with pytest.raises(Ada3DError, match=f"--device {name}"):
        timed_networks.usable_device(name)
    assert timed_networks.usable_device("cpu") == torch.device("cpu")
