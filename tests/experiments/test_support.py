"""What converts: shipped recognizers, one's own, and bad input."""

import json

import pytest

from ada3d_fx import Ada3DError
from ada3d_fx.experiments.support import counts, show_support, summarised

OWN = """
model = dict(
    type="Recognizer3D",
    backbone=dict(type="C3D", out_dim=512),
    cls_head=dict(type="I3DHead", num_classes=3, in_channels=4096, spatial_type=None),
)
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


def test_a_family_of_shipped_recognizers(tmp_path):
    out, table = tmp_path / "support.json", tmp_path / "support.txt"
    text = show_support(families=["x3d"], json=str(out), out=str(table))
    assert table.read_text() == text + "\n" and "saved by all-2D" in text
    rows = json.loads(out.read_text())["rows"]
    assert [row["frames"] for row in rows] == [16, 13]
    for row in rows:
        assert list(row["stages"]) == ["stem", "res2", "res3", "res4", "res5"]
        assert row["execution"] == "packed" and row["frame_unit"] == 1
        assert 0.05 < row["saved_by_all_2d"] < 0.15
    lines = summarised(rows)
    assert [(line["count"], line["frames"]) for line in lines] == [(2, "13 16")]
    assert counts(rows).startswith("2 configs: 2 packed, 0 partly dense")


def test_a_refusal_gives_its_reasons(tmp_path):
    own = tmp_path / "own.py"  # its features are those of the first token, which is one of a frame
    own.write_text("""
model = dict(
    type="Recognizer3D",
    backbone=dict(type="VisionTransformer", img_size=32, embed_dims=24, depth=1, num_heads=2,
                  num_frames=4, use_mean_pooling=False),
    cls_head=dict(type="TimeSformerHead", num_classes=3, in_channels=24),
)
""")
    text = show_support(str(own), clip_shape=(3, 4, 32, 32), markdown=True)
    assert text.count("refused") == 1
    assert "its temporal kernel of 2 taps has no centre" in text


def test_ones_own_config(own):
    text = show_support(own, clip_shape=(3, 16, 16, 16))
    assert "5: conv1 conv2 conv3 conv4 conv5" in text and "packed" in text


def test_bad_input_is_told(own):
    with pytest.raises(Ada3DError, match="C,T,H,W"):
        show_support(own)
    with pytest.raises(Ada3DError, match=r"nowhere\.py"):
        show_support("nowhere.py")
    with pytest.raises(Ada3DError, match="--families resnet"):
        show_support(families=["resnet"])
