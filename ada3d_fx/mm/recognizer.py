"""Ada3DRecognizer: any MMAction2 3D recognizer with a selection network, for MMEngine's Runner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmaction.registry import MODELS
from mmengine.model import BaseModel
from torch import Tensor
from torch.nn import functional as F

from ..convert import AdaptiveNetwork, convert
from ..errors import Ada3DError
from ..flops import price
from ..ops import PackedConv3d
from ..policy import GREEDY, Policy, PolicyDistribution
from ..reinforce import (
    Baseline,
    CostWeight,
    Objective,
    correctness,
    costs,
    policy_loss,
    reward,
    straight_through_loss,
)
from ..selection import selector_price
from .build import (
    build_recognizer,
    build_selector,
    initial_weights,
    load_selector,
    recognizer_config,
)

LEARNED = ("selection", "joint", "transfer")  # what a selector is needed for
RANDOM_PARTS = ("none", "frames", "stages")
TEST_POLICIES = ("learned", "full", "random")
TRAINING_STAGES = ("warmup", "selection", "joint", "transfer", "random")


@MODELS.register_module()
class Ada3DRecognizer(BaseModel):
    """Ada3D around a plain recognizer (sec. 3.2).

    Inputs are MMAction2's [B, views, C, T, H, W]; the views of a video fold into the batch, and
    each gets its own policy. ``training_stage`` says what a training step does; TrainingStageHook
    sets it:

    - ``'warmup'``: the recognizer learns under random policies of any size, a share ``warmup_full``
      of each batch full; the selector learns as a classifier (if it has one).
    - ``'selection'``: stage 1 of Algorithm 1; the recognizer is frozen.
    - ``'joint'``: stage 2, eq. 8.
    - ``'transfer'``: the recognizer learns under policies drawn from the selector, which is frozen
      (table 3).
    - ``'random'``: the recognizer learns under random policies of ``random_policy``'s usage (the
      paper's Random FT).

    Args:
        recognizer: the `model` of a plain 3D recognizer's config, or the path of that config.
        selector: options of SelectionNetwork, see `build_selector`. None: no selector, for the
            policies 'full' and 'random' only.
        objective: options of `Objective`.
        recognizer_checkpoint: the trained plain recognizer to start from.
        selector_checkpoint: an Ada3D checkpoint whose selection network to start from; see
            `load_selector`.
        clip_shape: (C, T, H, W) for which the plan and prices are made.
        convert_options: further options of `convert`.
        random_policy: ``frames`` and ``stages``, the fractions of 'random'.
        random_part: ``'frames'`` or ``'stages'``: that policy is random, of ``random_policy``'s usage,
            in training and in test; only the other is learned (table 6).
        distill: weight of a loss by which the recognizer, under whatever policies, learns the scores
            of the plain recognizer of ``recognizer_checkpoint`` (Hinton et al., 2015); needs that.
        distill_temperature: by which both scores are divided first.
        test_policy: ``'learned'`` (the greedy policy), ``'full'`` or ``'random'``.
        test_threshold: what the greedy policy's probabilities must exceed.
        greedy: how the greedy policy keeps frames, see `PolicyDistribution.mode`.
        selector_norm_eval: keep the selector's BatchNorm as it is in the policy stages, so that
            test time sees the very policies that were trained.

    Raises:
        Ada3DError: a config that is no 3D recognizer's, a missing file, an unknown option.
    """

    def __init__(
        self,
        recognizer: Mapping | str,
        selector: Mapping | None = None,
        objective: Mapping | None = None,
        recognizer_checkpoint: str | None = None,
        selector_checkpoint: str | None = None,
        clip_shape: Sequence[int] = (3, 8, 224, 224),
        convert_options: Mapping | None = None,
        training_stage: str | None = None,
        warmup_full: float = 1 / 3,
        distill: float = 0.0,
        distill_temperature: float = 2.0,
        random_policy: Mapping | None = None,
        random_part: str | None = None,
        test_policy: str = "learned",
        test_threshold: float = 0.5,
        greedy: str = "threshold",
        selector_norm_eval: bool = True,
        data_preprocessor: Mapping | None = None,
        init_cfg: Mapping | None = None,
    ):
        config = recognizer_config(recognizer)
        preprocessor = data_preprocessor or config.get("data_preprocessor")
        preprocessor = preprocessor or {"type": "ActionDataPreprocessor", "format_shape": "NCTHW"}
        super().__init__(data_preprocessor=dict(preprocessor), init_cfg=init_cfg)
        if recognizer_checkpoint is not None and not Path(recognizer_checkpoint).is_file():
            raise Ada3DError(
                f"recognizer_checkpoint: no file at {recognizer_checkpoint}; "
                "train the plain recognizer first (stage 0), or correct the path"
            )
        plain = build_recognizer(config)
        self._start = (config, recognizer_checkpoint)
        self._head = (plain.cls_head,)  # its losses and averaging only; in a tuple: no parameters
        self.recognizer = convert(
            plain, clip_shape=tuple(clip_shape), **dict(convert_options or {})
        )
        self.clip_shape = tuple(clip_shape)
        self.max_testing_views = (config.get("test_cfg") or {}).get("max_testing_views")
        self.objective = Objective(**dict(objective or {}))
        if self.objective.estimator == "straight_through":
            _check_gates(self.recognizer)
        self.frame_baseline = Baseline(self.objective)
        self.stage_baseline = Baseline(self.objective)
        self.cost_weight = CostWeight(self.objective)
        self.selector, self.selector_macs = None, 0
        if selector is not None:
            self.selector = build_selector(
                selector, self.plan, preprocessor, plain.cls_head.num_classes
            )
            self.selector_macs = selector_price(self.selector, self.clip_shape)
        if selector_checkpoint is not None:
            if self.selector is None:
                raise Ada3DError("selector_checkpoint needs selector=")
            load_selector(self.selector, selector_checkpoint)
        self.warmup_full = warmup_full
        self.distill, self.distill_temperature = distill, distill_temperature
        if distill < 0 or distill_temperature <= 0:
            raise Ada3DError(
                f"distill={distill}, distill_temperature={distill_temperature}: a weight is not "
                "negative, a temperature is positive"
            )
        self._teacher: tuple = ()  # made when needed; in a tuple: neither parameters nor weights
        self.random_policy = {"frames": 0.7, "stages": 0.4, **dict(random_policy or {})}
        self.random_part = _one_of("random_part", random_part or "none", RANDOM_PARTS)
        self.test_policy = _one_of("test_policy", test_policy, TEST_POLICIES)
        self.test_threshold = test_threshold
        self.greedy, self.selector_norm_eval = _one_of("greedy", greedy, GREEDY), selector_norm_eval
        self.set_training_stage(training_stage or ("joint" if self.selector else "random"))

    @property
    def plan(self):
        return self.recognizer.plan

    @property
    def num_classes(self) -> int:
        return self._head[0].num_classes

    def init_weights(self) -> None:
        """The recognizer's checkpoint, or where there is none its own initialisation."""
        config, checkpoint = self._start
        self.recognizer.load_state_dict(initial_weights(config, checkpoint))
        self._is_init = True

    def set_training_stage(self, name: str) -> None:
        """What training steps do from now on; see the class."""
        if name not in TRAINING_STAGES:
            raise Ada3DError(f"training stage {name!r}; there are {', '.join(TRAINING_STAGES)}")
        if name in LEARNED and self.selector is None:
            raise Ada3DError(f"training stage {name!r} needs selector=")
        self.training_stage = name
        self.train(self.training)

    def train(self, mode: bool = True) -> Ada3DRecognizer:
        super().train(mode)
        if self.training_stage == "selection":
            self.recognizer.eval()  # frozen: its BatchNorm must not drift either
        if self.training_stage == "transfer":
            self.selector.eval()
        if self.training_stage in LEARNED and self.selector_norm_eval:
            for module in self.selector.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    training_stage = "random"  # train() is called by BaseModel before there is a stage

    # ---------------------------------------------------------------------------------- MMEngine

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = "tensor"):
        """``'tensor'``: scores [B * views, num_classes]; ``'loss'``: dict; ``'predict'``:
        samples."""
        if inputs.ndim != 6:
            raise Ada3DError(
                f"Ada3DRecognizer: inputs have shape {list(inputs.shape)}, expected [B, views, "
                "C, T, H, W]; does the pipeline end with FormatShape(input_format='NCTHW')?"
            )
        clips = inputs.flatten(0, 1)
        if mode == "tensor":
            return self.recognizer(clips, self.choose(clips))
        if mode == "predict":
            return self.predict(clips, data_samples)
        if mode == "loss":
            samples = [s for s in data_samples for _ in range(inputs.shape[1])]
            return self.loss(clips, samples)
        raise Ada3DError(f"Ada3DRecognizer: mode {mode!r}; there are tensor, loss and predict")

    def choose(self, clips: Tensor) -> Policy:
        """The policies of test time for clips [N, C, T, H, W]."""
        if self.test_policy == "full":
            return Policy.full(self.plan, len(clips), clips.device)
        if self.test_policy == "random":
            return Policy.random(self.plan, len(clips), **self.random_policy).to(clips.device)
        if self.selector is None:
            raise Ada3DError("test_policy='learned' needs selector=; try 'full' or 'random'")
        return self.policy_of(self.selector.frame_features(clips))

    def policy_of(self, features: Tensor) -> Policy:
        """The learned policies of clips with frame features [N, T, D], see SelectionNetwork."""
        distribution = self.selector.distribution(features)
        return self._partly_random(distribution.mode(self.test_threshold, self.greedy))

    def _partly_random(self, policy: Policy) -> Policy:
        """``policy`` with ``random_part`` drawn instead of chosen."""
        if self.random_part == "none":
            return policy
        drawn = Policy.random(self.plan, len(policy), **self.random_policy).to(policy.frames.device)
        if self.random_part == "frames":
            return Policy(drawn.frames, policy.stages)
        return Policy(policy.frames, drawn.stages)

    def predict(self, clips: Tensor, data_samples: list) -> list:
        """Scores averaged over views by the head; each sample records its views' policies and
        prices."""
        size = self.max_testing_views or len(clips)
        policies, scores = [], []
        for part in clips.split(size):
            policies.append(self.choose(part))
            scores.append(self.recognizer(part, policies[-1]).float())
        policy, all_scores = Policy.cat(policies), torch.cat(scores)
        macs = self.price(policy)
        data_samples = self._head[0].predict_by_feat(all_scores, data_samples)
        views = len(clips) // len(data_samples)
        for i, sample in enumerate(data_samples):
            mine = slice(i * views, (i + 1) * views)
            sample.set_field(policy.frames[mine].cpu(), "policy_frames")
            sample.set_field(policy.stages[mine].cpu(), "policy_stages")
            sample.set_field(macs[mine].cpu(), "recognizer_macs")
            sample.set_field(
                self.selector_macs if self.test_policy == "learned" else 0, "selector_macs"
            )
            sample.set_field(self._objective_value(sample, policy[mine], macs[mine]), "reward")
        return data_samples

    def loss(self, clips: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Losses and log values of one training step, by the training stage."""
        if self.training_stage in ("warmup", "random"):
            losses = self._random_step(clips, data_samples)
        elif self.training_stage == "transfer":
            losses = self._transfer_step(clips, data_samples)
        else:
            losses = self._policy_step(clips, data_samples)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # DistributedDataParallel waits for a gradient of every parameter, in every stage
            unused = sum(p.flatten()[:1].sum() for p in self.parameters() if p.requires_grad)
            losses["loss_unused"] = 0.0 * unused
        return losses

    # --------------------------------------------------------------------------- training steps

    def _random_step(self, clips: Tensor, data_samples: list) -> dict[str, Tensor]:
        n = len(clips)
        if self.training_stage == "random":
            policy = Policy.random(self.plan, n, **self.random_policy)
        else:
            full = round(n * self.warmup_full)
            some = Policy.random(self.plan, n - full, torch.rand(n - full), torch.rand(n - full))
            policy = Policy.cat([Policy.full(self.plan, full), some])
        policy = policy.to(clips.device)
        scores, auxiliary = self.recognizer.with_auxiliary(clips, policy)
        losses = self._recognizer_loss(scores, auxiliary, data_samples)
        losses.update(self._distillation_loss(scores, clips, data_samples))
        if self.training_stage == "warmup" and self.selector is not None:
            losses.update(self._classifier_loss(clips, data_samples))
        return {**losses, **self._usage_log(policy)}

    def _classifier_loss(self, clips: Tensor, data_samples: list) -> dict[str, Tensor]:
        if self.selector.classifier is None:
            return {}
        scores, labels = self.selector.classify(clips).float(), _labels(data_samples, clips.device)
        labels = labels.repeat_interleave(scores.shape[1], 0)
        if labels.ndim == 1:
            loss = F.cross_entropy(scores.flatten(0, 1), labels)
        else:
            loss = F.binary_cross_entropy_with_logits(scores.flatten(0, 1), labels.float())
        return {"loss_classifier": loss}

    def _transfer_step(self, clips: Tensor, data_samples: list) -> dict[str, Tensor]:
        with torch.no_grad():
            distribution = self.selector(clips)
        policy = self._partly_random(distribution.sample())
        scores, auxiliary = self.recognizer.with_auxiliary(clips, policy)
        losses = self._recognizer_loss(scores, auxiliary, data_samples)
        losses.update(self._distillation_loss(scores, clips, data_samples))
        return {**losses, **self._usage_log(policy, self.selector_macs)}

    def _policy_step(self, clips: Tensor, data_samples: list) -> dict[str, Tensor]:
        """One estimate of eq. 7, and in the joint stage of eq. 8, over S policies for each clip."""
        goal, n, joint = self.objective, len(clips), self.training_stage == "joint"
        many, relaxed = n * goal.samples, goal.estimator == "straight_through"
        distribution: PolicyDistribution = self.selector(clips)
        repeated = distribution.repeat_interleave(goal.samples)
        drawn = self._partly_random(repeated.sample())
        if relaxed:
            drawn = self._with_gates(repeated, drawn)
        greedy = self._partly_random(distribution.mode(greedy=self.greedy))
        policy, which = drawn, torch.arange(n, device=clips.device).repeat_interleave(goal.samples)
        if goal.baseline == "greedy" and not relaxed:  # behind the samples, in the same forward
            policy, which = Policy.cat([drawn, greedy]), torch.cat([which, which[:: goal.samples]])
        with torch.set_grad_enabled(joint or relaxed):
            scores, auxiliary = self.recognizer.with_auxiliary(clips[which], policy)
        scores = scores.float()
        labels = _labels(data_samples, clips.device)[which]
        correct = correctness(scores.detach(), labels, goal.multi_label, goal.soft)
        rewards, advantages = [], []
        both = costs(policy, goal, self.price(policy), self.full_macs)
        baselines = (self.frame_baseline, self.stage_baseline)
        for baseline, cost in zip(baselines, both, strict=True):
            value = reward(correct, cost, goal.gamma, self.cost_weight.value)
            rewards.append(value[:many].unflatten(0, (n, goal.samples)))
            if not relaxed:
                advantages.append(baseline.advantage(rewards[-1], value[many:]))
        usage = self._usage_log(drawn, self.selector_macs)
        if relaxed:
            weight = self.cost_weight.value.clone()
            loss = straight_through_loss(repeated, scores, labels, drawn, goal, weight)
        else:
            if self.random_part != "none":  # was not drawn from the distribution: nothing to learn
                advantages[self.random_part == "stages"].zero_()
            loss = policy_loss(distribution, drawn, *advantages, goal.entropy)
        losses = {"loss_policy": loss}
        self.cost_weight.update(usage["gmacs"])
        if joint:
            samples = [data_samples[i] for i in which.tolist()]
            losses.update(self._recognizer_loss(scores, auxiliary, samples))
            losses.update(self._distillation_loss(scores, clips, data_samples, which))
        frames, stages = distribution.entropy()
        log = {
            "reward_frames": rewards[0].mean(),
            "reward_stages": rewards[1].mean(),
            "correct": correct[:many].mean(),
            "entropy_frames": frames.detach().mean(),
            "entropy_stages": stages.detach().mean(),
            "distinct_policies": clips.new_tensor(float(greedy.num_distinct)),
            "gmacs_greedy": self._usage_log(greedy, self.selector_macs)["gmacs"],
            "cost_weight": self.cost_weight.value.clone(),
        }
        if not relaxed:
            log["advantage"] = torch.stack(advantages).abs().mean()
        return {**losses, **log, **usage}

    def _with_gates(self, distribution: PolicyDistribution, policy: Policy) -> Policy:
        """``policy`` with gates through which its learned part has gradients."""
        policy = distribution.straight_through(policy)
        frames, stages = policy.gates
        if self.random_part == "frames":
            policy.gates = (frames.detach(), stages)
        elif self.random_part == "stages":
            policy.gates = (frames, stages.detach())
        return policy

    def _recognizer_loss(self, scores: Tensor, auxiliary: dict, data_samples: list) -> dict:
        """The head's loss, and those of auxiliary heads, each made by the head's own code."""
        losses = self._head[0].loss_by_feat(scores.float(), data_samples)
        for path, value in auxiliary.items():
            head = _Scored(self.recognizer.get_submodule(path))
            losses.update(type(head.module).loss(head, value.float(), data_samples))
        return losses

    def _distillation_loss(
        self, scores: Tensor, clips: Tensor, data_samples: list, which: Tensor | None = None
    ) -> dict[str, Tensor]:
        """``which``: the clip of each row of ``scores``, None for one row each."""
        if not self.distill:
            return {}
        taught = self._teach(clips)[slice(None) if which is None else which]
        ours, theirs = scores.float() / self.distill_temperature, taught / self.distill_temperature
        if _labels(data_samples, clips.device).ndim > 1:
            loss = F.binary_cross_entropy_with_logits(ours, theirs.sigmoid())
        else:
            loss = F.kl_div(ours.log_softmax(1), theirs.softmax(1), reduction="batchmean")
        return {"loss_distill": self.distill * self.distill_temperature**2 * loss}

    @torch.no_grad()
    def _teach(self, clips: Tensor) -> Tensor:
        """The plain recognizer's scores [N, num_classes] for clips."""
        if not self._teacher:
            config, checkpoint = self._start
            if checkpoint is None:
                raise Ada3DError(
                    "distill needs recognizer_checkpoint=, the recognizer to learn from"
                )
            plain = build_recognizer(config)
            plain.load_state_dict(initial_weights(config, checkpoint))
            self._teacher = (convert(plain, clip_shape=self.clip_shape).eval(),)
        return self._teacher[0].to(clips.device)(clips).float()

    def _usage_log(self, policy: Policy, selector_macs: int = 0) -> dict[str, Tensor]:
        return {
            "kept_frames": policy.num_frames.float().mean(),
            "active_stages": policy.num_stages.float().mean(),
            "gmacs": (self.price(policy).double().mean() + selector_macs).float() / 1e9,
        }

    def _objective_value(self, sample, policy: Policy, macs: Tensor) -> float:
        """R(u) + R(v) of eq. 4 for a predicted sample, by its averaged scores."""
        if "gt_label" not in sample:
            return float("nan")
        scores = sample.pred_score  # [classes], or a row per view where the head does not average
        scores = scores.expand(len(policy), scores.shape[-1])
        labels = _labels([sample], scores.device)
        right = correctness(scores, labels.expand(len(policy), *labels.shape[1:]))
        both = costs(policy, self.objective, macs, self.full_macs)
        return sum(reward(right, cost, self.objective.gamma).mean().item() for cost in both)

    @property
    def full_macs(self) -> int:
        """Multiply-adds of the recognizer under the full policy."""
        return int(self.price(Policy.full(self.plan, 1))[0])

    def price(self, policy: Policy) -> Tensor:
        """int64 [N]: multiply-adds of the recognizer for each policy, at ``clip_shape``."""
        return price(self.recognizer, policy).to(policy.frames.device)


class _Scored:
    """An auxiliary head whose scores are there already: calling it gives back what it is given."""

    def __init__(self, module: torch.nn.Module):
        self.module = module

    def __getattr__(self, name: str):
        return getattr(self.module, name)

    def __call__(self, scores: Tensor) -> Tensor:
        return scores


def _check_gates(recognizer: AdaptiveNetwork) -> None:
    stuck = [
        site
        for stage in recognizer.plan.stages
        for site in stage.sites
        if not isinstance(recognizer.get_submodule(site), PackedConv3d)
    ]
    if stuck:
        raise Ada3DError(
            "objective: estimator='straight_through' needs gates with gradients, which the model's "
            f"own code has not: {', '.join(stuck[:4])}; try estimator='reinforce'"
        )


def _labels(data_samples: list, device) -> Tensor:
    """Classes int [N], or label sets as 0/1 [N, num_classes]."""
    labels = torch.stack([sample.gt_label for sample in data_samples]).to(device)
    return labels.flatten() if labels.shape[-1] == 1 else labels


def _one_of(option: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise Ada3DError(f"{option} {value!r}; there are {', '.join(allowed)}")
    return value
