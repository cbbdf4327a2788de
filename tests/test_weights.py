"""Reading weights runs no code of the file, on any supported torch, and damage is told."""

import io
import os
import random
import tarfile
import warnings

import pytest
import torch
from hostile import HOSTILE, write_hostile

from ada3d_fx import Ada3DError, weights

WEIGHTS = {"state_dict": {"layer.weight": torch.arange(6.0).reshape(2, 3)}, "meta": {"epoch": 3}}


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def file(request, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=request.param)
    return path


def test_weights_are_read_from_a_path_and_from_an_open_file(file):
    for source in (file, str(file), io.BytesIO(file.read_bytes())):
        read = weights.read(source)
        assert read["meta"] == {"epoch": 3}
        assert torch.equal(read["state_dict"]["layer.weight"], torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_code_of_a_file_runs(kind, tmp_path):
    written = write_hostile(kind, tmp_path / "hostile.pth", tmp_path / "ran")
    for source in (written, io.BytesIO(written.read_bytes())):
        with pytest.raises(Ada3DError, match="cannot be read: "):
            weights.read(source)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", HOSTILE)
def test_these_files_run_code_where_nothing_forbids_it(kind, tmp_path):
    written = write_hostile(kind, tmp_path / "hostile.pth", tmp_path / "ran")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load = torch.jit.load if kind == "TorchScript" else torch.load
        load(str(written), **({} if kind == "TorchScript" else {"weights_only": False}))
    assert (tmp_path / "ran").exists()


def test_the_message_says_what_is_in_it_and_does_not_advise_less_care(tmp_path):
    written = write_hostile("zip", tmp_path / "hostile.pth", tmp_path / "ran")
    with pytest.raises(Ada3DError) as told:
        weights.read(written)
    message = str(told.value)
    assert str(written) in message and f"{os.name}.mkdir" in message
    assert "weights_only" not in message and "\n" not in message


def test_a_tar_file_is_no_file_of_weights(tmp_path):
    with tarfile.open(tmp_path / "weights.tar", "w") as tar:
        tar.add(__file__, "storages")
    with pytest.raises(Ada3DError, match="cannot be read: "):
        weights.read(tmp_path / "weights.tar")


def test_any_damage_is_told(file):
    whole = file.read_bytes()
    draw = random.Random(0)
    for _ in range(300):
        content = bytearray(whole[: draw.choice([len(whole), draw.randrange(len(whole))])])
        for _ in range(draw.randrange(20) if content else 0):
            content[draw.randrange(min(len(content), 900))] = draw.randrange(256)
        file.write_bytes(content)
        try:
            weights.read(file)  # what was hit may be a value
        except Ada3DError as error:
            assert str(file) in str(error)


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    with pytest.raises(Ada3DError, match=r"checkpoint: no file at .*absent\.pth"):
        weights.read(tmp_path / "absent.pth")
    with pytest.raises(Ada3DError, match="weights: a folder at"):
        weights.read_file(tmp_path, "weights")
