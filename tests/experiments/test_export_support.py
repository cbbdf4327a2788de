"""What exports: a row says how, or why not; rows that are there are not made again."""

import json

import pytest
import torch
from odd_networks import HandsOverPairs, NoOnnxOperation

import ada3d_fx
from ada3d_fx import Ada3DError
from ada3d_fx.experiments.export_support import exports
from ada3d_fx.experiments.support import show_support

OWN = """
model = dict(
    type="Recognizer3D",
    backbone=dict(
        type="ResNet3dSlowOnly", depth=18, base_channels=8, pretrained=None, lateral=False,
        conv1_kernel=(1, 7, 7), conv1_stride_t=1, pool1_stride_t=1, inflate=(0, 0, 1, 1),
    ),
    cls_head=dict(type="I3DHead", num_classes=3, in_channels=64),
)
"""
ENGINES = ("onnxruntime", "openvino")


def test_rows_of_exports_and_a_run_that_goes_on(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    own, out = str(tmp_path / "own.py"), tmp_path / "rows.json"
    options = dict(clip_shape=(3, 4, 64, 64), json=str(out), export=True)
    text = show_support(own, **options)
    assert text.count("adaptive") >= 2 and "ONNX Runtime" in text and "OpenVINO" in text
    (row,) = json.loads(out.read_text())["rows"]
    found = row["exports"]
    assert found["clip_shape"] == [3, 4, 32, 32]  # smaller than asked for, of the same plan
    assert all(found[e]["exports"] == "adaptive" and found[e]["parity"] < 1e-5 for e in ENGINES)
    assert 1 < found["bytes"] < 2  # a small network: its program counts too
    row["exports"]["openvino"] = {"exports": "specialised", "why_not": "as it was"}
    out.write_text(json.dumps({"rows": [row]}))
    again = show_support(own, **options)
    assert "specialised" in again and "as it was" in again
    assert json.loads(out.read_text())["rows"] == [row]
    other = show_support(own, **{**options, "clip_shape": (3, 8, 64, 64)})
    assert "as it was" not in other  # a row of other clips is made anew


def test_a_file_that_holds_no_rows_is_named(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    out = tmp_path / "rows.json"
    for content in ("[]", '{"rows": ["x"]}', '{"rows": [{"config": 1}]}'):
        out.write_text(content)
        with pytest.raises(Ada3DError, match=r"rows\.json.*take the file away"):
            show_support(str(tmp_path / "own.py"), json=str(out), export=True)
        assert out.read_text() == content


@pytest.mark.parametrize(
    "network, kind, why",
    [
        (HandsOverPairs, "specialised", "list or tuple"),
        (NoOnnxOperation, "no", "bessel_j0"),
    ],
)
def test_what_does_not_export_says_why(network, kind, why):
    torch.manual_seed(0)
    model = network().eval()
    plan = ada3d_fx.convert(model, (3, 4, 6, 6)).plan
    found = exports(model, plan)
    for engine in ENGINES:
        assert found[engine]["exports"] == kind and why in found[engine]["why_not"]
        assert (kind == "no") == ("why_not_specialised" in found[engine])
        assert kind == "no" or found[engine]["parity"] < 1e-5
