"""The HTML page of an experiment."""

import json
from html.parser import HTMLParser

import pytest

import ada3d_fx.mm  # noqa: F401
from ada3d_fx import Ada3DError
from ada3d_fx.experiments.html_page import write_page
from ada3d_fx.report import figures, records


class Page(HTMLParser):
    """Which tags are open, what was seen, and the page's text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.words, self.links = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def experiment(tmp_path):
    rows = [
        {"name": "upper", "accuracy": 90.0, "gmacs": 1.0, "stages": 5.0, "frames": 8.0, "runs": 1},
        {"name": "ada3d", "accuracy": 89.5, "gmacs": 0.4, "stages": 2.0, "frames": 3.0, "runs": 1},
    ]  # fmt: skip
    classes = [{"name": "<walk>", "videos": 3, "accuracy": 50.0, "frames": 2.0, "stages": 1.0,
                "gmacs": 0.3}]  # fmt: skip
    about = {"command": "compare.py 'a & b'", "config": "demo.py", "seconds": 3.0,
             "versions": {"torch": "2"}}  # fmt: skip
    gaps = [{"name": "ada3d - upper", "points": -0.5, "low": -1.0, "high": 0.0, "runs": 1}]
    result = {"rows": rows, "classes": classes, "kinds": [], "differences": gaps,
              "gmacs_share": 0.4, **about}  # fmt: skip
    records.write_json(tmp_path / "report.json", result)
    figures.draw_usage(classes, tmp_path / "usage.png")
    turned = [{"name": "ada3d", "target": 0.4, "threshold": 0.5, **rows[1]}]
    records.write_json(tmp_path / "sweep" / "tradeoff.json", {"rows": turned, **about})
    figures.draw_curves({"ada3d": [(0.4, 89.5)]}, tmp_path / "sweep" / "tradeoff.png", "t")
    return tmp_path


def test_the_page_holds_everything_and_needs_nothing(experiment):
    path = write_page(experiment, experiment / "sweep", title="A < B")
    assert path == experiment / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    text = " ".join(page.words)
    for word in ("A < B", "40 %", "89.50", "ada3d - upper", "<walk>", "compare.py 'a & b'",
                 "Trade-off", "-0.50"):  # fmt: skip
        assert word in text, word
    assert page.seen.count("table") == 4 and page.seen.count("img") == 2
    assert all(link.startswith("data:image/png;base64,") for link in page.links)


def test_what_is_missing_is_named(experiment):
    with pytest.raises(Ada3DError, match=r"run tools/compare\.py first"):
        write_page(experiment / "nowhere")
    (experiment / "report.json").write_text(json.dumps({"lines": []}))
    with pytest.raises(Ada3DError, match=r"was not written by tools/compare\.py"):
        write_page(experiment)


REPORT = {
    "cut": (lambda text: text[: len(text) // 2], "cut off"),
    "utf16": (lambda text: text.decode().encode("utf-16"), "UTF-16"),
    "empty": (lambda text: b"", "is empty"),
    "list": (lambda text: b"[1]", "is [1], not an object"),
    "number": (lambda text: b"3", "is 3, not an object"),
    "nan": (lambda text: text.replace(b"90.0", b"NaN"), "no finite number"),
    "type": (lambda text: text.replace(b"90.0", b'"90"'), "rows[0].accuracy is '90'"),
    "row": (lambda text: b'{"rows": [4], "versions": {}}' + b" " * len(text), "is missing"),
    "rows": (lambda text: json.dumps(json.loads(text) | {"rows": []}).encode(), "no rows"),
    "kinds": (lambda text: json.dumps(json.loads(text) | {"kinds": [1]}).encode(), "kinds[0] is 1"),
    "versions": (lambda text: json.dumps(json.loads(text) | {"versions": 1}).encode(), "versions"),
    "seconds": (lambda text: json.dumps(json.loads(text) | {"seconds": "3"}).encode(), "seconds"),
}


@pytest.mark.parametrize("kind", REPORT)
@pytest.mark.parametrize("name, tool", [("report", "compare"), ("tradeoff", "tradeoff")])
def test_what_is_cut_off_or_foreign_is_named(experiment, kind, name, tool):
    path = experiment / ("report.json" if name == "report" else "sweep/tradeoff.json")
    edit, words = REPORT[kind]
    text = path.read_bytes()
    if b"90.0" not in text:
        text = text.replace(b"89.5", b"90.0")
    if name == "tradeoff" and kind == "kinds":
        return
    path.write_bytes(edit(text))
    with pytest.raises(Ada3DError) as error:
        write_page(experiment, experiment / "sweep")
    for word in (str(path), words, f"tools/{tool}.py again"):
        assert word in str(error.value)
    assert not (experiment / "report.html").exists()


def test_a_picture_that_is_cut_off_is_named(experiment):
    path = experiment / "usage.png"
    for content in (path.read_bytes()[:-20], b"", b"GIF89a"):
        path.write_bytes(content)
        with pytest.raises(Ada3DError, match=r"usage\.png is cut off, or no PNG"):
            write_page(experiment)


def test_a_report_without_accuracy_or_without_ours_has_its_page(experiment):
    result = json.loads((experiment / "report.json").read_text())
    for rows in (result["rows"][:1], [row | {"accuracy": None} for row in result["rows"]]):
        records.write_json(experiment / "report.json", result | {"rows": rows})
        assert "is right on" not in write_page(experiment).read_text(encoding="utf-8")
