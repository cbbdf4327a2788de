"""Session: the errors of its users, and that it needs neither torch nor MMAction2."""

import copy
import json
import os
import pickle
import subprocess
import sys
from concurrent import futures
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exports import clips, network, selector

import ada3d_fx
from ada3d_fx.errors import Ada3DError
from ada3d_fx.runtime.contract import KEY
from ada3d_fx.runtime.session import Decision, inputs_of


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for suffix in ("onnx", "xml"):
        ada3d_fx.export(network(), folder / f"selects.{suffix}", selector())
    ada3d_fx.export(network(), folder / "given.onnx", classes=list("abcde"))
    return folder


@pytest.fixture(params=["onnx", "xml"])
def session(request, files):
    return ada3d_fx.Session(files / f"selects.{request.param}")


def test_it_says_what_it_is(session, files):
    described = session.description
    assert described.clip_shape == (3, 8, 32, 32) and described.num_classes == 5
    assert described.stages == tuple(stage.name for stage in network().plan.stages)
    assert (
        described.versions["torch"] == torch.__version__.partition("+")[0]
        or "+" in torch.__version__
    )
    assert ada3d_fx.Session(files / "given.onnx").description.classes == tuple("abcde")
    assert repr(session).startswith("Session(on") or repr(session).startswith("Session(openvino")


def test_the_inputs_are_those_of_the_graph(files):
    for name in ("selects", "given"):
        session = ada3d_fx.Session(files / f"{name}.onnx")
        graph = onnx.load(str(files / f"{name}.onnx")).graph
        assert [value.name for value in graph.input] == list(inputs_of(session.description))


def test_a_decision_is_a_policy(session):
    decided = session.decide(clips(5))
    assert isinstance(decided, Decision) and decided.frames.dtype == bool
    scores = session(clips(5), decided)
    assert np.array_equal(scores, session(clips(5)))
    pair = (decided.frames, decided.stages)
    assert np.array_equal(scores, session(clips(5).numpy(), pair))


def test_each_clip_is_as_if_alone(session):
    together = session(clips(4))
    alone = np.concatenate([session(clips(4)[i : i + 1]) for i in range(4)])
    assert np.abs(together - alone).max() < 1e-5


def test_openvino_reads_onnx_too(files):
    other = ada3d_fx.Session(files / "selects.onnx", engine="openvino", threads=1)
    assert other.description == ada3d_fx.Session(files / "selects.onnx").description
    assert np.abs(other(clips(3)) - ada3d_fx.Session(files / "selects.xml")(clips(3))).max() < 1e-5


@pytest.mark.parametrize(
    "clip, message",
    [
        (torch.zeros(2, 3, 8, 32, 40), r"shape \[2, 3, 8, 32, 40\], expected \[N, 3, 8, 32, 32\]"),
        (torch.zeros(2, 3, 7, 32, 32), r"shape \[2, 3, 7, 32, 32\]"),
        (torch.zeros(2, 1, 3, 8, 32, 32), "fold the views into the batch"),
        (torch.zeros(0, 3, 8, 32, 32), r"shape \[0, 3, 8, 32, 32\]"),
        (torch.zeros(2, 3, 8, 32, 32, dtype=torch.uint8), "dtype uint8, expected normalised"),
    ],
)
def test_other_clips_are_refused(session, clip, message):
    for call in (session, session.decide):
        with pytest.raises(Ada3DError, match=message):
            call(clip)


@pytest.mark.parametrize(
    "frames, stages, message",
    [
        (
            np.ones((2, 7), bool),
            np.ones((2, 5), bool),
            r"frames are bool \[2, 7\], expected bool \[2, 8\]",
        ),
        (np.ones((2, 8), bool), np.ones((1, 5), bool), r"stages are bool \[1, 5\]"),
        (np.ones((2, 8)), np.ones((2, 5), bool), "frames are float64"),
        (np.zeros((2, 8), bool), np.ones((2, 5), bool), r"clips \[0, 1\] keep none"),
    ],
)
def test_other_policies_are_refused(session, frames, stages, message):
    with pytest.raises(Ada3DError, match=message):
        session(clips(2), (frames, stages))


def test_frames_outside_units_are_refused(files):
    session = ada3d_fx.Session(files / "selects.onnx")
    object.__setattr__(session.description, "frame_unit", 4)
    frames = np.ones((2, 8), bool)
    frames[1, 3] = False
    with pytest.raises(Ada3DError, match="whole units of 4 frames"):
        session(clips(2), (frames, np.ones((2, 5), bool)))


def test_what_is_no_policy_or_threshold_is_refused(session, files):
    with pytest.raises(Ada3DError, match="policy is a str"):
        session(clips(2), "full")
    for threshold in (0.0, 1.0, float("nan"), 2, "half"):
        with pytest.raises(Ada3DError, match="threshold"):
            session(clips(2), threshold=threshold)
    given = ada3d_fx.Session(files / "given.onnx")
    with pytest.raises(Ada3DError, match="has no selection network; it decides nothing"):
        given.decide(clips(2))
    with pytest.raises(Ada3DError, match="for a file with a selection network"):
        given(clips(2), threshold=0.4)


def test_damaged_and_foreign_files(files, tmp_path):
    whole = (files / "selects.onnx").read_bytes()
    for name, content in (
        ("cut.onnx", whole[: len(whole) // 2]),
        ("empty.onnx", b""),
        ("text.xml", b"hello"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Ada3DError, match=name):
            ada3d_fx.Session(tmp_path / name)
    (tmp_path / "cut.xml").write_bytes((files / "selects.xml").read_bytes())
    weights = (files / "selects.bin").read_bytes()
    (tmp_path / "cut.bin").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(Ada3DError, match=r"cut\.xml: the engine cannot read it"):
        ada3d_fx.Session(tmp_path / "cut.xml")
    with pytest.raises(Ada3DError, match=r"no file at .*absent\.onnx"):
        ada3d_fx.Session(tmp_path / "absent.onnx")
    with pytest.raises(Ada3DError, match=r"a file ends with \.onnx, \.xml"):
        ada3d_fx.Session(tmp_path / "model.pth")
    with pytest.raises(Ada3DError, match="engine='tensorrt'"):
        ada3d_fx.Session(files / "selects.onnx", engine="tensorrt")


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda held: held.update(format=2),
            "of format 2, made by ada3d_fx .*; this one reads format 1",
        ),
        (lambda held: held.pop("format"), "its description is damaged"),
        (lambda held: held.pop("clip_shape"), "its description is damaged"),
    ],
)
def test_another_version_is_told(files, tmp_path, change, message):
    model = onnx.load(str(files / "given.onnx"))
    (entry,) = (entry for entry in model.metadata_props if entry.key == KEY)
    held = json.loads(entry.value)
    change(held)
    entry.value = json.dumps(held)
    onnx.save(model, str(tmp_path / "other.onnx"))
    with pytest.raises(Ada3DError, match=message):
        ada3d_fx.Session(tmp_path / "other.onnx")
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "other.onnx"))
    with pytest.raises(Ada3DError, match="it does not say what it is"):
        ada3d_fx.Session(tmp_path / "other.onnx")


ALONE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "mmengine", "mmaction", "mmcv", "fvcore", "onnx"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.partition(".")[0] in ("torch", "fvcore") else find(name, package))
from importlib import metadata
version = metadata.version
def without_torch(name):
    if name in ("torch", "fvcore"):
        raise metadata.PackageNotFoundError(name)
    return version(name)
metadata.version = without_torch
import numpy as np
import ada3d_fx
session = ada3d_fx.Session(sys.argv[1])
clips = np.load(sys.argv[2])
np.save(sys.argv[3], session(clips))
try:
    ada3d_fx.convert
except ada3d_fx.Ada3DError as error:
    assert "torch is not installed" in str(error), error
else:
    raise AssertionError("convert without torch")
assert not {"torch", "onnx"} & set(sys.modules)
"""


def test_without_torch(files, tmp_path):
    np.save(tmp_path / "clips.npy", clips(3).numpy())
    for name in ("selects.onnx", "selects.xml"):
        run = subprocess.run(
            [sys.executable, "-c", ALONE, files / name, tmp_path / "clips.npy", tmp_path / "scores.npy"],
            capture_output=True, text=True, cwd=Path(ada3d_fx.__file__).parents[1],
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert np.array_equal(
            np.load(tmp_path / "scores.npy"), ada3d_fx.Session(files / name)(clips(3))
        )


def test_many_threads_may_call_one_session(session):
    """Each gets what it would get alone, whatever the others ask for."""
    batches = [clips(1 + i % 3, seed=i) for i in range(12)]
    wanted = [session.run(batch) for batch in batches]
    with futures.ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(session.run, batches * 3))
        decisions = list(pool.map(session.decide, batches * 3))
    for run, decided, alone in zip(runs, decisions, wanted * 3):
        assert np.array_equal(run.scores, alone.scores)
        for policy in (run.policy, decided):
            assert all(np.array_equal(*pair) for pair in zip(policy, alone.policy))


def test_copies_open_the_file_again(session, files):
    for other in (copy.deepcopy(session), pickle.loads(pickle.dumps(session))):
        assert other.engine is not session.engine and other.description == session.description
        assert np.array_equal(other(clips(2)), session(clips(2)))
    one = ada3d_fx.Session(files / "selects.onnx", engine="openvino", threads=1)
    assert copy.copy(one).engine_name == "openvino"


def test_a_forked_process_is_told_to_make_its_own(session, files):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            session(clips(2).numpy())
        except Ada3DError as error:
            os.write(writing, str(error).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as told:
        assert "make a Session in each process" in told.read()
    os.waitpid(child, 0)


SIGNAL = """
import gc, signal, subprocess, sys
import ada3d_fx
sessions = [ada3d_fx.Session(sys.argv[1], "openvino") for _ in range(3)]
while sessions:
    sessions.pop(0)
    gc.collect()
signal.signal(signal.SIGCHLD, lambda *_: print("a signal"))
subprocess.run(["true"])
"""


def test_a_signal_comes_in_after_sessions_have_ended(files):
    """Each of OpenVINO's cores sets a stack for signals, and takes it back in any order."""
    run = subprocess.run(
        [sys.executable, "-c", SIGNAL, files / "given.onnx"], capture_output=True, check=False,
        encoding="utf-8", cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n")[0] == "a signal"


SERVE = Path(__file__).parents[2] / "docs" / "serve.py"


@pytest.mark.parametrize("threshold", [None, 0.7])
def test_a_service_needs_the_engine_only(tmp_path, threshold):
    """docs/serve.py, which imports ONNX Runtime and NumPy."""
    ada3d_fx.export(network(), tmp_path / "n.onnx", selector(), classes=list("abcde"))
    np.save(tmp_path / "clips.npy", clips(6).numpy())
    run = subprocess.run(
        [sys.executable, "-I", SERVE, tmp_path / "n.onnx", tmp_path / "clips.npy",
         *([] if threshold is None else [str(threshold)])],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    session = ada3d_fx.Session(tmp_path / "n.onnx")
    outcome = session.run(clips(6), threshold=threshold)
    lines = [line.split() for line in run.stdout.splitlines()]
    assert [line[0] for line in lines] == ["abcde"[i] for i in outcome.scores.argmax(1)]
    for line, scores, *policy in zip(lines, outcome.scores, *outcome.policy, strict=True):
        assert float(line[1]) == pytest.approx(scores.max(), abs=1e-3)
        assert line[2:] == ["".join(str(int(bit)) for bit in part) for part in policy]
    source = SERVE.read_text(encoding="utf-8")
    assert "import ada3d_fx" not in source and "import torch" not in source
