"""Networks that are built for T frames take clips of fewer: sizes and positions follow the kept frames."""

import copy
import pickle

import oracle
import pytest
import torch
from families import FAMILIES, config_of, dense, family, shared_family
from mmaction.models import I3DHead
from mmaction.registry import MODELS
from models import clips, randomise
from torch import nn

import ada3d_fx
from ada3d_fx import Ada3DError, Policy, UnsupportedModel
from ada3d_fx.elastic.labels import reshaped
from ada3d_fx.packed.time_forms import time_form

SHAPE = (3, 6, 8, 8)
T, P, C = 6, 4, 12  # frames, patches of a frame, channels


class Tokens(nn.Module):
    """A transformer that nobody ships: one option per way to see time by positions.

    ``kept`` are the times of its clips' frames; all of T unless a test sets it. What it computes then
    is the oracle: positions are taken out by hand."""

    def __init__(self, positions):
        super().__init__()
        self.positions, self.kept = positions, list(range(T))
        self.patches = nn.Conv3d(3, C, (1, 4, 4), (1, 4, 4))
        self.token = nn.Parameter(torch.zeros(1, 1, C))
        self.of_times = nn.Parameter(torch.zeros(T, C))
        self.of_tokens = nn.Parameter(torch.zeros(1 + T * P, 1, C))
        self.bias = nn.Parameter(torch.zeros(2, 2 * T - 1))
        self.register_buffer("distance", torch.arange(T)[:, None] - torch.arange(T) + T - 1)
        self.norm = nn.LayerNorm(C)
        self.qkv = nn.Linear(C, 3 * C)
        self.wider = nn.Linear(C + 2, C)
        self.attention = nn.MultiheadAttention(C, 2, batch_first=True)
        self.fc = nn.Linear(C, 5)

    def forward(self, x):
        n, t = len(x), len(self.kept)
        x = self.patches(x).flatten(3).permute(0, 2, 3, 1)  # [n, t, P, C]
        kept = self.of_times[self.kept] if t < T else self.of_times
        x = getattr(self, self.positions)(x, n, t, kept)
        return self.fc(self.norm(x).flatten(1, -2).mean(1))

    def added(self, x, n, t, kept):
        return x + kept[:, None]

    def multiplied(self, x, n, t, kept):
        return (x.transpose(1, 2).reshape(n * P, t, C) * kept.sigmoid()).view(n, P, t, C)

    def concatenated(self, x, n, t, kept):
        kept = kept[None, :, None, :2].expand(n, -1, P, -1)
        return self.wider(torch.cat([x, kept], -1))

    def made_in_code(self, x, n, t, kept):
        times = torch.tensor(self.kept) if t < T else torch.arange(T)
        return x + torch.sin(times[:, None] * torch.linspace(0.1, 1, C, dtype=x.dtype))[:, None]

    def clips_second(self, x, n, t, kept):
        """Tokens first, with a class token before all of them."""
        x = x.reshape(n, t * P, C).transpose(0, 1)
        x = torch.cat([self.token.expand(-1, n, -1), x])
        table = self.of_tokens
        if t < T:
            rows = [0] + [1 + time * P + p for time in self.kept for p in range(P)]
            table = table[rows]
        x = (x + table).transpose(0, 1)
        return x + self.attention(x, x, x)[0]

    def per_pair(self, x, n, t, kept):
        """A bias for each pair of times, from their difference, along both axes of the map."""
        x = x.transpose(1, 2)  # [n, P, t, C]
        q, k, v = self.qkv(self.norm(x)).view(n, P, t, 3, 2, C // 2).permute(3, 0, 1, 4, 2, 5)
        distance = self.distance
        if t < T:
            distance = distance[self.kept][:, self.kept]
        scores = q @ k.transpose(-2, -1) + self.bias[:, distance]
        return x + (scores.softmax(-1) @ v).transpose(2, 3).reshape(n, P, t, C)

    def by_torchs_attention(self, x, n, t, kept):
        x = (x + kept[:, None]).reshape(n, t * P, C)
        q, k, v = self.qkv(self.norm(x)).view(n, t * P, 3, 2, C // 2).permute(2, 0, 3, 1, 4)
        x = x + nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return x[:, None]

    def token_of_each_frame(self, x, n, t, kept):
        """A class token in front of the patches of each frame, and one of the clip made of them."""
        x = x.reshape(n * t, P, C)
        tokens = self.token.repeat(n * t, 1, 1)
        x = torch.cat([tokens, x], 1)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        own = x[:, 0].view(n, t, C) + kept
        return torch.cat([own.mean(1, keepdim=True), x[:, 1:].reshape(n, t * P, C)], 1)[:, None]

    def number_of_frames_in_code(self, x, n, t, kept):
        x = x.reshape(n, t * P, C)
        return x.view(n, t, P, C) + self.token.repeat(1, t, 1)[:, :, None]


WAYS = [
    "added", "multiplied", "concatenated", "made_in_code", "clips_second", "per_pair", "by_torchs_attention",
    "token_of_each_frame", "number_of_frames_in_code",
]  # fmt: skip


def network(positions):
    torch.manual_seed(0)
    model = randomise(Tokens(positions))
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.5)
    return model


def by_hand(model, x, policy):
    rows = []
    for clip, frames in zip(x, policy.frames):
        model.kept = frames.nonzero().flatten().tolist()
        rows.append(model(clip[None, :, frames]))
    model.kept = list(range(T))
    return torch.cat(rows)


def every_length(plan):
    torch.manual_seed(1)
    lengths = range(plan.frame_unit, plan.num_frames + 1, plan.frame_unit)
    shares = torch.tensor([length / plan.num_frames for length in lengths] * 2)
    return Policy.random(plan, len(shares), shares, 0.5)


@pytest.mark.parametrize("positions", WAYS)
def test_a_kept_frame_has_the_position_of_its_time(positions):
    model = network(positions)
    adaptive = ada3d_fx.convert(model, SHAPE)
    assert adaptive.plan.frame_unit == 1
    policy = every_length(adaptive.plan)
    x = clips(len(policy), SHAPE)
    wanted = by_hand(model, x, policy)
    assert (wanted - model(x)).abs().max() > 1e-3  # it matters which frames are kept
    torch.testing.assert_close(adaptive(x), model(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(adaptive(x, policy), wanted, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(adaptive(x, policy), wanted, rtol=1e-9, atol=1e-9)
    # several policies of a clip, and gradients of positions
    index = torch.arange(len(policy)) // 2
    shared = by_hand(model, x[index], policy)
    torch.testing.assert_close(adaptive(x, policy, index), shared, rtol=1e-9, atol=1e-9)
    adaptive.zero_grad()
    adaptive(x, policy).square().sum().backward()
    wanted.square().sum().backward()
    for path, parameter in model.named_parameters():
        own = adaptive.get_parameter(path).grad
        if parameter.grad is not None:
            torch.testing.assert_close(own, parameter.grad, rtol=1e-7, atol=1e-9)


def test_clips_of_another_size_are_refused():
    """The sizes in the model's code are numbers of the clips that it was converted for."""
    adaptive, larger = ada3d_fx.convert(network("added"), SHAPE), clips(2, (3, 6, 16, 16))
    static = ada3d_fx.specialize(adaptive, 2, [], frames=[1, 4])
    for call in (lambda: adaptive(larger), lambda: static(larger[:, :, :2])):
        with pytest.raises(Ada3DError, match="expected 8 x 8 pixels"):
            call()


@pytest.mark.parametrize(
    ("name", "path", "options"),
    [
        ("timesformer", "backbone.time_embed", {}),
        ("videomae_learned", "backbone.pos_embed", {}),
        ("mvit", "backbone.blocks.0.attn.rel_pos_t", dict(positions="kept")),
    ],
)
def test_positions_that_change_after_conversion_are_seen(name, path, options):
    """Weights loaded, trained, replaced, moved to another type; copies and pickles."""
    model = family(name)
    shape = FAMILIES[name][2]
    adaptive = ada3d_fx.convert(model, shape, **options)
    policy, x = every_length(adaptive.plan), clips(1, shape)
    x = x.expand(len(policy), -1, -1, -1, -1)
    owner, _, where = path.rpartition(".")
    owner = adaptive.get_submodule(owner)

    def same(made):
        with torch.no_grad():
            fresh = ada3d_fx.convert(adaptive.plain(), shape, **options)
            torch.testing.assert_close(made(x, policy), fresh(x, policy), rtol=1e-9, atol=1e-9)

    before = adaptive(x, policy).detach()
    with torch.no_grad():
        values = getattr(owner, where)
        values.add_(1 + torch.arange(values.shape[-1]))
    same(adaptive)
    assert (adaptive(x, policy) - before).abs().max() > 1e-6
    adaptive.load_state_dict(family(name, seed=1).state_dict(), strict=False)
    same(adaptive)
    setattr(owner, where, nn.Parameter(getattr(owner, where) * 2))
    same(adaptive)
    same(copy.deepcopy(adaptive))
    same(pickle.loads(pickle.dumps(adaptive)))
    single = copy.deepcopy(adaptive).float()
    torch.testing.assert_close(
        single(x.float(), policy).double(), adaptive(x, policy), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ["timesformer", "videomae"])
def test_a_specialised_network_is_told_its_times(name):
    adaptive = shared_family(name)[1]
    shape = FAMILIES[name][2]
    x, unit = clips(2, shape), adaptive.plan.frame_unit
    frames = [*range(unit), *range(shape[1] - unit, shape[1])]
    policy = Policy.full(adaptive.plan, 2)
    policy.frames[:] = False
    policy.frames[:, frames] = True
    static = ada3d_fx.specialize(adaptive, 2 * unit, [], frames=frames)
    torch.testing.assert_close(static(x[:, :, frames]), adaptive(x, policy), rtol=1e-9, atol=1e-9)
    evenly = ada3d_fx.specialize(adaptive, 2 * unit, [])(x[:, :, frames])
    assert (evenly - static(x[:, :, frames])).abs().max() > 1e-9
    wrong_ones = [frames[:-1], frames[::-1], [*frames[:-1], shape[1]]]
    for wrong in [*wrong_ones, *([[1, *frames[1:]]] if unit > 1 else [])]:
        with pytest.raises(Ada3DError, match="rising numbers"):
            ada3d_fx.specialize(adaptive, 2 * unit, [], frames=wrong)


class Stretched(nn.Module):
    """Positions for T frames, which the model's own rule stretches over fewer."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv3d(3, C, (1, 4, 4), (1, 4, 4))
        self.times = nn.Parameter(torch.randn(1, C, T))
        self.fc = nn.Linear(C, 5)

    def forward(self, x, kept=None):
        x = self.patches(x).mean((-1, -2))
        times = self.times
        if kept is not None:
            times = times[:, :, kept]
        elif x.shape[2] != T:
            times = nn.functional.interpolate(times, size=x.shape[2], mode="linear")
        return self.fc((x + times).relu().mean(2))


class Inside(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Stretched()

    def forward(self, x, kept=None):
        return self.inner(x) if kept is None else self.inner(x, kept)


def test_the_models_own_rule_for_positions_stays_unless_asked_otherwise():
    torch.manual_seed(0)
    with pytest.raises(UnsupportedModel, match="cannot be traced"):  # its rule is in code
        ada3d_fx.convert(Stretched(), SHAPE)
    model = Inside().double().eval()
    own = ada3d_fx.convert(model, SHAPE)
    kept = ada3d_fx.convert(model, SHAPE, positions="kept")
    policy, x = every_length(own.plan), clips(12, SHAPE)
    for adaptive in (own, kept, copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        for clip, frames, scores in zip(x, policy.frames, adaptive(x, policy)):
            times = None if adaptive is own else frames.nonzero().flatten()
            wanted = model(clip[None, :, frames], times)[0]
            torch.testing.assert_close(scores, wanted, rtol=1e-9, atol=1e-9)
    assert (own(x, policy) - kept(x, policy)).abs().max() > 1e-3
    with pytest.raises(Ada3DError, match="'own', 'kept'"):
        ada3d_fx.convert(model, SHAPE, positions="learned")
    with pytest.raises(UnsupportedModel, match="rolls along the frames"):  # two windows in time
        ada3d_fx.convert(family("swin"), FAMILIES["swin"][2], positions="kept")


class OfPatches(I3DHead):
    """For backbones that give their values in a tuple."""

    def forward(self, x):
        return super().forward(x[0])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mvit", {}),
        ("mvit", dict(with_cls_token=False, output_cls_token=False)),
        ("swin", dict(window_size=(4, 3, 3))),  # windows of all frames
    ],
)
def test_relative_positions_are_those_of_the_kept_times(name, options):
    """In models with a rule of their own for shorter clips, where that is asked."""
    model, shape = family(name, **options), FAMILIES[name][2]
    if "output_cls_token" in options:
        model.cls_head = randomise(OfPatches(num_classes=5, in_channels=16))
    for module in model.modules():
        for table in ("rel_pos_t", "relative_position_bias_table"):
            if hasattr(module, table):
                nn.init.normal_(getattr(module, table))
    own = ada3d_fx.convert(model, shape)
    kept = ada3d_fx.convert(model, shape, positions="kept")
    assert kept.plan.frame_unit == 2
    assert [stage.sites for stage in kept.plan.stages] == [s.sites for s in own.plan.stages]
    policy = every_length(kept.plan)
    x = clips(len(policy), shape)

    def wanted(x, policy):
        rows = []
        for clip, frames, stages in zip(x, policy.frames, policy.stages):
            part = oracle.sliced(model, kept.plan, stages.tolist(), copy_weights=False)
            times = frames.nonzero().flatten().tolist()
            with oracle.relative_at_times(part, times, shape[1]):
                rows.append(dense(part, clip[None][:, :, frames]))
        return torch.cat(rows)

    scores = wanted(x, policy)
    torch.testing.assert_close(kept(x, policy), scores, rtol=1e-9, atol=1e-9)
    assert (own(x, policy) - scores).abs().max() > 1e-4
    with torch.no_grad():
        torch.testing.assert_close(kept(x, policy), scores, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(kept(x), model.cls_head(model.backbone(x)), rtol=1e-9, atol=1e-9)
        with time_form("gathered"):  # as on a GPU
            torch.testing.assert_close(kept(x, policy), scores, rtol=1e-9, atol=1e-9)
    frames = [0, 1, 6, 7]
    static = ada3d_fx.specialize(kept, 4, policy.stages[0].tolist(), frames=frames)
    at = torch.tensor([[frame in frames for frame in range(8)]] * 2)
    one = Policy(at, policy.stages[:1].expand(2, -1))
    torch.testing.assert_close(static(x[:2, :, frames]), wanted(x[:2], one), rtol=1e-9, atol=1e-9)
    prices = [ada3d_fx.price(net, policy) for net in (own, kept)]
    torch.testing.assert_close(prices[1], prices[0], rtol=0, atol=len(policy.frames))
    kept(x, policy).square().sum().backward()
    scores.square().sum().backward()
    for path, parameter in model.named_parameters():
        mine = kept.get_parameter(path).grad
        assert (mine is None) == (parameter.grad is None), path
        if mine is not None:
            torch.testing.assert_close(mine, parameter.grad, rtol=1e-7, atol=1e-9)
    kept.train()(x, policy).sum().backward()


class Reads(nn.Module):
    """Code that needs all frames, or computes with their number."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.patches = nn.Conv3d(3, C, (1, 4, 4), (1, 4, 4))
        self.times = nn.Parameter(torch.zeros(1, C, T, 1, 1))
        self.over_time = nn.Linear(T, T)
        self.fc = nn.Linear(C, 5)

    def forward(self, x):
        x = self.patches(x) + self.times
        return self.fc(getattr(self, self.how)(x).mean((-1, -2)))

    def first_frame(self, x):
        return x[:, :, 0]

    def mixed_by_a_linear_layer(self, x):
        return self.over_time(x.transpose(2, -1)).mean(-1)

    def divided_by_their_number(self, x):
        return x.sum(2) / x.shape[2]

    def every_other(self, x):
        return x[:, :, ::2].mean(2)

    def rolled(self, x):
        return x.roll(1, 2).amax(2)

    def padded(self, x):
        return nn.functional.pad(x, (0, 0, 0, 0, 1, 0)).mean(2)

    def padded_by_their_number(self, x):
        return nn.functional.pad(x, (0, x.shape[2])).mean(2)

    def summed_without_names(self, x):
        return torch.einsum("nct...->nc...", x)

    def summed_over_clips(self, x):
        return torch.einsum("ncthw,mcthw->nchw", x, x)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("first_frame", "some of the frames only"),
        ("rolled", "rolls along the frames"),
        ("padded", "pads the frames"),
        ("padded_by_their_number", "computes with the number of frames"),
        ("summed_without_names", "does not name all axes"),
        ("summed_over_clips", "sums over the clips"),
        ("mixed_by_a_linear_layer", "mixes entries of several frames"),
        ("divided_by_their_number", "computes with the number of frames"),
        ("every_other", "some of the frames only"),
    ],
)
def test_what_cannot_follow_the_frames_is_refused_with_the_reason(how, words):
    with pytest.raises(UnsupportedModel) as error:
        ada3d_fx.convert(Reads(how).double(), SHAPE)
    assert words in str(error.value)


def test_features_of_one_given_token_are_refused():
    """VideoMAE without pooling takes the first token, which is one of the first frames'."""
    config = config_of("videomae", use_mean_pooling=False)
    with pytest.raises(UnsupportedModel, match="some of the frames only"):
        ada3d_fx.convert(MODELS.build(config), FAMILIES["videomae"][2])


class Takes(nn.Module):
    """Code that takes tokens by a list, or some of the clips."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.patches = nn.Conv3d(3, C, (1, 4, 4), (1, 4, 4))
        self.times = nn.Parameter(torch.zeros(1, T, C))
        self.weights = nn.Linear(C, T)
        self.fc = nn.Linear(C, 5)

    def forward(self, x):
        x = self.patches(x).mean((-1, -2)).transpose(1, 2) + self.times
        return self.fc(getattr(self, self.how)(x).mean(1))

    def by_a_list(self, x):
        return x[:, torch.tensor([0, 2, 4])]

    def half_of_the_clips(self, x):
        first, second = x.chunk(2)
        return x + first[:1] + second[:1]

    def weights_of_the_clip(self, x):
        """As many weights as frames, which are not theirs."""
        return x * self.weights(x.mean(1)).softmax(-1)[..., None]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("by_a_list", "by a list or a mask"),
        ("half_of_the_clips", "takes some of them"),
        ("weights_of_the_clip", "as many entries as there are frames, but not theirs"),
    ],
)
def test_entries_that_are_taken_by_their_place_are_refused(how, words):
    with pytest.raises(UnsupportedModel) as error:
        ada3d_fx.convert(Takes(how).double(), SHAPE)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((2, 3, 4, 5), (6, 4, 5)),
        ((2, 3, 4, 5), (2, 12, 5)),
        ((2, 12, 5), (2, 3, 4, 5)),
        ((2, 1, 6), (2, 6)),
        ((2, 6), (1, 2, 6, 1)),
        ((4, 6), (8, 3)),
        ((2, 3, 4), (24,)),
        ((1, 1, 6), (6, 1)),
    ],
)
def test_labels_are_reshaped_as_values_are(before, after):
    """Whatever axes they vary along."""
    generator = torch.Generator().manual_seed(0)
    for varies in range(2 ** len(before)):
        shape = [n if varies >> axis & 1 else 1 for axis, n in enumerate(before)]
        label = torch.randint(3, shape, generator=generator)
        made = reshaped(label, before, after)
        assert torch.equal(made.expand(after), label.expand(before).reshape(after))
