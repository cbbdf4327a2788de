"""Tables, files and pictures of policies."""

import json

import pytest
import torch

from ada3d_fx import Ada3DError, Policy
from ada3d_fx.plan import Stage, StagePlan
from ada3d_fx.report import figures, policy_pictures, records, statistics, tables

ROWS = [
    {"name": "upper", "accuracy": 99.5, "gmacs": 1.25, "stages": 5.0, "frames": 8.0},
    {"name": "ada3d", "accuracy": 99.0, "gmacs": 0.5, "gmacs_selector": 0.01,
     "stages": 2, "frames": 3},
]  # fmt: skip


def test_table_is_aligned_and_dashes_what_is_missing():
    lines = tables.table(ROWS).splitlines()
    assert lines[0].split()[:2] == ["policy", "accuracy"]
    assert lines[1].split() == ["upper", "99.50", "1.25", "-", "5.00", "8.00"]
    assert lines[2].split() == ["ada3d", "99.00", "0.5", "0.01", "2.00", "3.00"]


def test_the_column_of_exits_is_there_where_a_clip_exits():
    assert tables.with_exits(tables.COLUMNS, [{"exited": 0.0}, {}]) == tables.COLUMNS
    rows = [{**ROWS[0], "exited": 0.0}, {**ROWS[1], "exited": 0.125}]
    lines = tables.table(rows, tables.with_exits(tables.COLUMNS, rows)).splitlines()
    assert [line.split()[-1] for line in lines] == ["exit", "0.0%", "12.5%"]


def test_markdown_table():
    lines = tables.table(ROWS, markdown=True).splitlines()
    assert len(lines) == 4 and all(line.count("|") == 7 for line in lines)
    assert set(lines[1]) <= set("|-: ")


def test_json_refuses_what_json_lacks(tmp_path):
    records.write_json(tmp_path / "a" / "report.json", {"rows": ROWS})
    assert json.loads((tmp_path / "a" / "report.json").read_text())["rows"] == ROWS
    with pytest.raises(ValueError):
        records.write_json(tmp_path / "b.json", {"x": float("nan")})


def test_picture_is_written(tmp_path):
    pytest.importorskip("matplotlib")
    example = policy_pictures.Example(
        torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8),
        torch.tensor([True, False, True, False]),
        torch.tensor([True, False]),
        ["stem", "res2"],
        "walk",
        "sit",
        0.5,
    )
    policy_pictures.draw_policies(
        [example, example._replace(prediction="walk")], tmp_path / "p.png"
    )
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(Ada3DError, match="no examples"):
        policy_pictures.draw_policies([], tmp_path / "none.png")


def test_animation_has_a_picture_for_each_frame(tmp_path):
    from PIL import Image

    clip = torch.stack([torch.full((16, 16, 3), 60 * t, dtype=torch.uint8) for t in range(4)])
    frames = torch.tensor([False, True, False, True])
    example = policy_pictures.Example(clip, frames, torch.tensor([True]), ["stem"], "a", "b", 1.0)
    policy_pictures.animate([example, example], tmp_path / "a.gif", side=16)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 4 and image.size == (36, 40)
        image.seek(2)
        left, right = (image.convert("L").getpixel((x, 8)) for x in (8, 28))
        assert abs(left - 120) < 8 and abs(right - 36) < 8  # the frame before, darkened
    exits = example._replace(frames=torch.zeros(4, dtype=torch.bool))
    policy_pictures.animate([exits], tmp_path / "e.gif", side=16)
    with Image.open(tmp_path / "e.gif") as image:
        image.seek(2)
        left, right = (image.convert("L").getpixel((x, 8)) for x in (8, 28))
        assert abs(left - 120) < 8 and abs(right - 72) < 8  # no frame was computed
    with pytest.raises(Ada3DError, match="no examples"):
        policy_pictures.animate([], tmp_path / "b.gif")


def test_pixels_are_frames_last_to_first():
    clip = torch.arange(3 * 2 * 4 * 5).reshape(3, 2, 4, 5).float()
    assert policy_pictures.pixels(clip).shape == (2, 4, 5, 3)
    assert policy_pictures.pixels(clip)[1, 2, 3].tolist() == [33, 73, 113]


def test_histograms_count_everything():
    lines = tables.histogram([1, 1, 2, 8], bins=10).splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "8"]
    assert [int(line.split()[-1]) for line in lines] == [2, 1, 1]
    assert lines[0].count("#") == 2 * lines[1].count("#")
    lines = tables.histogram(torch.linspace(0, 1, 101).tolist(), bins=4).splitlines()
    assert len(lines) == 4 and sum(int(line.split()[-1]) for line in lines) == 101
    assert lines[0].strip().startswith("0 to 0.25") and lines[3].strip().startswith("0.75 to 1")


def test_policies_that_are_no_policies_are_refused(tmp_path):
    clip = dict.fromkeys(records.POLICY_FIELDS, 0) | {"frames": "10", "stages": "1"}
    with pytest.raises(Ada3DError, match="differ in their decisions"):
        records.policies_of([clip, clip | {"frames": "100"}])
    (tmp_path / "a.json").write_text('{"rows": []}')
    with pytest.raises(Ada3DError, match=r"a\.json was not written by tools/test.py"):
        records.read_clips(tmp_path / "a.json")
    (tmp_path / "a.csv").write_text("frames,stages\n10,1\n")
    with pytest.raises(Ada3DError, match=r"a\.csv was not written by"):
        records.read_clips(tmp_path / "a.csv")


def test_policies_without_stages():
    clip = dict.fromkeys(records.POLICY_FIELDS, 0) | {"frames": "10", "stages": ""}
    assert records.policies_of([clip, clip]).stages.shape == (2, 0)


def test_price_picture(tmp_path):
    lines = [figures.Line("0 of 1", [1, 2], [1, 2]), figures.Line("1 of 1", [2, 4], [2, 4])]
    figures.draw_prices([1, 2], lines, {"2D part": 2, "+ stem": 2}, tmp_path / "p.png", "x", 4, 1)
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"


def test_seconds_picture(tmp_path):
    rows = [
        figures.Seconds("dense", 2.0, [1.9, 2.2], dense=True),
        figures.Seconds("ours", 1.5, [1.4, 1.6], dense=False, theoretical=1.2),
        figures.Seconds("one round", 1.5, [1.5, 1.5], dense=False),
    ]
    figures.draw_seconds({"1 clip": rows, "4 clips": rows[:2]}, tmp_path / "p.png", "x")
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"


def test_usage_by_class_counts_a_video_once_for_all_views_and_seeds():
    def clip(video, view, label, frames, predicted=1):
        return {"video": video, "view": view, "label": label, "predicted": predicted,
                "num_frames": frames, "num_stages": 2, "macs": 10**9, "selector_macs": 0}  # fmt: skip

    seeds = [
        {"fold": 0, "clips": [clip("a", 0, 1, 2), clip("a", 1, 1, 4), clip("b", 0, 2, 8)]},
        {"fold": 0, "clips": [clip("a", 0, 1, 6, predicted=2), clip("a", 1, 1, 4, predicted=2)]},
        {"fold": 1, "clips": [clip("a", 0, 1, 4), clip("c", 0, None, 1)]},
    ]
    first, second = statistics.usage_by_class(seeds, {1: "walk"})
    assert (first["name"], first["videos"], second["name"], second["videos"]) == ("walk", 2, "2", 1)
    assert first["frames"] == 4 and first["accuracy"] == pytest.approx(60)
    assert first["gmacs"] == 1 and second["frames"] == 8
    unnamed = [{"clips": [clip(None, 0, 1, 2), clip(None, 0, 1, 2)]} for seed in range(2)]
    assert statistics.usage_by_class(unnamed, {})[0]["videos"] == 2


PLAN = StagePlan((3, 4, 8, 8), (Stage("a", ("a",)), Stage("b", ("b",))), 1)
KINDS = ("learned", "full", "random", "literal", "file")


def policy(text):
    return records.policy_of(records.parse_policy(text, KINDS), PLAN)


def test_the_grammar_of_policies(tmp_path):
    assert records.parse_policy("learned", KINDS).kind == "learned"
    assert policy("full") == Policy.full(PLAN, 1)
    literal = Policy(torch.tensor([[1, 0, 1, 1]]).bool(), torch.tensor([[0, 1]]).bool())
    assert policy("1011/01") == literal
    assert policy("3/01").frames.tolist() == [[True, True, True, False]]
    generator = torch.Generator().manual_seed(5)
    assert policy("random:n=7,seed=5,frames=0.5") == Policy.random(PLAN, 7, 0.5, 0.4, generator)
    assert len(policy("random")) == len(policy("random:")) == 1000
    clip = dict.fromkeys(records.POLICY_FIELDS, 0) | {"frames": "1011", "stages": "01"}
    records.write_policies(tmp_path / "p.csv", [clip, clip])
    assert policy(str(tmp_path / "p.csv")) == Policy.cat([literal, literal])


@pytest.mark.parametrize(
    "text",
    [
        "learned:",
        "full:a",
        "random:frames",
        "random:clips=1",
        "random:n=0.5",
        "101",
        "a/b",
        "p.txt",
    ],
)
def test_what_is_no_policy_is_told(text):
    with pytest.raises(Ada3DError, match=f"--policy {text}"):
        policy(text)


@pytest.mark.parametrize("text", ["1011/0", "5/01", "10111/01", "2/012"])
def test_bits_must_fit_the_plan(text):
    with pytest.raises(Ada3DError, match=f"--policy {text}"):
        policy(text)


def test_a_tool_takes_the_kinds_and_options_that_it_names():
    fixed = records.parse_policy("1011/01", ("full", "fixed"))
    assert fixed[1:] == ("fixed", {}, "1011", "01")
    with pytest.raises(Ada3DError, match=r"3/01: expected FRAMES/STAGES, bits such as 1011/10100$"):
        records.parse_policy("3/01", ("fixed",))
    assert records.parse_policy("random:frames=0.5", ("random",), ("frames",)).options == {
        "frames": 0.5
    }
    with pytest.raises(Ada3DError, match=r"expected learned, or random:frames=0\.7,stages=0\.4$"):
        records.parse_policy("full", ("learned", "random"), ("frames", "stages"))
    with pytest.raises(Ada3DError, match=r"'seed=1'; try random:frames=0\.7,stages=0\.4$"):
        records.parse_policy("random:seed=1", ("random",), ("frames", "stages"))


def example(label):
    clip = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    kept, on = torch.tensor([True, False]), torch.tensor([True])
    return policy_pictures.Example(clip, kept, on, ["stem"], label, label, 0.5)


def test_names_of_files_are_drawn_as_they_are(tmp_path):
    """Dollar signs begin no formula; bytes that are no UTF-8, and signs without a glyph, do no harm."""
    for label in ("a$b_{$ caf\udce9 \u65e5.mp4", "$\\frac$"):
        policy_pictures.draw_policies([example(label)], tmp_path / "p.png")
        rows = [{"name": label, "videos": 1, "frames": 1, "stages": 1, "gmacs": 1}]
        figures.draw_usage(rows, tmp_path / "u.png")
        figures.draw_curves({label: [(1, 2)]}, tmp_path / "c.png", label)
        lines = [figures.Line(label, [1, 2], [1, 2])]
        figures.draw_prices([1, 2], lines, {label: 2}, tmp_path / "d.png", label, 4)
        bars = [figures.Seconds(label, 1, [1, 1], dense=True)]
        figures.draw_seconds({label: bars}, tmp_path / "s.png", label)
    assert len(list(tmp_path.iterdir())) == 5


def test_the_kind_of_a_picture_is_that_of_its_name(tmp_path):
    for name, begin in (("p.pdf", b"%PDF"), ("p.PNG", b"\x89PNG"), ("p", b"\x89PNG")):
        policy_pictures.draw_policies([example("a")], tmp_path / name)
        assert (tmp_path / name).read_bytes()[:4] == begin
    with pytest.raises(Ada3DError, match=r"p\.txt: pictures are written as \.png"):
        policy_pictures.draw_policies([example("a")], tmp_path / "p.txt")
    with pytest.raises(Ada3DError, match=r"p\.png: animations are written as \.gif"):
        policy_pictures.animate([example("a")], tmp_path / "p.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p", "p.PNG", "p.pdf"]
