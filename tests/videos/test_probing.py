"""Videos decoded in processes of their own; one that dies or hangs costs one video."""

import os
import re
import signal

import odd_videos
import pytest

from ada3d_fx.videos.probing import _Prober, probe_all


def request(path):
    return {"path": str(path), "reader": "decord", "whole": True}


@pytest.mark.parametrize(
    "sign, words", [(signal.SIGSEGV, "crashes its decoder: SIGSEGV"), (signal.SIGSTOP, "hangs"),
                    (signal.SIGKILL, "SIGKILL .not enough memory")]
)  # fmt: skip
def test_a_decoder_that_dies_or_hangs_is_told_and_replaced(tmp_path, sign, words):
    good = odd_videos.write(tmp_path / "good.mp4")
    prober = _Prober(timeout=5.0)
    try:
        assert prober.probe(request(good))["error"] is None
        prober.timeout = 0.5
        os.kill(prober.process.pid, sign)
        assert re.search(words, prober.probe(request(good))["error"])
        prober.timeout = 20.0
        assert prober.probe(request(good))["frames"] == 24
    finally:
        prober.close()
    assert prober.process is None


def test_answers_come_for_all_and_requests_are_taken_one_by_one(tmp_path):
    good = odd_videos.write(tmp_path / "good.mp4", frames=2)
    taken, seen = [], set()

    def requests():
        for key in range(30):
            taken.append(key)
            yield key, request(good if key % 2 else tmp_path / "absent.mp4")

    for key, found in probe_all(requests(), processes=2, timeout=20):
        seen.add(key)
        assert len(taken) <= len(seen) + 2 * 2 + 2
        assert bool(found["error"]) == (key % 2 == 0)
    assert seen == set(range(30))


def test_what_the_requests_raise_is_raised(tmp_path):
    good = odd_videos.write(tmp_path / "good.mp4", frames=2)

    def requests():
        yield 0, request(good)
        raise KeyError("the list")

    with pytest.raises(KeyError, match="the list"):
        list(probe_all(requests(), processes=2, timeout=20))
