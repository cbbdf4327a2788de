"""tools/export.py on checkpoints: what is in the files, one line for each mistake, and kills."""

import json
import os
import signal
import subprocess
import sys
import time

import command_lines
import inference_parts
import numpy as np
import onnx
import pytest
import torch

import ada3d_fx
from ada3d_fx.report.records import read_clips
from ada3d_fx.runtime.contract import KEY

CLIPS = torch.randn(4, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    made = inference_parts.write(folder)
    text = (folder / "config.py").read_text(encoding="utf-8")
    (folder / "classes.txt").write_text("in\nout\nleft\nright\n", encoding="utf-8")
    (folder / "config.py").write_text(text + "\nclass_file = 'classes.txt'\n", encoding="utf-8")
    made.folder = folder
    made.eval()
    return made


@pytest.fixture
def export(model, monkeypatch, capsys, tmp_path):
    """Run the tool in the folder of the checkpoints; give its status and what it says."""
    monkeypatch.chdir(model.folder)

    def run(*arguments):
        status = command_lines.run(monkeypatch, "export", *arguments)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def close(scores, wanted):
    wanted = wanted.detach().numpy()
    return np.abs(scores - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_the_checkpoint_with_its_selection_network(model, export):
    assert export("config.py", "model.pth")[0] == 0
    session = ada3d_fx.Session(model.folder / "model.onnx")
    described = session.description
    assert described.classes == ("in", "out", "left", "right")
    assert described.preprocessing["mean"] == [120.0] * 3 and described.selects
    kinds = [step["type"] for step in described.preprocessing["pipeline"]]
    assert kinds == ["SampleFrames", "FormatShape"]
    assert described.selector_macs == model.selector_macs
    assert {"torch", "onnx", "onnxruntime", "ada3d_fx"} <= described.versions.keys()
    with torch.no_grad():
        scored = model.score(CLIPS)
    policy, wanted = scored.policy, scored.scores
    outcome = session.run(CLIPS)
    assert np.array_equal(outcome.policy.frames, policy.frames.numpy())
    assert np.array_equal(outcome.policy.stages, policy.stages.numpy())
    assert close(outcome.scores, wanted)
    assert np.array_equal(session.price(policy), model.price(policy).numpy())


def test_for_openvino_at_a_cost(model, export, tmp_path):
    """The file's threshold is that of tools/test.py --gmacs."""
    gmacs = (0.5 * model.full_macs + model.selector_macs) / 1e9
    arguments = ["config.py", "model.pth", "--to", "openvino", "--gmacs", gmacs]
    status, told, error = export(*arguments, "--out", tmp_path / "cheap.xml")
    described = ada3d_fx.Session(tmp_path / "cheap.xml").description
    assert status == 0 and described.threshold != 0.5
    assert f"threshold {described.threshold:.4g}" in told and "WARNING" not in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cheap.bin", "cheap.xml"]
    tested = ["config.py", "model.pth", "--gmacs", gmacs, "--policies", tmp_path / "p.json"]
    assert command_lines.run(pytest.MonkeyPatch(), "test", *tested, "--work-dir", tmp_path) == 0
    assert len(read_clips(str(tmp_path / "p.json"))) == 8


def test_a_threshold_and_another_clip_shape(model, export, tmp_path):
    arguments = ["config.py", "model.pth", "--threshold", 0.7, "--clip-shape", "3,4,40,48"]
    status, told, _ = export(*arguments, "--out", tmp_path / "wide.onnx")
    assert status == 0 and "clips 3 x 4 x 40 x 48" in told and "threshold 0.7" in told
    clips = torch.nn.functional.pad(CLIPS, (8, 8, 4, 4))
    decided = ada3d_fx.Session(tmp_path / "wide.onnx").decide(clips)
    with torch.no_grad():
        wanted = model.selector(clips).mode(0.7)
    assert np.array_equal(decided.frames, wanted.frames.numpy())


def test_without_the_selection_network(model, export, tmp_path):
    status, told, _ = export(
        "config.py", "model.pth", "--no-selection", "--out", tmp_path / "a.onnx"
    )
    session = ada3d_fx.Session(tmp_path / "a.onnx")
    assert status == 0 and "policies: given" in told and not session.description.selects
    assert close(session(CLIPS), model.recognizer(CLIPS))


@pytest.mark.parametrize("name", ["one.onnx", "one.xml", "one.pt2"])
def test_one_policy(model, export, tmp_path, name):
    out = tmp_path / name
    status, told, _ = export("config.py", "model.pth", "--policy", "3/10100", "--out", out)
    assert status == 0 and "clips of 3 frames, stages 10100" in told
    clips, policy = CLIPS[:, :, :3], (3, (True, False, True, False, False))
    if out.suffix == ".pt2":
        held = {KEY: ""}
        scores = torch.export.load(out, extra_files=held).module()(clips).detach().numpy()
        found = json.loads(held[KEY])["fixed"]
        assert (found[0], tuple(found[1])) == policy
    else:
        session = ada3d_fx.Session(out)
        scores = session(clips)
        assert session.description.fixed == policy
    assert close(scores, ada3d_fx.specialize(model.recognizer, *policy)(clips))


@pytest.mark.parametrize("suffix", ["onnx", "xml"])
def test_a_plain_recognizer(model, export, tmp_path, suffix):
    out = tmp_path / f"plain.{suffix}"
    arguments = ["plain.py", "plain.pth", "--clip-shape", "3,4,32,32", "--out", out]
    assert export(*arguments)[0] == 0
    session = ada3d_fx.Session(out)
    assert session.description.classes is None
    policy = ada3d_fx.Policy.random(model.plan, 4)
    assert close(session(CLIPS, policy), model.recognizer(CLIPS, policy))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["config.py", "none.pth"], "no file at none.pth"),
        (["none.py", "model.pth"], "no file at none.py"),
        (["config.py", "plain.pth"], "plain.pth"),
        (["config.py", "model.pth", "--out", "OUT/a.pb"], "ends with .onnx, .xml, .pt2"),
        (["config.py", "model.pth", "--to", "openvino", "--out", "OUT/a.onnx"], "ends with .xml"),
        (["config.py", "model.pth", "--to", "tensorrt"], "invalid choice"),
        (["config.py", "model.pth", "--to", "torch", "--out", "OUT/a.pt2"], "give one policy"),
        (["config.py", "model.pth", "--policy", "9/10100"], "num_frames=9"),
        (["config.py", "model.pth", "--policy", "3/101"], "expected 5 bits"),
        (["config.py", "model.pth", "--policy", "1011/10100"], "such as 3/10100"),
        (["config.py", "model.pth", "--policy", "learned"], "--policy learned"),
        (["config.py", "model.pth", "--threshold", "1.5"], "at most 1"),
        (["config.py", "model.pth", "--gmacs", "1e-9"], "cannot be had"),
        (["config.py", "model.pth", "--gmacs", "1", "--threshold", "0.4"], "either"),
        (["config.py", "model.pth", "--threshold", "0.4", "--no-selection"], "leaves out"),
        (["config.py", "model.pth", "--gmacs", "1", "--policy", "full"], "leaves out"),
        (["config.py", "model.pth", "--clip-shape", "3,4,32"], "--clip-shape"),
        (["plain.py", "plain.pth"], "--clip-shape C,T,H,W"),
        (["plain.py", "plain.pth", "--gmacs", "1"], "the model has none"),
        (["config.py", "model.pth", "--cfg-options", "model.random_part=frames"], "not random"),
        (["config.py", "model.pth", "--out", "config.py/a.onnx"], "is no folder"),
        (["config.py", "model.pth", "--out", "videos"], "a folder is there"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(export, model, tmp_path, arguments, words):
    arguments = [argument.replace("OUT", str(tmp_path)) for argument in arguments]
    if "--out" not in arguments:
        arguments += ["--out", str(tmp_path / ("a.pt2" if "torch" in arguments else "a.onnx"))]
    before = sorted(model.folder.iterdir())
    status, told, error = export(*arguments)
    last = error.splitlines()[-1]
    assert status == 2 and told == "" and words in last and last.startswith("error: ")
    assert list(tmp_path.iterdir()) == [] and sorted(model.folder.iterdir()) == before


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "xml"])
def test_a_killed_export_leaves_the_old_file(model, tmp_path, suffix):
    """Killed when the first file is in its hidden folder; the next one an hour later clears it away."""
    out = tmp_path / f"a.{suffix}"
    out.write_bytes(b"the old one")
    tool = command_lines.ROOT / "tools" / "export.py"
    words = [sys.executable, str(tool), "config.py", "model.pth", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(command_lines.ROOT), "OMP_NUM_THREADS": "1"}
    job = subprocess.Popen(
        words, cwd=model.folder, env=environment, stderr=subprocess.PIPE, encoding="utf-8"
    )
    while not list(tmp_path.glob(".a.*/*")):
        assert job.poll() is None, job.communicate()[1]
        time.sleep(0.002)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    (left,) = tmp_path.glob(".a.*")
    assert out.read_bytes() == b"the old one"
    os.utime(left, (0, 0))
    done = subprocess.run(words, cwd=model.folder, env=environment, check=False)
    assert done.returncode == 0 and ada3d_fx.Session(out).description.selects
    names = {"onnx": ["a.onnx"], "xml": ["a.bin", "a.xml"]}[suffix]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_the_file_is_one_of_onnx(model, export, tmp_path):
    assert export("config.py", "model.pth", "--out", tmp_path / "a.onnx")[0] == 0
    onnx.checker.check_model(str(tmp_path / "a.onnx"), full_check=True)
