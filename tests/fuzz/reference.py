"""What an adaptive network must give: the oracle's scores, clip by clip, for any model.

In training, BatchNorm takes its statistics over the kept frames of all clips. So here each clip runs
in a thread of its own, and the threads meet at every BatchNorm that trains.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import oracle
import torch
from random_blocks import Constant, Relative, Untraceable
from torch import nn

BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)


def norms_in_training(model):
    return [m for m in model.modules() if isinstance(m, BATCH_NORMS) and _takes_statistics(m)]


def _takes_statistics(norm):
    return norm.training or norm.running_mean is None


def scores(model, plan, clips, policy, follows_times=False):
    """Scores [N, classes] of a model under a policy; gradients reach the model's parameters.

    BatchNorm's running statistics are updated as the packed program does. Constants that vary along
    time follow the kept frames, or are what the model's own code makes of them.
    """
    unit = plan.frame_unit if follows_times else None
    norms = norms_in_training(model)
    if not norms:
        return torch.cat([_alone(model, plan, *clip) for clip in _each(clips, policy, unit)])
    meeting = _Meeting(len(clips))
    enabled = torch.is_grad_enabled()

    def run(place, clip):
        torch.set_grad_enabled(enabled)
        meeting.places[threading.get_ident()] = place
        try:
            return _alone(model, plan, *clip, norms, meeting)
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(len(clips)) as threads:
        rows = [threads.submit(run, *item) for item in enumerate(_each(clips, policy, unit))]
        errors = [row.exception() for row in rows]
        real = [e for e in errors if e and not isinstance(e, threading.BrokenBarrierError)]
        if any(errors):
            raise (real or [e for e in errors if e])[0]
        return torch.cat([row.result() for row in rows])


def _each(clips, policy, unit):
    for clip, frames, stages in zip(clips, policy.frames, policy.stages):
        kept = unit and (frames[::unit].nonzero().flatten().tolist(), len(frames) // unit)
        yield clip[None][:, :, frames], stages.tolist(), kept


def _alone(model, plan, clip, stages, kept, norms=(), meeting=None):
    own = oracle.sliced(model, plan, stages, copy_weights=False, shared=norms)
    for module in own.modules():
        if kept and isinstance(module, (Constant, Relative, Untraceable)):
            module.kept = kept
    for path, module in list(own.named_modules(remove_duplicate=False)):
        if module in norms:
            parent, _, name = path.rpartition(".")
            own.get_submodule(parent)._modules[name] = _Together(module, meeting)
    return own(clip)


@contextmanager
def right_gradients():
    """Let BatchNorm and InstanceNorm take and get contiguous memory.

    torch's own give wrong gradients on the CPU for some strides of clips of one frame, see
    ``ada3d_fx.packed.segments.as_rows``: so do models as they are, and what runs densely.
    """
    originals = torch.batch_norm, torch.instance_norm
    torch.batch_norm, torch.instance_norm = map(_contiguous, originals)
    try:
        yield
    finally:
        torch.batch_norm, torch.instance_norm = originals


def _contiguous(function):
    def call(x, *args, **options):
        y = function(x.new_empty(x.shape).copy_(x), *args, **options)
        if y.requires_grad:
            y.register_hook(lambda g: g.new_empty(g.shape).copy_(g))
        return y

    return call


class _Meeting:
    """Where the threads of all clips wait for each other, and leave their values."""

    def __init__(self, clips):
        self.barrier = threading.Barrier(clips, timeout=20)
        self.places = {}  # thread -> place of its clip
        self.values = [None] * clips
        self.results = ()


class _Together(nn.Module):
    """A BatchNorm over the frames of all clips at once."""

    def __init__(self, norm, meeting):
        super().__init__()
        self.__dict__.update(norm=norm, meeting=meeting)

    def forward(self, x):
        meeting = self.meeting
        place = meeting.places[threading.get_ident()]
        meeting.values[place] = x.transpose(1, 2).flatten(0, 1).unsqueeze(2) if x.ndim == 5 else x
        meeting.barrier.wait()
        if place == 0:
            sizes = [len(value) for value in meeting.values]
            meeting.results = self.norm(torch.cat(meeting.values)).split(sizes)
        meeting.barrier.wait()
        rows = meeting.results[place]
        meeting.barrier.wait()
        return rows.squeeze(2).unflatten(0, (len(x), -1)).transpose(1, 2) if x.ndim == 5 else rows
