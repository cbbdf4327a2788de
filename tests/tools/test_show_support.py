"""The support tool: shipped recognizers, one's own, and bad input."""

import json
import sys

import pytest
import show_support

OWN = """
model = dict(
    type="Recognizer3D",
    backbone=dict(type="C3D", out_dim=512),
    cls_head=dict(type="I3DHead", num_classes=3, in_channels=4096, spatial_type=None),
)
"""


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["show_support.py", *arguments])
    code = show_support.main()
    return code, capsys.readouterr()


def test_a_family_of_shipped_recognizers(monkeypatch, capsys, tmp_path):
    out = tmp_path / "support.json"
    code, text = run(monkeypatch, capsys, "--family", "x3d", "--format", "json", "--out", str(out))
    assert code == 0
    rows = json.loads(text.out)
    assert rows == json.loads(out.read_text())
    assert [row["frames"] for row in rows] == [16, 13]
    for row in rows:
        assert list(row["stages"]) == ["stem", "res2", "res3", "res4", "res5"]
        assert row["execution"] == "packed" and row["frame_unit"] == 1
        assert 0.05 < row["side_tap_share"] < 0.15
    lines = show_support.summarised(rows)
    assert [(line["count"], line["frames"]) for line in lines] == [(2, "13 16")]
    assert show_support.counts(rows).startswith("2 configs: 2 packed, 0 partly dense")


def test_a_refusal_gives_its_reasons(monkeypatch, capsys):
    code, text = run(monkeypatch, capsys, "--family", "timesformer", "--format", "markdown")
    assert code == 0
    assert text.out.count("refused") == 4  # a row each, and the count
    assert text.out.count("fails on clips") >= 2


def test_ones_own_config(monkeypatch, capsys, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    code, text = run(monkeypatch, capsys, "--config", str(path), "--shape", "3,16,16,16")
    assert code == 0
    assert "5: conv1 conv2 conv3 conv4 conv5" in text.out and "packed" in text.out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--config", "OWN"], "C,T,H,W"),
        (["--config", "OWN", "--shape", "3,16"], "--shape 3,16"),
        (["--config", "nowhere.py"], "nowhere.py"),
        (["--family", "resnet"], "--family resnet"),
    ],
)
def test_bad_input_is_one_line(monkeypatch, capsys, tmp_path, arguments, words):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    arguments = [str(path) if a == "OWN" else a for a in arguments]
    code, text = run(monkeypatch, capsys, *arguments)
    assert code == 2
    assert text.err.startswith("error: ") and words in text.err
