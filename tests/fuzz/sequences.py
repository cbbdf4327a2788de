"""A drawn sequence: a network, what happens to it, and the comparisons after every step."""

import copy
import io
import pickle
from contextlib import nullcontext

import random_blocks as blocks
import random_networks
import reference
import torch
from counting import fvcores
from edits import EDITS
from hypothesis import strategies as st
from torch import nn

import ada3d_fx
from ada3d_fx import Ada3DError, Policy, UnsupportedModel

POLICIES = ("full", "random", "one frame", "no stages", "few", "half full", "alike")
GRADIENTS = ("grad", "no_grad", "inference")
CLIPS = ("plain", "channels_last_3d", "strided", "expanded")


# ----------------------------------------------------------------------------------- what is drawn


@st.composite
def comparisons(draw):
    return dict(
        policy=random_networks.pick(draw, *POLICIES),
        clips=random_networks.pick(draw, 2, 3, 1, 4),
        gradients=random_networks.pick(draw, *GRADIENTS),
        layout=random_networks.pick(draw, *CLIPS),
        larger=draw(st.integers(0, 5)) == 3,
        seed=draw(st.integers(0, 2**16)),
    )


OPERATIONS = (
    *("compare",) * 3,
    *("edit",) * 8,
    *(
        "step",
        "step",
        "train",
        "eval",
        "freeze norms",
        "deepcopy",
        "pickle",
        "save",
        "convert again",
    ),
    *("state_dict", "to plain", "float32", "memory format", "specialize", "price", "zero_grad"),
)


@st.composite
def _operation(draw):
    kind = random_networks.pick(draw, *OPERATIONS)
    if draw(st.integers(0, 199)) == 77:  # it takes seconds
        kind = "compile"
    options = {}
    if kind == "edit":
        options = dict(edit=random_networks.pick(draw, *EDITS), choice=draw(st.integers(0, 99)))
    elif kind in ("compare", "step", "specialize", "price", "float32", "compile"):
        options = draw(comparisons())
    return kind, options


@st.composite
def sequences(draw):
    """A network and what happens to it, as plain data: paste it into `run`."""
    return dict(
        network=draw(random_networks.networks()),
        operations=draw(st.lists(_operation(), min_size=1, max_size=9)),
        last=[draw(comparisons()), draw(comparisons())],
    )


# ------------------------------------------------------------------------------------- what is run


def run(sequence, counts):
    """Run a sequence and compare; what happened is added to ``counts``."""
    counts["sequences"] += 1
    network = sequence["network"]
    torch.manual_seed(network["seed"])
    user = random_networks.build(network)
    before = _Snapshot(user, network)
    try:
        with torch.inference_mode(network["inference"]):
            adaptive = ada3d_fx.convert(user, network["clip"], network["grouping"])
    except UnsupportedModel as refusal:
        counts["refused"] += 1
        check_refusal(user, network, refusal, counts)
        before.check()
        return
    assert not network["data_dependent"], "a model that asks for values was converted"
    state = State(network, user, adaptive, counts)
    for kind, options in sequence["operations"]:
        counts[f"operation: {options.get('edit', kind)}"] += 1
        state.do(kind, options)
        state.compare(dict(policy="random", clips=2, gradients="no_grad", layout="plain",
                           larger=False, seed=len(kind)))  # fmt: skip
    for comparison in sequence["last"]:
        state.compare(comparison)
    if network["seed"] % 2:
        state.price(sequence["last"][0])
    before.check()


class _Snapshot:
    """What the user's model was before; nothing of it may change."""

    def __init__(self, model, network):
        self.model = model
        self.clips = _clips(network["clip"], 2, 5)
        self.values = {k: v.clone() for k, v in model.state_dict().items()}
        self.modules = [
            (path, id(m), type(m), m.training)
            for path, m in model.named_modules(remove_duplicate=False)
        ]
        self.attributes = [self._attributes(m) for m in model.modules()]
        self.parameters = [
            (id(p), p.requires_grad, p.stride(), p.data_ptr(), p._version)
            for p in model.parameters()
        ]
        self.scores = self._scores()

    @staticmethod
    def _attributes(module):
        plain = {k: v for k, v in module.__dict__.items() if not k.startswith("_")}
        hooks = [list(module._forward_hooks.values()), list(module._forward_pre_hooks.values())]
        return plain, hooks, sorted(module.__dict__)

    def _scores(self):
        with torch.no_grad():
            try:
                return copy.deepcopy(self.model).eval()(self.clips.clone())
            except (ValueError, RuntimeError):
                return None

    def check(self):
        model = self.model
        assert self.modules == [
            (path, id(m), type(m), m.training)
            for path, m in model.named_modules(remove_duplicate=False)
        ]
        assert self.parameters == [
            (id(p), p.requires_grad, p.stride(), p.data_ptr(), p._version)
            for p in model.parameters()
        ]
        state = model.state_dict()
        assert list(state) == list(self.values)
        assert all(torch.equal(state[k], v) for k, v in self.values.items())
        for module, was in zip(model.modules(), self.attributes):
            assert self._attributes(module) == was
        scores = self._scores()
        assert (scores is None) == (self.scores is None)
        assert scores is None or torch.equal(scores, self.scores)


def check_refusal(user, network, refusal, counts):
    """A refusal has reasons, and a good one."""
    assert refusal.reasons and all(reason.why for reason in refusal.reasons)
    text = str(refusal)
    if network["data_dependent"]:
        counts["refused: asks for values"] += 1
        return
    model = copy.deepcopy(user).eval()
    clips = _clips(network["clip"], 2, 5)
    if "nothing to decide" in text:
        counts["refused: nothing to decide"] += 1
        frames = network["clip"][1]
        units = [
            u for u in range(1, frames) if frames % u == 0 and _runs_at_multiples(model, clips, u)
        ]
        assert not units or "give scores" in text or "meet here" in text, (units, text)
        return
    with torch.no_grad():
        try:
            model(clips.clone())
        except (RuntimeError, ValueError) as error:
            counts["refused: the model does not run"] += 1
            assert type(error)
            return
    raise AssertionError(f"refused without need: {text}")


def _runs_at_multiples(model, clips, unit):
    frames = clips.shape[2]
    with torch.no_grad():
        for length in range(unit, frames + 1, unit):
            try:
                if len(model(clips[:, :, :length].clone())) != 2:
                    return False
            except (RuntimeError, ValueError, IndexError):
                return False
    return True


def _clips(shape, n, seed, layout="plain", larger=False):
    channels, frames, height, width = shape
    if larger:
        height, width = height + 2, width + 3
    generator = torch.Generator().manual_seed(seed)
    if layout == "expanded":
        one = torch.randn(
            1, channels, frames, height, width, generator=generator, dtype=torch.float64
        )
        return one.expand(n, -1, -1, -1, -1)
    clips = torch.randn(
        n, channels, frames, height, width, generator=generator, dtype=torch.float64
    )
    if layout == "channels_last_3d":
        return clips.contiguous(memory_format=torch.channels_last_3d)
    if layout == "strided":
        return clips.transpose(0, 4).contiguous().transpose(0, 4)
    return clips


def policy_of(plan, kind, n, seed):
    generator = torch.Generator().manual_seed(seed)
    if kind == "full":
        return Policy.full(plan, n)
    if kind == "one frame":
        return Policy.random(plan, n, 0.0, 1.0, generator)
    if kind == "no stages":
        return Policy.random(plan, n, 0.8, 0.0, generator)
    if kind == "few":
        return Policy.random(plan, n, 0.3, 0.3, generator)
    if kind == "alike":
        one = Policy.random(plan, 1, 0.6, 0.5, generator)
        return Policy.cat([one] * n)
    usage = torch.rand(2, n, generator=generator)
    policy = Policy.random(plan, n, *usage, generator)
    if kind == "half full" and n > 1:
        policy = Policy.cat([policy[: n - 1], Policy.full(plan, 1)])
    return policy


class State:
    """An adaptive network, and a plain mirror to which all happens alike."""

    def __init__(self, network, user, adaptive, counts):
        self.network, self.adaptive, self.counts = network, adaptive, counts
        self.mirror = copy.deepcopy(user)
        self.plan = adaptive.plan
        self.exact = True
        assert list(adaptive.state_dict()) == list(self.mirror.state_dict())
        self._without_dropout()

    def wanted(self, clips, policy):
        follows = self.adaptive.conversion.follows_times
        return reference.scores(self.mirror, self.plan, clips, policy, follows)

    def both(self, change):
        change(self.adaptive), change(self.mirror)

    def _without_dropout(self):
        for root in (self.adaptive, self.mirror):
            for module in root.modules():
                if isinstance(module, nn.modules.dropout._DropoutNd):
                    module.p = 0.0

    # ------------------------------------------------------------------------------- operations

    def do(self, kind, options):
        if kind == "compare":
            self.compare(options)
        elif kind == "edit":
            self.both(lambda root: EDITS[options["edit"]](root, options["choice"]))
            self._same_state()
        elif kind == "step":
            self.step(options)
        elif kind in ("train", "eval"):
            self.both(lambda root: root.train(kind == "train"))
        elif kind == "freeze norms":
            self.both(lambda root: [m.eval() for m in reference.norms_in_training(root)])
        elif kind == "deepcopy":
            self.adaptive, self.mirror = copy.deepcopy(self.adaptive), copy.deepcopy(self.mirror)
        elif kind in ("pickle", "save") and self._computed():
            pass  # torch refuses to pickle what is parametrized
        elif kind == "pickle":
            self.adaptive = pickle.loads(pickle.dumps(self.adaptive))
            self.mirror = pickle.loads(pickle.dumps(self.mirror))
        elif kind == "save":
            file = io.BytesIO()
            torch.save(self.adaptive, file)
            file.seek(0)
            self.adaptive = torch.load(file, weights_only=False)
        elif kind == "convert again":
            self.adaptive = ada3d_fx.convert(
                self.adaptive, self.network["clip"], self.network["grouping"]
            )
        elif kind == "state_dict":
            file = io.BytesIO()
            torch.save(self.adaptive.state_dict(), file)
            file.seek(0)
            self.mirror.load_state_dict(torch.load(file, weights_only=True))
        elif kind == "to plain":
            plain = self.adaptive.plain()
            assert list(plain.state_dict()) == list(self.mirror.state_dict())
            assert [type(m) for m in plain.modules()][1:] == [
                type(m) for m in self.mirror.modules()
            ][1:]
            x = _clips(self.network["clip"], 2, 7)
            self._same_outcome(
                lambda: copy.deepcopy(plain)(x.clone()),
                lambda: copy.deepcopy(self.mirror)(x.clone()),
            )
        elif kind == "float32":
            self.float32(options)
        elif kind == "memory format":
            flat = any(t.ndim == 4 for t in (*self.mirror.parameters(), *self.mirror.buffers()))
            wanted = torch.contiguous_format if flat else torch.channels_last_3d
            self.both(lambda root: root.to(memory_format=wanted))
        elif kind == "specialize":
            self.specialize(options)
        elif kind == "price":
            self.price(options)
        elif kind == "zero_grad":
            self.both(lambda root: root.zero_grad())
        elif kind == "compile":
            self.compile(options)

    def step(self, options):
        """A training step; the mirror's gradients are the oracle's."""
        options = {**options, "gradients": "grad"}
        if not self.compare(options, keep=True):
            return
        for root in (self.adaptive, self.mirror):
            chosen = torch.optim.Adam if options["seed"] % 2 else torch.optim.SGD
            parameters = [p for p in root.parameters() if p.requires_grad]
            if parameters:
                optimizer = chosen(parameters, lr=1e-3)
                optimizer.step()
                optimizer.zero_grad()
        if options["seed"] % 2 == 0:
            self._same_state(1e-7)
        with torch.no_grad():  # Adam divides by gradients that may be of rounding alone
            theirs = dict(self.adaptive.named_parameters())
            for path, parameter in self.mirror.named_parameters():
                parameter.data.copy_(theirs[path].data)

    def float32(self, options):
        self.both(lambda root: root.float())
        x = _clips(self.network["clip"], options["clips"], options["seed"]).float()
        policy = policy_of(self.plan, options["policy"], len(x), options["seed"])
        if not reference.norms_in_training(self.mirror):
            with torch.no_grad():
                try:
                    got = self.adaptive(x, policy)
                    assert got.dtype == torch.float32
                except (RuntimeError, ValueError) as error:
                    self._must_fail(error, lambda: self.wanted(x, policy))
        self.both(lambda root: root.double())

    def specialize(self, options):
        if reference.norms_in_training(self.mirror):
            return
        policy = policy_of(self.plan, options["policy"], options["clips"], options["seed"])
        x = _clips(self.network["clip"], len(policy), options["seed"], options["layout"])
        shared = bool(options["seed"] % 2)
        for i, (frames, stages) in enumerate(zip(policy.frames, policy.stages)):
            times = frames.nonzero().flatten().tolist()
            static = ada3d_fx.specialize(
                self.adaptive, len(times), stages.tolist(), not shared, frames=times
            )
            clip = x[i : i + 1, :, frames]
            with torch.no_grad():
                self._same_outcome(
                    lambda static=static, clip=clip: static(clip),
                    lambda i=i: self.wanted(x[i : i + 1], policy[i]),
                )
            self.counts["specialized"] += 1

    def price(self, options):
        policy = policy_of(self.plan, options["policy"], options["clips"], options["seed"])
        channels, _, *size = self.network["clip"]
        try:
            prices = ada3d_fx.price(self.adaptive, policy).tolist()
        except ValueError as error:  # of a BatchNorm without statistics, for one clip of one pixel
            assert "more than 1 value per channel" in str(error), error
            self.counts["neither runs"] += 1
            return
        for value, length, stages in zip(
            prices, policy.num_frames.tolist(), policy.stages.tolist()
        ):
            static = ada3d_fx.specialize(self.adaptive, length, stages)
            clip = torch.zeros(1, channels, length, *size, dtype=torch.float64)
            try:
                counted = fvcores(static, (clip,))[0][""]
            except (ValueError, RuntimeError):
                continue
            assert value == counted, f"price {value}, fvcore {counted}: {length} frames, {stages}"
            self.counts["prices"] += 1

    def compile(self, options):
        torch._dynamo.reset()
        compiled = torch.compile(self.adaptive, backend="eager")
        for seed in (options["seed"], options["seed"] + 1):
            policy = policy_of(self.plan, options["policy"], options["clips"], seed)
            x = _clips(self.network["clip"], len(policy), seed)
            if not reference.norms_in_training(self.mirror):
                with torch.no_grad():
                    self._close(compiled(x, policy), self.adaptive(x, policy), "compiled")
        torch._dynamo.reset()

    # ------------------------------------------------------------------------------ comparisons

    def compare(self, options, keep=False):
        """The packed program against the oracle; returns whether both ran.

        ``keep`` leaves the gradients.
        """
        policy = policy_of(self.plan, options["policy"], options["clips"], options["seed"])
        norms = reference.norms_in_training(self.mirror)
        if norms and (self.plan.dense or self._checkpoints()):
            policy = Policy.full(self.plan, len(policy))  # else statistics are those of each run
        x = _clips(
            self.network["clip"], len(policy), options["seed"], options["layout"], options["larger"]
        )
        with_gradients = options["gradients"] == "grad"
        self.both(lambda root: root.zero_grad())
        if with_gradients and options["layout"] != "expanded":
            x.requires_grad_(True)
        modes = {
            "grad": torch.enable_grad,
            "no_grad": torch.no_grad,
            "inference": torch.inference_mode,
        }
        results = []
        full = bool(policy.frames.all() and policy.stages.all())
        for network in (self.adaptive, self.mirror):
            as_it_is = network is self.adaptive and not self.plan.dense
            right = nullcontext() if as_it_is else reference.right_gradients()
            with modes[options["gradients"]](), right:
                try:
                    if network is self.adaptive:
                        out = network(x, policy)
                    elif full and any(m.training for m in self.mirror.modules()):
                        out = network(x)
                    else:
                        out = self.wanted(x, policy)
                    if with_gradients and out.requires_grad:
                        weights = _clips((out.shape[1], 1, 1, 1), len(out), 3).flatten(1)
                        (out * weights).sum().backward()
                except Exception as error:  # noqa: BLE001
                    out = error
            results.append((out, x.grad))
            x.grad = None
        (got, got_input), (wanted, wanted_input) = results
        if isinstance(wanted, Exception):
            self.counts["neither runs" if isinstance(got, Exception) else "only packed runs"] += 1
            self._follow()
            return False
        if isinstance(got, Ada3DError) and self.adaptive.conversion.follows_times:
            assert options["larger"] and "sizes in this model's code" in str(got), got
            self.counts["refused: larger clips"] += 1
            self._follow()
            return False
        if isinstance(got, Exception):
            raise AssertionError(f"only the original runs: {type(got).__name__}: {got}") from got
        self.counts["compared clips"] += len(x)
        self.counts[
            f"compared: {'training' if self.mirror.training else 'evaluation'}, {options['gradients']}"
        ] += 1
        self._close(got, wanted, "scores")
        if with_gradients:
            self.counts["compared gradients"] += 1
            self._same_gradients(got_input, wanted_input)
        self._same_buffers(full)
        if not with_gradients and not any(m.training for m in self.mirror.modules()):
            self._compare_shared(x.detach(), policy, options["seed"], modes[options["gradients"]])
        if not keep:
            self.both(lambda root: root.zero_grad())
        return True

    def _compare_shared(self, x, policy, seed, mode):
        """Two policies of each clip against clips that are repeated."""
        n = len(policy)
        policies = Policy.cat([policy, Policy.random(
            self.plan, n, 0.6, 0.5, generator=torch.Generator().manual_seed(seed)
        )])  # fmt: skip
        index = torch.arange(2 * n) % n
        with mode():
            try:
                wanted = self.adaptive(x[index], policies)
            except Exception:  # noqa: BLE001, a length that the model has not
                return
            self._close(self.adaptive(x, policies, index), wanted, "scores of shared clips")
        self.counts["compared: policies that share clips"] += 2 * n

    def _computed(self):
        return any(nn.utils.parametrize.is_parametrized(m) for m in self.mirror.modules())

    def _checkpoints(self):
        return any(isinstance(m, blocks.Checkpointed) for m in self.mirror.modules())

    def _same_gradients(self, got_input, wanted_input):
        theirs = dict(self.mirror.named_parameters())
        for path, parameter in self.adaptive.named_parameters():
            wanted = theirs[path].grad
            got = parameter.grad
            assert parameter.requires_grad == theirs[path].requires_grad, path
            zero = torch.zeros_like(parameter)
            self._close(
                zero if got is None else got, zero if wanted is None else wanted, path, 1e-7
            )
        if wanted_input is not None:
            self._close(got_input, wanted_input, "the clips' gradient", 1e-7)

    def _same_buffers(self, full):
        theirs = dict(self.mirror.named_buffers())
        kinds = nn.Module if full else reference.BATCH_NORMS
        for path, buffer in self.adaptive.named_buffers():
            if isinstance(self.mirror.get_submodule(path.rpartition(".")[0]), kinds):
                self._close(buffer, theirs[path], path)
        self._follow()

    def _follow(self):
        """Give the mirror the statistics of the network, which may differ in their last bits."""
        theirs = dict(self.adaptive.named_buffers())
        with torch.no_grad():
            for path, buffer in self.mirror.named_buffers():
                buffer.data.copy_(theirs[path].data)

    def _same_state(self, tolerance=1e-9):
        got, wanted = self.adaptive.state_dict(), self.mirror.state_dict()
        assert list(got) == list(wanted), set(got) ^ set(wanted)
        for path, value in wanted.items():
            self._close(got[path], value, path, tolerance)

    def _same_outcome(self, got, wanted):
        """Both give the same, or both fail."""
        try:
            expected = wanted()
        except (RuntimeError, ValueError, IndexError):
            self.counts["neither runs"] += 1
            return
        self._close(got(), expected, "scores")

    def _must_fail(self, error, wanted):
        try:
            wanted()
        except (RuntimeError, ValueError, IndexError):
            return
        raise AssertionError(f"only the original runs: {error}") from error

    @staticmethod
    def _close(got, wanted, what, tolerance=1e-9):
        assert got.shape == wanted.shape, (
            f"{what}: {list(got.shape)}, expected {list(wanted.shape)}"
        )
        got, wanted = got.detach().double(), wanted.detach().double()
        finite = wanted.isfinite()
        assert torch.equal(finite, got.isfinite()), f"{what}: not finite elsewhere"
        scale = wanted[finite].abs().max() if finite.any() else torch.zeros(())
        worst = (got - wanted)[finite].abs().max() if finite.any() else torch.zeros(())
        assert worst <= tolerance * (1 + scale), f"{what}: {worst:.3g} off, of {scale:.3g}"
