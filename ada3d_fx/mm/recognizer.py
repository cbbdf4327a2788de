"""Ada3DRecognizer: any MMAction2 3D recognizer with a selection network, for MMEngine's Runner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from mmaction.registry import MODELS
from mmengine.dist import get_dist_info, get_world_size
from mmengine.model import BaseModel
from torch import Tensor

from ..convert import convert
from ..cost.price import price
from ..cost.selector import selector_price
from ..errors import Ada3DError
from ..exits import Scored
from ..learn.reward import mean_of_processes
from ..learn.step import Prices
from ..plan import StagePlan
from ..policy import Policy
from . import predicting
from .build import build_estimator, build_recognizer, build_selector, check_gates
from .checkpoint import initial_weights, load_selector
from .config import recognizer_config
from .differences import check_channels
from .options import (
    RANDOM_PARTS,
    RandomPolicyOptions,
    TestingOptions,
    TrainingOptions,
    check_exit_parts,
    one_of,
    read_fixed_policy,
    read_group,
)
from .steps import FROZEN, STEPS
from .stopwatch import Stopwatch
from .teacher import Teacher

LEARNED = ("selection", "joint", "transfer")  # the phases with learned policies


@MODELS.register_module()
class Ada3DRecognizer(BaseModel):
    """Ada3D around a plain recognizer (sec. 3.2).

    Inputs are MMAction2's [B, views, C, T, H, W]; the views of a video fold into the batch, and
    each gets its own policy. The training phase says what a training step does; TrainingPhaseHook
    sets it:

    - 'warmup': the recognizer learns under random policies of any size, a share of each batch full;
      the selection network learns as a classifier (if it has one).
    - 'pretrain': the selection network alone learns as a classifier, which costs next to nothing.
    - 'selection': the paper's stage 1 (Algorithm 1); the recognizer is frozen.
    - 'joint': the paper's stage 2, eq. 8.
    - 'transfer': the recognizer learns under policies sampled from the selection network, which is
      frozen (table 3).
    - 'random': the recognizer learns under random policies of ``random_policy``'s usage (the paper's
      Random FT).
    - 'fixed': the recognizer learns under ``fixed_policy``, the same for all clips.

    Where the data preprocessor blends clips, the recognizer learns from blended ones in the phases in
    which it learns alone; policies are learned from clips as they are.

    Args:
        recognizer: the `model` of a plain 3D recognizer's config, or the path of that config.
        selector: options of the selection network, see `build_selector`. None: there is none, for
            the policies 'full', 'random', 'recorded' and 'fixed' only.
        objective: the estimator of the gradient and the options of the reward, such as
            ``dict(type='Reinforce', baseline='greedy', gamma=2.0)``, see `build_estimator`.
        recognizer_checkpoint: the trained plain recognizer to start from.
        selector_checkpoint: an Ada3D checkpoint whose selection network to start from; see
            `load_selector`.
        clip_shape: (C, T, H, W) for which the plan and prices are made.
        convert_options: further options of `convert`.
        training: see `TrainingOptions`.
        testing: see `TestingOptions`.
        random_policy: see `RandomPolicyOptions`.
        random_part: 'frames' or 'stages': that decision is random, of ``random_policy``'s usage, in
            training and in test; only the other is learned (table 6).
        fixed_policy: FRAMES/STAGES, a bit each, such as '11010101/01100': the policy of all clips in
            the phase 'fixed' and under the test policy 'fixed'.
        exit: the confidence that a clip must exceed to exit: the selection network's classifier
            gives its most probable class more, so the recognizer does not run for it. The others are
            predicted by both networks. In tests only; None: no clip exits.
        data_preprocessor: MMEngine's; by default the recognizer's own.
        init_cfg: MMEngine's.

    Raises:
        Ada3DError: a config that is no 3D recognizer's, a missing file, an unknown option.
    """

    training_phase = "random"  # train() is called by BaseModel before there is a phase

    def __init__(
        self,
        recognizer: Mapping | str,
        selector: Mapping | None = None,
        objective: Mapping | None = None,
        recognizer_checkpoint: str | None = None,
        selector_checkpoint: str | None = None,
        clip_shape: tuple[int, int, int, int] = (3, 8, 224, 224),
        convert_options: Mapping | None = None,
        training: TrainingOptions | Mapping | None = None,
        testing: TestingOptions | Mapping | None = None,
        random_policy: RandomPolicyOptions | Mapping | None = None,
        random_part: Literal["none", "frames", "stages"] | None = None,
        fixed_policy: str | None = None,
        exit: float | None = None,
        data_preprocessor: Mapping | None = None,
        init_cfg: Mapping | None = None,
    ):
        config = recognizer_config(recognizer)
        preprocessor = data_preprocessor or config.get("data_preprocessor")
        preprocessor = preprocessor or {"type": "ActionDataPreprocessor", "format_shape": "NCTHW"}
        super().__init__(data_preprocessor=dict(preprocessor), init_cfg=init_cfg)
        # Steps blend, so that policies are learned from clips as they are.
        self.blending = getattr(self.data_preprocessor, "blending", None)
        if self.blending is not None:
            self.data_preprocessor.blending = None
        if recognizer_checkpoint is not None and not Path(recognizer_checkpoint).is_file():
            raise Ada3DError(
                f"recognizer_checkpoint: no file at {recognizer_checkpoint}; "
                "train the plain recognizer first, or correct the path"
            )
        self.stopwatch = Stopwatch()  # off, but where StepTimesHook puts one of its own here
        self.training_options = read_group(TrainingOptions, "training", training)
        self.testing_options = read_group(TestingOptions, "testing", testing)
        self.random_policy = asdict(read_group(RandomPolicyOptions, "random_policy", random_policy))
        self.random_part = one_of("random_part", random_part or "none", RANDOM_PARTS)
        plain = build_recognizer(config)
        self._start = (config, recognizer_checkpoint)
        multi_class = getattr(plain.cls_head, "multi_class", False)
        check_exit_parts(exit, self.testing_options.predict_with, multi_class)
        self.exit, self.exit_start = exit, (self.testing_options.threshold, exit)
        self.head = (plain.cls_head,)  # its losses and averaging only; in a tuple: no parameters
        self.clip_shape = tuple(clip_shape)
        check_channels(preprocessor, self.clip_shape)
        self.recognizer = convert(plain, clip_shape=self.clip_shape, **dict(convert_options or {}))
        self.fixed_policy = read_fixed_policy(fixed_policy, self.plan)
        if self.testing_options.policy == "fixed":
            self._require_fixed_policy("testing.policy")
        self.max_testing_views = (config.get("test_cfg") or {}).get("max_testing_views")
        self.estimator = build_estimator(objective)
        if self.estimator.needs_gradients:
            check_gates(self.recognizer)
        self._set_selector(selector, selector_checkpoint, preprocessor)
        self.teacher = Teacher(
            config, recognizer_checkpoint, clip_shape, self.training_options.distill_temperature
        )
        self.recorded = predicting.Recorded(self.testing_options.policy_file)
        self.set_training_phase(
            self.training_options.phase or ("joint" if self.selector else "random")
        )

    def _set_selector(
        self, config: Mapping | None, checkpoint: str | None, preprocessor: Mapping
    ) -> None:
        """Build the selection network, and price it.

        ``selector_macs`` is what a clip costs it to choose a policy, and to classify if it does;
        ``classifier_macs`` to classify only.
        """
        self.selector, self.selector_macs, self.classifier_macs = None, 0, 0
        predict_with = self.testing_options.predict_with
        if config is not None:
            self.selector = build_selector(config, self.plan, preprocessor, self.num_classes)
            classifies = predict_with != "recognizer" and self.selector.classifier is not None
            self.selector_macs = selector_price(self.selector, self.clip_shape, classify=classifies)
            if classifies:
                self.classifier_macs = selector_price(
                    self.selector, self.clip_shape, decide=False, classify=True
                )
            if checkpoint is not None:
                load_selector(self.selector, checkpoint)
        elif checkpoint is not None:
            raise Ada3DError("selector_checkpoint needs selector=")
        classify = self.training_options.classify
        if classify and getattr(self.selector, "classifier", None) is None:
            raise Ada3DError("training.classify needs selector.pretrain='frame' or 'clip'")
        if predict_with != "recognizer" and not classify:
            raise Ada3DError(
                f"testing.predict_with={predict_with!r} needs training.classify above 0, so that the "
                "selection network's classifier learns as long as its features do"
            )

    @property
    def plan(self) -> StagePlan:
        """What can be decided."""
        return self.recognizer.plan

    @property
    def num_classes(self) -> int:
        """Classes of the recognizer."""
        return self.head[0].num_classes

    def init_weights(self) -> None:
        """Load the recognizer's checkpoint, or where there is none use its own initialisation."""
        config, checkpoint = self._start
        self.recognizer.load_state_dict(initial_weights(config, checkpoint))
        self._is_init = True

    def set_training_phase(self, name: str) -> None:
        """Say what training steps do from now on; see the class.

        Raises:
            Ada3DError: an unknown phase, or one that needs a part which the model lacks.
        """
        if name not in STEPS:
            raise Ada3DError(f"training phase {name!r}; there are {', '.join(STEPS)}")
        if name in (*LEARNED, "pretrain") and self.selector is None:
            raise Ada3DError(f"training phase {name!r} needs selector=")
        if name == "pretrain" and self.selector.classifier is None:
            raise Ada3DError("training phase 'pretrain' needs selector.pretrain='frame' or 'clip'")
        if name == "fixed":
            self._require_fixed_policy("training phase")
        self.training_phase = name
        self.train(self.training)

    def train(self, mode: bool = True) -> Ada3DRecognizer:
        """Set the mode; what the phase freezes stays in evaluation mode."""
        super().train(mode)
        if "recorded" in self.__dict__:
            self.recorded.rewind()  # a test begins with evaluation mode
        if FROZEN.get(self.training_phase) == "recognizer":
            self.recognizer.eval()  # frozen: its BatchNorm must not drift either
        if self.training_phase == "transfer":
            self.selector.eval()
        if self.training_phase in LEARNED and self.training_options.selector_norm_eval:
            for module in self.selector.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    # ---------------------------------------------------------------------------------- MMEngine

    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode: str = "tensor"
    ) -> Any:
        """Run as MMEngine asks.

        Args:
            inputs: [B, views, C, T, H, W].
            data_samples: one for each of B; not needed for 'tensor'.
            mode: 'tensor', 'loss' or 'predict'.

        Returns:
            'tensor': scores [B * views, num_classes]; 'loss': a dict; 'predict': the samples.

        Raises:
            Ada3DError: inputs of another rank, or another mode.
        """
        if inputs.ndim != 6:
            raise Ada3DError(
                f"Ada3DRecognizer: inputs have shape {list(inputs.shape)}, expected [B, views, "
                "C, T, H, W]; does the pipeline end with FormatShape(input_format='NCTHW')?"
            )
        clips = inputs.flatten(0, 1)
        if mode == "tensor":
            return self.score(clips).scores
        if mode == "predict":
            return self.predict(clips, data_samples)
        if mode == "loss":
            samples = [s for s in data_samples for _ in range(inputs.shape[1])]
            return self.loss(clips, samples)
        raise Ada3DError(f"Ada3DRecognizer: mode {mode!r}; there are tensor, loss and predict")

    def choose_policy(self, clips: Tensor, features: Tensor | None = None) -> Policy:
        """Return the policies of test time.

        Args:
            clips: [N, C, T, H, W].
            features: the selection network's of these clips, if they are there already.

        Raises:
            Ada3DError: learned policies without a selection network, or fewer recorded ones than
                there are clips.
        """
        kind = self.testing_options.policy
        if kind == "full":
            return Policy.full(self.plan, len(clips), clips.device)
        if kind == "random":
            return self._random_policy(len(clips)).to(clips.device)
        if kind == "fixed":
            return self.fixed_policies(len(clips), clips.device)
        if kind == "recorded":
            policy, exited = self.recorded.take(len(clips), self.recognizer)
            if exited.any():
                raise Ada3DError(
                    f"testing.policy_file: {self.recorded.path} has clips without a frame: they "
                    "exited (model.exit), which needs testing.predict_with='both'"
                )
            return policy.to(clips.device)
        if self.selector is None:
            raise Ada3DError("testing.policy='learned' needs selector=; try 'full' or 'random'")
        features = self.selector.frame_features(clips) if features is None else features
        return self.learned_policy(features)

    def learned_policy(self, features: Tensor) -> Policy:
        """Return the greedy policies of clips with frame features [N, T, D]."""
        options = self.testing_options
        distribution = self.selector.distribution(features)
        return self.randomize_part(distribution.mode(options.threshold, options.greedy))

    def randomize_part(self, policy: Policy) -> Policy:
        """Return ``policy`` with ``random_part`` drawn at random instead."""
        if self.random_part == "none":
            return policy
        other = self._random_policy(len(policy)).to(policy.frames.device)
        if self.random_part == "frames":
            return Policy(other.frames, policy.stages)
        return Policy(policy.frames, other.stages)

    def fixed_policies(self, n: int, device: torch.device | str) -> Policy:
        """Return ``fixed_policy`` for each of ``n`` clips."""
        self._require_fixed_policy("a fixed policy")
        return self.fixed_policy.repeat_interleave(n).to(device)

    def _require_fixed_policy(self, what: str) -> None:
        if self.fixed_policy is None:
            raise Ada3DError(f"{what}: 'fixed' needs model.fixed_policy, such as 11010101/01100")

    def _random_policy(self, n: int) -> Policy:
        """Draw this process's share of random policies, so that processes of one seed differ."""
        rank, size = get_dist_info()
        return Policy.random(self.plan, n * size, **self.random_policy)[rank::size]

    def score(self, clips: Tensor, features: Tensor | None = None) -> Scored:
        """Return the policies and the scores of test time, see `predicting.score`.

        Args:
            clips: [N, C, T, H, W].
            features: as for `choose_policy`.
        """
        return predicting.score(self, clips, features)

    def class_scores(self, features: Tensor) -> Tensor:
        """Return the scores of the selection network's classifier, [N, classes]."""
        return predicting.widened(self.selector.classify(features)).mean(1)

    def predict(self, clips: Tensor, data_samples: list) -> list:
        """Return the samples with scores averaged over views, and each view's policy and price."""
        return predicting.predict(self, clips, data_samples)

    def loss(self, clips: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Return the losses and log values of one training step, by the training phase."""
        return STEPS[self.training_phase](self, clips, data_samples)

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the losses, and the values to log: the means over all processes."""
        loss, values = super().parse_losses(losses)
        if get_world_size() > 1:
            own = torch.stack(
                [value.detach().to(loss.device).double() for value in values.values()]
            )
            for (name, value), mean in zip(list(values.items()), mean_of_processes(own)):
                values[name] = mean.to(value.dtype)
        return loss, values

    # ------------------------------------------------------------------------------------ prices

    @property
    def full_macs(self) -> int:
        """Multiply-adds of the recognizer under the full policy."""
        return int(self.price(Policy.full(self.plan, 1))[0])

    @property
    def prices(self) -> Prices:
        """What policies cost, for a training step."""
        return Prices(self.price, self.full_macs, self.selector_macs)

    @property
    def tested_selector_macs(self) -> int:
        """Multiply-adds of what runs of the selection network at test time, for one clip.

        Recorded policies were chosen by one too, so that is counted.
        """
        options = self.testing_options
        chosen = options.policy in ("learned", "recorded")
        decides = chosen and options.predict_with != "selector"
        return self.selector_macs if decides else self.classifier_macs

    def price(self, policy: Policy) -> Tensor:
        """Return the recognizer's multiply-adds for each policy at ``clip_shape``, int64 [N]."""
        return price(self.recognizer, policy).to(policy.frames.device)
