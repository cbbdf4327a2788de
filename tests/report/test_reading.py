"""Results read back: what is cut off, foreign or of another encoding is named, and never taken."""

import json

import pytest

from ada3d_fx import Ada3DError
from ada3d_fx.plan import Stage, StagePlan
from ada3d_fx.report import reading, records

CLIP = {"video": "caf\u00e9 ².mp4", "view": 0, "label": 1, "predicted": None, "frames": "0011",
        "stages": "01", "num_frames": 2, "num_stages": 1, "macs": 9, "selector_macs": 1}  # fmt: skip
# Files of every kind that is none: bytes, and a word of what is said of them.
FOREIGN = {
    "empty": (b"", "is empty"),
    "blank": (b" \r\n\n", "is empty"),
    "binary": (bytes(range(256)), "no text in UTF-8"),
    "latin": ("caf\u00e9".encode("latin-1"), "no text in UTF-8"),
    "utf16": ('{"clips": []}'.encode("utf-16"), "it is UTF-16"),
    "cut": (b'{"clips": [{"vid', "cut off"),
    "words": (b"not json at all", "no JSON"),
    "deep": (b"[" * 100_000, "no JSON"),
    "nan": (b'{"clips": NaN}', "no finite number"),
    "huge": (b'{"clips": 1e999}', "no finite number"),
    "digits": (b'{"clips": ' + b"9" * 5000 + b"}", "no JSON"),
    "list": (b"[1, 2]", "is [1, 2], not an object"),
    "number": (b"7", "is 7, not an object"),
    "null": (b"null", "is None, not an object"),
    "other": (b'{"rows": []}', "clips is missing"),
    "text": (b'{"clips": "no"}', "clips is 'no', not a list"),
    "none": (b'{"clips": []}', "no clips"),
    "numbers": (b'{"clips": [3]}', "clips[0] is 3, not an object"),
}


def change(**values):
    """A file of two clips, of which the second has these values."""
    return json.dumps({"clips": [CLIP, CLIP | values]}).encode()


WRONG = {
    "bits": (change(frames="01²1"), "clips[1].frames is '01²1', not a text of [01]+"),
    "short": (change(frames="001"), "clips[1] has 3 frames, the first has 4"),
    "stages": (change(stages=[0, 1]), "clips[1].stages is [0, 1]"),
    "missing": (change(stages=None), "clips[1].stages is None"),
    "fraction": (change(view=0.5), "clips[1].view is 0.5, not a whole number"),
    "truth": (change(macs=True), "clips[1].macs is True, not a whole number"),
    "label": (change(label="\u0663"), "clips[1].label is '\u0663'"),
}


@pytest.mark.parametrize("name", [*FOREIGN, *WRONG])
def test_a_file_of_policies_that_is_none_is_named(name, tmp_path):
    content, words = {**FOREIGN, **WRONG}[name]
    path = tmp_path / "policies.json"
    path.write_bytes(content)
    with pytest.raises(Ada3DError) as error:
        records.read_clips(path)
    assert str(path) in str(error.value) and words in str(error.value)
    assert "tools/test.py --policies" in str(error.value)  # what to try
    assert len(str(error.value)) < 400


def csv_of(tmp_path, **changes):
    records.write_policies(tmp_path / "p.csv", [CLIP, CLIP | changes])
    return (tmp_path / "p.csv").read_bytes()


def test_what_was_written_is_read_with_whatever_names(tmp_path):
    odd = CLIP | {"video": 'a,"b"\n\udce9.mp4', "label": None, "view": 3}
    for kind in ("json", "csv"):
        records.write_policies(tmp_path / f"p.{kind}", [CLIP, odd])
        assert records.read_clips(tmp_path / f"p.{kind}") == [CLIP, odd]


def test_a_byte_order_mark_is_no_harm(tmp_path):
    """Spreadsheets and Notepad put it before UTF-8."""
    for name, content in (("p.csv", csv_of(tmp_path)), ("p.json", change())):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content)
        assert records.read_clips(tmp_path / name)[0] == CLIP


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda text: text[: text.rindex(b"01,")], "clips[1].num_frames"),
        (lambda text: text.replace(b"0011", b"1.1E+01"), "clips[0].frames is '1.1E+01'"),
        (lambda text: text.replace(b",", b";"), "clips[0].video is missing"),
        (lambda text: text.replace(b",2,1,9,", b",\xd9\xa3,1,9,"), "num_frames is '\u0663'"),
        (lambda text: text.replace(b"0011,01,2", b"0011,01,\xc2\xb2"), "num_frames is '²'"),
        (lambda text: text.replace(b"0011,01,2", b"0011,01,--5"), "num_frames is '--5'"),
        (lambda text: text.decode().encode("utf-16"), "it is UTF-16"),
        (lambda text: text.splitlines()[0], "no clips"),
        (lambda text: text + b'"' + b"x" * 200_000, "field larger"),
        (lambda text: bytes(range(256)) * 3, "clips[0]"),
        (lambda text: b"", "is empty"),
    ],
)
def test_a_csv_of_policies_that_is_none_is_named(edit, words, tmp_path):
    (tmp_path / "p.csv").write_bytes(edit(csv_of(tmp_path)))
    with pytest.raises(Ada3DError) as error:
        records.read_clips(tmp_path / "p.csv")
    assert str(tmp_path / "p.csv") in str(error.value) and words in str(error.value)


def test_a_folder_or_nothing_is_no_file(tmp_path):
    (tmp_path / "a.json").mkdir()
    for name in ("a.json", "b.json", "b\0.json"):
        with pytest.raises(Ada3DError, match="no file at"):
            records.read_clips(tmp_path / name)


def test_a_form_is_checked_to_the_last_value():
    kind = {"rows": [reading.row_kind((("name", "", "{}"), ("gmacs", "", "{:.2f}")))], "x?": int}
    reading.check({"rows": [{"name": "a", "gmacs": 1}, {"gmacs": None}, {"more": []}]}, kind)
    for value, words in (
        ({"rows": [{"gmacs": "1"}]}, "rows[0].gmacs is '1', not a number"),
        ({"rows": [{}, {"name": {}}]}, "rows[1].name is {}, not a text or a number"),
        ({"rows": {}}, "rows is {}, not a list"),
        ({"rows": [], "x": 1.5}, "x is 1.5, not a whole number"),
    ):
        with pytest.raises(ValueError) as error:
            reading.check(value, kind)
        assert str(error.value) == words


# The grammar of --policy: what int() takes or refuses of the digits of the world


@pytest.mark.parametrize(
    "text",
    ["\u0663/101", "²/10", "1_0/10", "--5/10", "9" * 5000 + "/10", "3/\u0661\u0660", "random:n=0",
     "random:n=-3", "random:n=²", "random:seed=-1", f"random:seed={10**30}", "random:frames=nan",
     "random:frames=1.5", "random:stages=-1", f"random:n={10**12}", "full\0", "p.json\0"],
)  # fmt: skip
def test_numbers_that_are_none_are_refused(text):
    kinds = ("full", "random", "literal", "file")
    plan = StagePlan((3, 4, 8, 8), (Stage("a", ("a",)), Stage("b", ("b",))), 1)
    with pytest.raises(Ada3DError, match="--policy"):
        records.policy_of(records.parse_policy(text, kinds), plan)
