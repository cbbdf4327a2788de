"""Ada3DRecognizer: any MMAction2 3D recognizer with a selection network, for MMEngine's Runner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmaction.registry import MODELS
from mmengine.model import BaseModel
from torch import Tensor

from ..convert import convert
from ..cost.price import price
from ..cost.selector import selector_price
from ..distribution import GREEDY
from ..errors import Ada3DError
from ..learn.reinforce import Baseline, CostWeight, Objective, correctness, costs, reward
from ..policy import Policy
from .build import build_recognizer, build_selector, check_gates
from .checkpoint import initial_weights, load_selector
from .config import recognizer_config
from .steps import FROZEN, STEPS, labels_of
from .teacher import Teacher

LEARNED = ("selection", "joint", "transfer")  # the stages with learned policies
RANDOM_PARTS = ("none", "frames", "stages")
TEST_POLICIES = ("learned", "full", "random")
SCORES = ("recognizer", "both", "selector")


@MODELS.register_module()
class Ada3DRecognizer(BaseModel):
    """Ada3D around a plain recognizer (sec. 3.2).

    Inputs are MMAction2's [B, views, C, T, H, W]; the views of a video fold into the batch, and
    each gets its own policy. ``training_phase`` says what a training step does; TrainingPhaseHook
    sets it:

    - ``'warmup'``: the recognizer learns under random policies of any size, a share ``warmup_full``
      of each batch full; the selector learns as a classifier (if it has one).
    - ``'pretrain'``: the selector alone learns as a classifier, which costs next to nothing.
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
        classify: weight of the selector's classifier in the policy stages too, so that what it told
            apart after its pre-training is not unlearned from rewards; needs a classifier.
        test_policy: ``'learned'`` (the greedy policy), ``'full'`` or ``'random'``.
        predict_with: whose scores predict at test time: ``'recognizer'``; ``'both'``: the sum of the
            recognizer's and of the selector's classifier's (the product of their probabilities,
            scaled); or ``'selector'``: its classifier alone; the recognizer does not run, and clips
            are recorded with no frame. Rewards and losses stay each network's own. Both need
            ``classify``: a classifier that is left behind while its features learn from rewards
            predicts badly.
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
        training_phase: str | None = None,
        warmup_full: float = 1 / 3,
        distill: float = 0.0,
        distill_temperature: float = 2.0,
        classify: float = 0.0,
        random_policy: Mapping | None = None,
        random_part: str | None = None,
        test_policy: str = "learned",
        predict_with: str = "recognizer",
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
        self.head = (plain.cls_head,)  # its losses and averaging only; in a tuple: no parameters
        self.recognizer = convert(
            plain, clip_shape=tuple(clip_shape), **dict(convert_options or {})
        )
        self.clip_shape = tuple(clip_shape)
        self.max_testing_views = (config.get("test_cfg") or {}).get("max_testing_views")
        self.objective = Objective(**dict(objective or {}))
        if self.objective.estimator == "straight_through":
            check_gates(self.recognizer)
        self.frame_baseline = Baseline(self.objective)
        self.stage_baseline = Baseline(self.objective)
        self.cost_weight = CostWeight(self.objective)
        self.predict_with = _one_of("predict_with", predict_with, SCORES)
        classifies = self.predict_with != "recognizer"
        self._set_selector(selector, selector_checkpoint, preprocessor, classifies)
        if classify and getattr(self.selector, "classifier", None) is None:
            raise Ada3DError("classify needs selector.pretrain='frame' or 'clip'")
        if classifies and not classify:
            raise Ada3DError(
                f"predict_with={predict_with!r} needs classify= above 0, so that the selection "
                "network's classifier learns as long as its features do"
            )
        self.warmup_full = warmup_full
        for option, weight in (("distill", distill), ("classify", classify)):
            if weight < 0:
                raise Ada3DError(f"{option}={weight}: a weight is not negative")
        self.distill, self.classify = distill, classify
        self.teacher = Teacher(config, recognizer_checkpoint, clip_shape, distill_temperature)
        self.random_policy = {"frames": 0.7, "stages": 0.4, **dict(random_policy or {})}
        self.random_part = _one_of("random_part", random_part or "none", RANDOM_PARTS)
        self.test_policy = _one_of("test_policy", test_policy, TEST_POLICIES)
        self.test_threshold = test_threshold
        self.greedy, self.selector_norm_eval = _one_of("greedy", greedy, GREEDY), selector_norm_eval
        self.set_training_phase(training_phase or ("joint" if self.selector else "random"))

    def _set_selector(
        self, config: Mapping | None, checkpoint: str | None, preprocessor: Mapping,
        classifies: bool,
    ) -> None:  # fmt: skip
        """The selector, and what a clip costs it: ``selector_macs`` to choose a policy, and to
        classify if it does; ``classifier_macs`` to classify only."""
        self.selector, self.selector_macs, self.classifier_macs = None, 0, 0
        if config is None:
            if checkpoint is not None:
                raise Ada3DError("selector_checkpoint needs selector=")
            return
        self.selector = build_selector(config, self.plan, preprocessor, self.num_classes)
        classifies = classifies and self.selector.classifier is not None
        self.selector_macs = selector_price(self.selector, self.clip_shape, classify=classifies)
        if classifies:
            self.classifier_macs = selector_price(
                self.selector, self.clip_shape, decide=False, classify=True
            )
        if checkpoint is not None:
            load_selector(self.selector, checkpoint)

    @property
    def plan(self):
        return self.recognizer.plan

    @property
    def num_classes(self) -> int:
        return self.head[0].num_classes

    def init_weights(self) -> None:
        """The recognizer's checkpoint, or where there is none its own initialisation."""
        config, checkpoint = self._start
        self.recognizer.load_state_dict(initial_weights(config, checkpoint))
        self._is_init = True

    def set_training_phase(self, name: str) -> None:
        """What training steps do from now on; see the class."""
        if name not in STEPS:
            raise Ada3DError(f"training stage {name!r}; there are {', '.join(STEPS)}")
        if name in (*LEARNED, "pretrain") and self.selector is None:
            raise Ada3DError(f"training stage {name!r} needs selector=")
        if name == "pretrain" and self.selector.classifier is None:
            raise Ada3DError("training stage 'pretrain' needs selector.pretrain='frame' or 'clip'")
        self.training_phase = name
        self.train(self.training)

    def train(self, mode: bool = True) -> Ada3DRecognizer:
        super().train(mode)
        if FROZEN.get(self.training_phase) == "recognizer":
            self.recognizer.eval()  # frozen: its BatchNorm must not drift either
        if self.training_phase == "transfer":
            self.selector.eval()
        if self.training_phase in LEARNED and self.selector_norm_eval:
            for module in self.selector.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    training_phase = "random"  # train() is called by BaseModel before there is a stage

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
            return self.score(clips)[1]
        if mode == "predict":
            return self.predict(clips, data_samples)
        if mode == "loss":
            samples = [s for s in data_samples for _ in range(inputs.shape[1])]
            return self.loss(clips, samples)
        raise Ada3DError(f"Ada3DRecognizer: mode {mode!r}; there are tensor, loss and predict")

    def choose_policy(self, clips: Tensor, features: Tensor | None = None) -> Policy:
        """The policies of test time for clips [N, C, T, H, W]; ``features``: the selection
        network's of these clips, if they are there already."""
        if self.test_policy == "full":
            return Policy.full(self.plan, len(clips), clips.device)
        if self.test_policy == "random":
            return Policy.random(self.plan, len(clips), **self.random_policy).to(clips.device)
        if self.selector is None:
            raise Ada3DError("test_policy='learned' needs selector=; try 'full' or 'random'")
        return self.learned_policy(
            self.selector.frame_features(clips) if features is None else features
        )

    def learned_policy(self, features: Tensor) -> Policy:
        """The learned policies of clips with frame features [N, T, D], see SelectionNetwork."""
        distribution = self.selector.distribution(features)
        return self.randomize_part(distribution.mode(self.test_threshold, self.greedy))

    def randomize_part(self, policy: Policy) -> Policy:
        """``policy`` with ``random_part`` drawn instead of chosen."""
        if self.random_part == "none":
            return policy
        drawn = Policy.random(self.plan, len(policy), **self.random_policy).to(policy.frames.device)
        if self.random_part == "frames":
            return Policy(drawn.frames, policy.stages)
        return Policy(policy.frames, drawn.stages)

    def score(self, clips: Tensor, features: Tensor | None = None) -> tuple[Policy, Tensor]:
        """Policies of test time and scores [N, num_classes] of clips [N, C, T, H, W]; ``features``
        as for `choose_policy`."""
        if self.predict_with == "recognizer":
            policy = self.choose_policy(clips, features)
            return policy, self.recognizer(clips, policy).float()
        features = self.selector.frame_features(clips) if features is None else features
        classes = self.selector.classify(features).float().mean(1)
        if self.predict_with == "selector":
            return Policy.full(self.plan, len(clips), clips.device), classes
        policy = self.choose_policy(clips, features)
        return policy, self.recognizer(clips, policy).float() + classes

    def predict(self, clips: Tensor, data_samples: list) -> list:
        """ScoringModel averaged over views by the head; each sample records its views' policies and
        prices."""
        parts = [self.score(part) for part in clips.split(self.max_testing_views or len(clips))]
        policy, scores = Policy.cat([p for p, _ in parts]), torch.cat([s for _, s in parts])
        executed = self.predict_with != "selector"
        macs = self.price(policy) * executed
        selector_macs = self.tested_selector_macs
        data_samples = self.head[0].predict_by_feat(scores, data_samples)
        views = len(clips) // len(data_samples)
        for i, sample in enumerate(data_samples):
            mine = slice(i * views, (i + 1) * views)
            sample.set_field(policy.frames[mine].cpu() & executed, "policy_frames")
            sample.set_field(policy.stages[mine].cpu() & executed, "policy_stages")
            sample.set_field(macs[mine].cpu(), "recognizer_macs")
            sample.set_field(selector_macs, "selector_macs")
            if executed and "gt_label" in sample:
                value = self._objective_value(sample, policy[mine], macs[mine])
                sample.set_field(value, "reward")
        return data_samples

    def loss(self, clips: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Losses and log values of one training step, by the training stage."""
        losses = STEPS[self.training_phase](self, clips, data_samples)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # DistributedDataParallel waits for a gradient of every parameter, in every stage
            unused = sum(p.flatten()[:1].sum() for p in self.parameters() if p.requires_grad)
            losses["loss_unused"] = 0.0 * unused
        return losses

    # ------------------------------------------------------------------------------------ prices

    def _objective_value(self, sample, policy: Policy, macs: Tensor) -> float:
        """R(u) + R(v) of eq. 4 for a predicted sample, by its averaged scores."""
        scores = sample.pred_score  # [classes], or a row per view where the head does not average
        scores = scores.expand(len(policy), scores.shape[-1])
        labels = labels_of([sample], scores.device)
        right = correctness(scores, labels.expand(len(policy), *labels.shape[1:]))
        both = costs(policy, self.objective, macs, self.full_macs)
        return sum(reward(right, cost, self.objective.gamma).mean().item() for cost in both)

    @property
    def full_macs(self) -> int:
        """Multiply-adds of the recognizer under the full policy."""
        return int(self.price(Policy.full(self.plan, 1))[0])

    @property
    def tested_selector_macs(self) -> int:
        """Multiply-adds of what runs of the selection network at test time, for one clip."""
        decides = self.test_policy == "learned" and self.predict_with != "selector"
        return self.selector_macs if decides else self.classifier_macs

    def price(self, policy: Policy) -> Tensor:
        """int64 [N]: multiply-adds of the recognizer for each policy, at ``clip_shape``."""
        return price(self.recognizer, policy).to(policy.frames.device)


def _one_of(option: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise Ada3DError(f"{option} {value!r}; there are {', '.join(allowed)}")
    return value
