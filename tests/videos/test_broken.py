"""Broken videos in training and testing: named, counted, never replaced, left out up to a limit."""

import json
import logging
import multiprocessing
import os
from pathlib import Path

import mm_parts
import numpy as np
import odd_videos
import pytest
import torch
from mmaction.evaluation import AccMetric
from mmaction.registry import TRANSFORMS
from mmcv.transforms import BaseTransform
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from ada3d_fx import Ada3DError
from ada3d_fx.mm.console import build_runner
from ada3d_fx.mm.testing import record_policies
from ada3d_fx.mm.video_runner import VideoEvaluator, in_list_order
from ada3d_fx.progress import Console
from ada3d_fx.report import records
from ada3d_fx.videos.broken import limit_of
from ada3d_fx.videos.loader import VideoLoader

INITS = {"decord": ("DecordInit", "DecordDecode"), "pyav": ("PyAVInit", "PyAVDecode"),
         "opencv": ("OpenCVInit", "OpenCVDecode")}  # fmt: skip


@pytest.fixture
def adaptive(tmp_path):
    """The config of an Ada3D run."""
    mm_parts.write_clips(tmp_path)
    config = mm_parts.run_config(tmp_path, tmp_path / "work", epochs=1)
    config.custom_hooks, config.visualizer = config.custom_hooks[:1], None
    return config


@pytest.fixture
def config(adaptive):
    """The config of a plain recognizer's run, which is sooner built."""
    adaptive.model, adaptive.custom_hooks = mm_parts.recognizer(), []
    adaptive.optim_wrapper = {"optimizer": {"type": "SGD", "lr": 0.1}}
    adaptive.val_evaluator = adaptive.test_evaluator = adaptive.val_evaluator[:1]
    adaptive.default_hooks.checkpoint = None
    return adaptive


def spoil(config, *numbers):
    """Cut the ends of these videos off."""
    videos = Path(config.train_dataloader.dataset.data_prefix.video)
    for number in numbers:
        odd_videos.cut(videos / f"{number}.mp4", videos / f"{number}.mp4")


def allow(config, limit, **loader):
    config.broken_videos = {"limit": limit}
    for name in ("train", "val", "test"):
        config[f"{name}_dataloader"].update(loader)
    return config


def loader(config, name="train"):
    """The list's loader as a runner builds it: a runner itself takes seconds to build."""
    built = Runner.build_dataloader(config[f"{name}_dataloader"], seed=0)
    return VideoLoader.of(built, config)


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmaction")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("reader", INITS)
def test_a_broken_video_is_named_whatever_decodes_it(config, reader, workers):
    spoil(config, 5)
    config.train_dataloader.num_workers = workers
    pipeline = config.train_dataloader.dataset.pipeline
    pipeline[0].type, pipeline[2].type = INITS[reader]
    pipeline.insert(3, {"type": "Resize", "scale": (32, 32), "keep_ratio": False})
    with pytest.raises(Ada3DError) as raised:
        list(loader(config))
    message = str(raised.value)
    assert "5.mp4" in message and "list.txt, entry 6" in message and "Traceback" not in message
    assert "limit allows 0" in message and "check_data.py" in message
    assert not multiprocessing.active_children()  # while the error holds the loader's frames


def test_a_broken_video_stops_the_training(config):
    spoil(config, 5)
    with pytest.raises(Ada3DError, match=r"5\.mp4"):
        build_runner(config, Console(terminal=False)).train()


def test_broken_videos_are_left_out_of_training_up_to_the_limit(config, capsys):
    spoil(config, 1, 5)
    runner = build_runner(allow(config, 2, num_workers=2), Console(terminal=False))
    clips = []
    runner.train_loop.run_iter = counted(runner.train_loop.run_iter, clips)
    runner.train()
    assert sum(clips) == 6  # of 8: no clip is seen twice in place of another
    said = capsys.readouterr().err
    assert "1.mp4" in said and "5.mp4" in said
    assert "epoch 1: 2 of 8 clips left out, as 2 videos do not decode" in said
    assert "of 6 of 8 videos: 2 do not decode" in said  # the validation


def counted(run_iter, clips):
    def wrapped(index, batch):
        clips.append(len(batch["inputs"]))
        return run_iter(index, batch)

    return wrapped


def test_more_than_the_limit_stops_the_training(config):
    spoil(config, 1, 5, 6)
    with pytest.raises(
        Ada3DError, match=r"(?s)3 videos cannot be decoded, of 8.*allows 2"
    ) as raised:
        list(loader(allow(config, 0.3)))
    assert all(f"{number}.mp4" in str(raised.value) for number in (1, 5, 6))


def test_a_test_says_of_how_many_videos_it_speaks(adaptive):
    config = allow(adaptive, 1, batch_size=1)
    spoil(config, 2)
    policies = str(Path(config.work_dir, "policies.json"))
    record_policies(config, policies)
    runner = build_runner(config, Console(terminal=False))
    metrics = runner.test()
    assert metrics["videos/tested"] == 7 and metrics["videos/left_out"] == 1
    names = [Path(clip["video"]).name for clip in records.read_clips(policies)]
    assert names == [f"{number}.mp4" for number in range(8) if number != 2]
    assert [Path(one.video).name for one in runner.test_loop.evaluator.left_out] == ["2.mp4"]
    assert runner.test()["videos/left_out"] == 1  # counted anew


def test_nothing_left_is_an_error(config):
    spoil(config, *range(8))
    with pytest.raises(Ada3DError, match="no video of the list can be decoded"):
        list(loader(allow(config, 8)))


def test_batches_that_are_wholly_broken_are_left_out(config):
    spoil(config, 0, 1, 6)
    batches = list(loader(allow(config, 3, batch_size=2), "val"))
    assert [len(batch["inputs"]) for batch in batches] == [2, 2, 1]


@pytest.mark.slow
def test_recorded_policies_are_not_shifted_by_a_video_that_is_left_out(adaptive):
    config = adaptive
    policies = str(Path(config.work_dir, "policies.json"))
    record_policies(config, policies)
    build_runner(config, Console(terminal=False)).test()
    spoil(config, 6)
    config.model.testing = {"policy": "recorded", "policy_file": policies}
    config.experiment_name = "recorded"
    with pytest.raises(Ada3DError, match=r"goes by the test list.*6\.mp4"):
        build_runner(allow(config, 1), Console(terminal=False)).test()


@TRANSFORMS.register_module()
class FailsOnFrames(BaseTransform):
    def transform(self, results):
        raise IndexError("a mistake in a transform")


@TRANSFORMS.register_module()
class GivesNothing(BaseTransform):
    def transform(self, results):
        return None if "3.mp4" in results["filename"] else results


def test_a_mistake_in_a_transform_keeps_its_traceback_and_names_the_video(config):
    config.test_dataloader.dataset.pipeline.insert(3, {"type": "FailsOnFrames"})
    with pytest.raises(
        RuntimeError, match=r"FailsOnFrames fails on the frames of .*0\.mp4"
    ) as raised:
        list(loader(config, "test"))
    assert isinstance(raised.value.__cause__, IndexError)


def test_what_a_pipeline_gives_nothing_for_is_not_replaced_by_another_clip(config):
    config.train_dataloader.dataset.pipeline.insert(3, {"type": "GivesNothing"})
    with pytest.raises(Ada3DError, match=r"3\.mp4: GivesNothing gives nothing"):
        list(loader(config))


def test_data_sets_within_wrappers_are_named_too(config):
    spoil(config, 7)
    inner = config.train_dataloader.dataset
    wrapped = {"type": "ConcatDataset", "datasets": [inner, inner]}
    config.train_dataloader.dataset = {"type": "RepeatDataset", "times": 2, "dataset": wrapped}
    config.train_dataloader.num_batch_per_epoch = 8
    with pytest.raises(Ada3DError, match=r"7\.mp4"):
        list(loader(config))


def test_clips_of_one_video_that_are_repeated_name_it(config):
    """RepeatAugDataset calls the transforms of its pipeline itself."""
    spoil(config, 3)
    config.train_dataloader.dataset.update(type="RepeatAugDataset", num_repeats=2)
    with pytest.raises(Ada3DError, match=r"3\.mp4"):
        list(loader(config))


def test_a_dead_worker_process_is_a_message(config):
    config.test_dataloader.update(num_workers=1)
    config.test_dataloader.dataset.pipeline.insert(0, {"type": "EndsItsProcess"})
    with pytest.raises(Ada3DError, match=r"a process that decodes videos died"):
        list(loader(config, "test"))


@TRANSFORMS.register_module()
class EndsItsProcess(BaseTransform):
    def transform(self, results):
        os._exit(3)


def test_batches_are_the_very_ones_of_mmengine(config):
    np.random.seed(0)
    want = list(Runner.build_dataloader(config.val_dataloader, seed=0))
    np.random.seed(0)
    mine = list(loader(config, "val"))
    assert len(mine) == len(want)
    for batch, other in zip(want, mine):
        assert all((a == b).all() for a, b in zip(batch["inputs"], other["inputs"]))


@pytest.mark.parametrize("options", [{"limits": 1}, {"limit": -1}, {"limit": float("nan")},
                                     {"limit": 1.5}, {"limit": "many"}, 3])  # fmt: skip
def test_limits_that_are_none(options):
    with pytest.raises(Ada3DError, match="broken_videos"):
        limit_of({"broken_videos": options})


def test_a_limit_is_a_number_or_a_share():
    assert limit_of({}) == 0
    assert limit_of({"broken_videos": {"limit": 3}}, 100) == 3
    assert limit_of({"broken_videos": {"limit": 0.05}}, 70) == 3


def test_log_files_take_names_that_the_locale_has_no_bytes_for(config, tmp_path):
    runner = build_runner(config, Console(terminal=False))
    files = [h for h in runner.logger.handlers if isinstance(h, logging.FileHandler)]
    assert files and all(handler.stream.errors == "backslashreplace" for handler in files)


# ------------------------------------------------------------------------------- several processes


def evaluated(config):
    """Metrics and names of a list whose predictions are the number of the video, without a model."""
    batches = loader(config, "val")
    evaluator = VideoEvaluator(Evaluator([AccMetric(metric_list=("top_k_accuracy",))]), batches)
    evaluator.dataset_meta = batches.dataset.metainfo
    names = []
    for batch in batches:
        samples = batch["data_samples"]
        for sample in samples:
            names.append(Path(sample.filename).name)
            sample.set_pred_score(torch.eye(mm_parts.CLASSES)[int(names[-1][0]) % 3])
        evaluator.process(data_samples=samples, data_batch=batch)
    metrics = evaluator.evaluate(len(batches.dataset))
    left_out = sorted(Path(one.video).name for one in evaluator.left_out)
    return metrics, in_list_order(names, batches), left_out


def one_of_several(rank, size, folder, config):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=size
    )
    (Path(folder) / f"{rank}.json").write_text(json.dumps(evaluated(config)))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("size, broken", [(2, (0, 5)), (2, (7, 4, 3)), (3, (6,)), (3, (1, 3, 5))])
def test_several_processes_leave_out_what_one_does(config, tmp_path, size, broken):
    """Eight videos, which three processes do not share evenly."""
    config.val_dataloader.dataset.pipeline = [
        *config.val_dataloader.dataset.pipeline[:3], *config.val_dataloader.dataset.pipeline[4:-1],
        {"type": "PackActionInputs", "meta_keys": ("filename",)},
    ]  # fmt: skip
    config.val_dataloader.batch_size = 2
    spoil(config, *broken)
    alone = evaluated(allow(config, len(broken)))
    torch.multiprocessing.start_processes(
        one_of_several, (size, str(tmp_path), config), size, start_method="fork"
    )
    for rank in range(size):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == json.loads(json.dumps(alone))
    metrics, names, left_out = alone
    assert metrics["videos/left_out"] == len(broken) == len(left_out)
    assert names == [f"{number}.mp4" for number in range(8) if number not in broken]
