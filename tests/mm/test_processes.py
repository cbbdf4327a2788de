"""Several processes give what one gives."""

import json
from pathlib import Path

import mm_parts
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

import ada3d_fx.mm  # noqa: F401
from ada3d_fx.mm.testing import calibrate

CLIPS = 7  # which two processes do not share evenly


def threshold(folder):
    """Calibrate a model of fixed weights on the clips of a folder."""
    init_default_scope("mmaction")
    torch.manual_seed(0)
    config = mm_parts.run_config(folder, folder / "work")
    steps = [s for s in config.val_dataloader.dataset.pipeline if s["type"] != "Flip"]
    steps[1]["test_mode"] = True  # nothing is drawn
    config.val_dataloader.dataset.pipeline = steps
    config.val_dataloader.batch_size = 2
    runner = Runner.from_cfg(config)
    model = runner.model
    with torch.no_grad():
        generator = torch.Generator().manual_seed(3)
        for parameter in model.selector.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    loader = runner.build_dataloader(config.val_dataloader)
    return calibrate(runner, loader, 0.5 * model.full_macs / 1e9 + model.selector_macs / 1e9)


def process(rank, folder, size):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=size
    )
    found = threshold(Path(folder))
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("size", [2])
def test_all_processes_have_the_threshold_of_one(size, tmp_path):
    mm_parts.write_clips(tmp_path, CLIPS)
    alone = threshold(tmp_path)
    torch.multiprocessing.spawn(process, (str(tmp_path), size), nprocs=size)
    together = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(size)]
    assert together == [alone] * size and 0 < alone < 1
