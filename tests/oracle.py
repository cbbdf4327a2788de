"""Slow twins of everything fast. Not fast, will not be made fast: equality with them is the
definition of correct.

Nothing here uses ada3d_fx's own execution: only the original model, its module paths, and torch.
"""

import contextlib
import copy
import functools
import math
import statistics

import torch
from mmaction.models.backbones import mvit
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize


class _CentreSlice(nn.Module):
    """A convolution with w[:, :, kt // 2] only (paper, sec. 3.2), written out; its hooks are called."""

    def __init__(self, conv):
        super().__init__()
        self.conv = copy.copy(conv)
        self.conv.forward = functools.partial(_centre_slice, self.conv)

    def forward(self, x):
        return self.conv(x)


def _centre_slice(conv, x):
    middle = conv.kernel_size[0] // 2
    padding = conv.padding
    if padding == "same":
        padding = [d * (k - 1) // 2 for d, k in zip(conv.dilation, conv.kernel_size)]
    return F.conv3d(
        x, conv.weight[:, :, middle : middle + 1], conv.bias, conv.stride, (0, *padding[1:]),
        (1, *conv.dilation[1:]), conv.groups,
    )  # fmt: skip


class _WholeClipIfShort(nn.Module):
    """A pool over time that takes what there is, padding and all, where the clip is shorter than its
    window."""

    def __init__(self, pool):
        super().__init__()
        self.pool = pool

    def forward(self, x):
        kernel, stride, padding = (
            (value,) * 3 if isinstance(value, int) else value
            for value in (self.pool.kernel_size, self.pool.stride, self.pool.padding)
        )
        whole = x.shape[2] + 2 * padding[0]
        if whole >= kernel[0]:
            return self.pool(x)
        short = copy.copy(self.pool)
        short.kernel_size, short.stride = (whole, *kernel[1:]), stride
        return short(x)


def _window(pool):
    return pool.kernel_size if isinstance(pool.kernel_size, int) else pool.kernel_size[0]


def sliced(model, plan, stages, copy_weights=True, shared=()):
    """A copy of the original model with the stages that are off made 2D.

    Its parameters are copies, or the model's own; so are the modules in ``shared``."""
    own = {} if copy_weights else {id(p): p for p in model.parameters()}
    model = copy.deepcopy(model, {**own, **{id(module): module for module in shared}})
    off = {site for stage, on in zip(plan.stages, stages) if not on for site in stage.sites}
    named = list(model.named_modules(remove_duplicate=False))
    made = {}
    for path, module in named:
        if path in off:
            made[module] = _CentreSlice(module)
        elif isinstance(module, (nn.MaxPool3d, nn.AvgPool3d)) and _window(module) > 1:
            made.setdefault(module, _WholeClipIfShort(module))
    for path, module in named:
        if module in made:  # under each of its names
            parent, _, name = path.rpartition(".")
            model.get_submodule(parent)._modules[name] = made[module]
    return model


class _Taken(nn.Module):
    """Of a parameter [1, T * P, C], what belongs to some times."""

    def __init__(self, times, num_times):
        super().__init__()
        self.times, self.num_times = times, num_times

    def forward(self, values):
        return values.unflatten(1, (self.num_times, -1))[:, self.times].flatten(1, 2)


def at_times(model, times, num_frames):
    """A recognizer of MMAction2 that is built for T frames, for clips of these frames of them: with
    another number of frames, and positions taken out, all by the names in its class. It is changed."""
    backbone, kept = getattr(model, "backbone", None), len(times)
    kind = type(backbone).__name__
    if kind == "TimeSformer":
        for module in backbone.modules():
            if hasattr(module, "num_frames"):
                module.num_frames = kept
        if hasattr(backbone, "time_embed"):
            parametrize.register_parametrization(
                backbone, "time_embed", _Taken(times, num_frames), unsafe=True
            )
    elif kind == "UniFormerV2":
        backbone.transformer.T = backbone.transformer.T * kept // num_frames
    elif kind == "VisionTransformer":
        tubelet = backbone.patch_embed.projection.kernel_size[0]
        take = _Taken([time // tubelet for time in times[::tubelet]], num_frames // tubelet)
        if "pos_embed" in backbone._buffers:
            backbone.pos_embed = take(backbone.pos_embed)
        else:
            parametrize.register_parametrization(backbone, "pos_embed", take, unsafe=True)
    return model


@contextlib.contextmanager
def relative_at_times(model, times, num_frames):
    """MMAction2's MViT or Swin while its relative positions in time are those of these frames of T:
    by the differences of their times, and not of their places in the shorter clip."""
    kept = torch.tensor([time // 2 for time in times[::2]])  # both join two frames in each token
    whole = num_frames // 2
    if type(model.backbone).__name__ == "MViT":
        tables = {id(m.rel_pos_t) for m in model.modules() if hasattr(m, "rel_pos_t")}
        own = mvit.resize_decomposed_rel_pos

        def by_times(table, *sizes):
            if id(table) not in tables:
                return own(table, *sizes)
            return table[kept[:, None] - kept + whole - 1]

        mvit.resize_decomposed_rel_pos = by_times
        try:
            yield
        finally:
            mvit.resize_decomposed_rel_pos = own
        return
    changed = [m for m in model.modules() if hasattr(m, "relative_position_index")]
    before = [m.relative_position_index for m in changed]
    for module, index in zip(changed, before):
        of_time = math.prod(module.window_size[1:])
        rows = (kept[:, None] * of_time + torch.arange(of_time)).flatten()
        module.relative_position_index = index[rows][:, rows]
    try:
        yield
    finally:
        for module, index in zip(changed, before):
            module.relative_position_index = index


def original_path(sliced_model, path):
    """Where a parameter of ``sliced``'s result is in the original: a sliced convolution is one level
    deeper, and positions of some times two."""
    path = path.replace("parametrizations.", "").removesuffix(".original")
    owner, _, name = path.rpartition(".")
    outer = owner.rpartition(".")[0]
    inside = isinstance(sliced_model.get_submodule(outer), _CentreSlice)
    return f"{outer}.{name}" if inside else path


def scores(model, plan, clips, policy, run=lambda model, x: model.cls_head(model.backbone(x))):
    """Clip by clip: keep the frames, slice the stages, run the original densely."""
    rows = []
    for clip, frames, stages in zip(clips, policy.frames, policy.stages):
        own = sliced(model, plan, stages.tolist(), copy_weights=False)
        own = at_times(own, frames.nonzero().flatten().tolist(), len(frames))
        rows.append(run(own, clip[None][:, :, frames]))
    return torch.cat(rows)


def scores_with_exits(model, plan, selector, clips, policy, confidence, run):
    """Clip by clip: where the classifier's largest probability exceeds the confidence, its scores are
    the answer, and the recognizer is not asked; else it is asked too, and the scores are added."""
    rows, exited = [], []
    for i, clip in enumerate(clips):
        classes = selector.classify(selector.frame_features(clip[None]))[0].mean(0)
        odds = [math.exp(score - classes.max()) for score in classes.tolist()]
        exited.append(max(odds) / sum(odds) > confidence)
        if not exited[-1]:
            classes = classes + scores(model, plan, clip[None], policy[i], run)[0]
        rows.append(classes)
    return torch.stack(rows), exited


class _Blend(nn.Module):
    """centre + gate * (all taps - centre), written out."""

    def __init__(self, conv, gate):
        super().__init__()
        self.conv, self.centre, self.gate = conv, _CentreSlice(conv), gate

    def forward(self, x):
        centre = self.centre(x)
        return centre + self.gate * (self.conv(x) - centre)


def gate_gradients(model, plan, clips, policy, loss, dropped=False):
    """Gradients [N, T], [N, K] of ``loss(scores)`` with regard to gates of value 1 or 0: clip by
    clip, the kept frames times their gates, stages as blends. A dropped frame's is 0, or with
    ``dropped`` its share of what all frames would change."""
    frames = policy.frames.to(clips).requires_grad_()
    stages = policy.stages.to(clips).requires_grad_()
    rows = []
    for i, clip in enumerate(clips):
        own = sliced(model, plan, [True] * len(plan.stages))  # a copy; pools take short clips
        for k, stage in enumerate(plan.stages):
            for site in stage.sites:
                parent, _, name = site.rpartition(".")
                blend = _Blend(own.get_submodule(site), stages[i, k])
                setattr(own.get_submodule(parent), name, blend)
        kept = policy.frames[i]
        x = (clip * frames[i, None, :, None, None])[:, kept]
        row = own.cls_head(own.backbone(x[None]))
        if dropped and not kept.all():
            whole = sliced(model, plan, policy.stages[i].tolist())
            change = whole.cls_head(whole.backbone(clip[None])) - row
            row = row + frames[i][~kept].mean() * change.detach()
        rows.append(row)
    loss(torch.cat(rows)).backward()
    return frames.grad, stages.grad


def systematic(probs, count):
    """One unit of each equal share of the probabilities, point by point: the unit in which the
    running sum of ``probs`` passes each of ``count`` points, one apart in the middle of it."""
    start = (sum(probs) - count) / 2
    kept = [False] * len(probs)
    for point in range(count):
        total = 0.0
        for i, probability in enumerate(probs):
            total += probability
            if total >= start + point + 0.5:
                kept[i] = True
                break
    return kept


def bootstrap(gaps, classes, draws=10_000):
    """Mean and mean of class means, in percent, with 95 % intervals: draw by draw, video by
    video."""
    generator = torch.Generator().manual_seed(0)

    def means(videos):
        by_class = {}
        for i in videos:
            by_class.setdefault(classes[i], []).append(gaps[i])
        of_classes = [statistics.fmean(values) for values in by_class.values()]
        return statistics.fmean(gaps[i] for i in videos), statistics.fmean(of_classes)

    n = len(gaps)
    drawn = [means(torch.randint(n, (n,), generator=generator).tolist()) for _ in range(draws)]
    results = {}
    for prefix, point, values in zip(("", "class_"), means(range(n)), zip(*drawn), strict=True):
        ordered = sorted(values)
        for name, share in (("low", 0.025), ("high", 0.975)):  # linear between the two nearest
            below = int(share * (draws - 1))
            part = share * (draws - 1) - below
            value = ordered[below] + part * (ordered[below + 1] - ordered[below])
            results[prefix + name] = 100 * value
        results[prefix + "points"] = 100 * point
    return results
