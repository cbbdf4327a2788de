"""Ray Data on a local cluster: the inferencer is the callable of map_batches, and workers may die."""

import os
import signal
from pathlib import Path

import command_lines
import inference_parts
import pytest

from ada3d_fx.mm import Ada3DInferencer

ray = pytest.importorskip("ray", reason="ray is an extra: pip install ada3d_fx[ray]")
pytest.importorskip("ray.data", reason="ray.data is an extra: pip install ada3d_fx[ray]")
pytestmark = pytest.mark.slow
COUNT = 12


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    inference_parts.write(folder, views=2, count=COUNT)
    (folder / "videos" / "5.mp4").write_bytes(b"no video")
    paths = [str(folder / "videos" / f"{i}.mp4") for i in range(COUNT)]
    (folder / "paths.txt").write_text("\n".join(paths) + "\n")
    infer = Ada3DInferencer(folder / "config.py", folder / "model.pth", "cpu", num_workers=0)
    return folder, paths, infer(paths)["predictions"]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def check(rows, wanted):
    rows = sorted(rows, key=lambda row: int(Path(row["video"]).stem))
    assert [row["video"] for row in rows] == [row["video"] for row in wanted]
    for row, other in zip(rows, wanted, strict=True):
        assert bool(row["error"]) == bool(other["error"])
        assert row["frames"] == (other["frames"] or "") and row["stages"] == (other["stages"] or "")
        if not row["error"]:
            assert (row["predicted"], row["gmacs"]) == (other["predicted"], other["gmacs"])


def test_the_example_of_the_documents(work, tmp_path, monkeypatch):
    folder, _, wanted = work
    monkeypatch.syspath_prepend(str(command_lines.ROOT / "docs"))
    from ray_inference import main

    main(
        *(str(folder / name) for name in ("config.py", "model.pth", "paths.txt")),
        str(tmp_path / "out"),
    )
    check(ray.data.read_parquet(str(tmp_path / "out")).take_all(), wanted)


def test_a_worker_that_dies_is_started_again_and_no_row_is_lost_or_doubled(work, tmp_path):
    folder, paths, wanted = work
    died = str(tmp_path / "died")

    class Dying(Ada3DInferencer):
        def __call__(self, inputs, *args, **kwargs):
            if str(inputs["video"][0]) == paths[4] and not os.path.exists(died):
                with open(died, "w"):
                    os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(inputs, *args, **kwargs)

    files = dict(config=str(folder / "config.py"), checkpoint=str(folder / "model.pth"))
    rows = ray.data.from_items([{"video": path} for path in paths], override_num_blocks=6)
    rows = rows.map_batches(
        Dying, fn_constructor_kwargs=dict(**files, device="cpu", num_workers=0), batch_size=2,
        concurrency=2,
    ).take_all()  # fmt: skip
    assert os.path.exists(died)
    check(rows, wanted)
