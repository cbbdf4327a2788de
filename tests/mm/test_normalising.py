"""Clips prepared one by one are what MMAction2's data preprocessor makes of them, to the bit."""

import pytest
import torch
from mmaction.models import ActionDataPreprocessor

from ada3d_fx.mm import normalising

OPTIONS = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
CALLS = {  # how a preprocessor is built, and what clips are: those that must go through it
    "BGR": ({"to_rgb": True}, {}),
    "images": ({"format_shape": "NCHW"}, {"shape": (8, 3, 20, 24)}),
    "not normalised": ({"mean": None, "std": None}, {}),
    "numbers": ({}, {"dtype": torch.float32}),
    "float64": ({}, {"double": True}),
    "a hook": ({}, {"hook": True}),
    "a class of its own": ({}, {"own": True}),
}


class Own(ActionDataPreprocessor):
    def forward(self, data, training=False):
        data = super().forward(data, training)
        return {**data, "inputs": data["inputs"] + 1}


def pixels(shape=(3, 5, 20, 24), dtype=torch.uint8, n=3):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, shape, generator=generator).to(dtype) for _ in range(n)]


def through(preprocessor, clips):
    data = {"inputs": [clip[None] for clip in clips], "data_samples": None}
    return preprocessor(data, training=False)["inputs"]


def counted(preprocessor, monkeypatch):
    calls, forward = [], type(preprocessor).forward
    monkeypatch.setattr(
        type(preprocessor), "forward", lambda *args, **kw: calls.append(1) or forward(*args, **kw)
    )
    return calls


@pytest.mark.parametrize("blending", [None, {"type": "MixupBlending", "num_classes": 4}])
def test_the_same_numbers_without_the_preprocessor(blending, monkeypatch):
    preprocessor = ActionDataPreprocessor(**OPTIONS, format_shape="NCTHW", blending=blending)
    every = torch.arange(256, dtype=torch.uint8).repeat(3).view(3, 1, 16, 16)
    for clips in ([every], pixels()):
        before = [clip.clone() for clip in clips]
        wanted, calls = through(preprocessor, clips), counted(preprocessor, monkeypatch)
        made = normalising.prepared(preprocessor, clips)
        assert not calls and made.dtype == wanted.dtype and torch.equal(made, wanted)
        assert all(map(torch.equal, clips, before))
        monkeypatch.undo()


@pytest.mark.parametrize("name", CALLS)
def test_whatever_does_more_goes_through_the_preprocessor(name, monkeypatch):
    options, how = CALLS[name]
    kind = Own if how.get("own") else ActionDataPreprocessor
    preprocessor = kind(**{**OPTIONS, "format_shape": "NCTHW", **options})
    preprocessor = preprocessor.double() if how.get("double") else preprocessor
    if how.get("hook"):
        preprocessor.register_forward_hook(lambda module, args, out: None)
    clips = pixels(**{key: how[key] for key in ("shape", "dtype") if key in how})
    wanted, calls = through(preprocessor, clips), counted(preprocessor, monkeypatch)
    assert torch.equal(normalising.prepared(preprocessor, clips), wanted)
    assert calls
