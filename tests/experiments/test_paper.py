"""The paper's compute columns, at full size."""

import json

import pytest

from ada3d_fx.experiments.paper import check_paper


@pytest.mark.slow
def test_the_papers_figures(tmp_path):
    text = check_paper(str(tmp_path / "paper.json"))
    found = json.loads((tmp_path / "paper.json").read_text())
    upper = {
        (row["model"], row["length"]): row["ours"]
        for row in found["rows"]
        if row["method"] == "Upper"
    }
    assert round(upper["i3d_r50", 8], 1) == 58.6 and round(upper["i3d_r50", 16], 1) == 117.3
    assert round(upper["slowonly_r50", 8], 1) == 54.5
    assert upper["slowonly_r50", 16] == pytest.approx(109.1, rel=1e-3)  # 109.04
    assert round(found["selection_per_frame"], 2) == 0.08
    for row in found["rows"]:  # usages are printed to a tenth: a frame's is about half a GMAC
        if row["method"] == "Random":
            assert abs(row["without"]) < 1, row
    assert found["root_mean_square"]["without"] < found["root_mean_square"]["with"]
    assert "without the selection network" in text
