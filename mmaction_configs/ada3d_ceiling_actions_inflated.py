# Ada3D on ceiling_actions, from the recognizer of ceiling_actions_inflated_stage0.py. Choose the fold with
# `--cfg-options fold=1 model.recognizer_checkpoint=...`.
_base_ = ["ceiling_actions_inflated_stage0.py"]
class_file = "{data_root}/classes.txt"
model = dict(
    _delete_=True,
    type="Ada3DRecognizer",
    recognizer=_base_.model,
    recognizer_checkpoint="work_dirs/ceiling_actions/inflated_stage0/epoch_24.pth",
    clip_shape=(6, 8, 96, 128),
    selector=dict(
        type="SelectionNetwork",
        backbone=dict(type="SmallConvNet", channels=(8, 16, 32, 64), in_channels=6),
        motion=True,
        head=dict(type="FrameHead", context=True),
        pretrain="clip",
        frame_prob=0.6,
        weights=None,
        input_size=64,
        max_logit=3.0,
    ),
    training=dict(distill=1.0),  # some 350 clips are few to learn all policies from
    testing=dict(greedy="systematic"),  # frames are much alike here, see ada3d_ceiling_actions.py
    objective=dict(
        type="Reinforce",
        gamma=2.0,
        samples=4,
        reward_temperature=1.0,
        cost="flops",
        budget=0.57,  # GMACs per clip, half of what the recognizer alone costs
        budget_rate=0.02,
    ),
)
train_cfg = dict(max_epochs=28, val_interval=14)
param_scheduler = []  # TrainingPhaseHook sets the learning rates
optim_wrapper = dict(
    _delete_=True,
    constructor="Ada3DOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=4e-4, weight_decay=0.02),
    clip_grad=dict(max_norm=10.0),
)
custom_hooks = [
    dict(
        type="TrainingPhaseHook",
        phases=[
            dict(name="warmup", epochs=12, recognizer_lr=4e-4, selector_lr=3e-3, schedule="cosine"),
            dict(name="selection", epochs=4, selector_lr=1e-3),
            dict(name="joint", epochs=12, recognizer_lr=2e-4, selector_lr=5e-4, schedule="cosine"),
        ],
    ),
    dict(type="PolicyLogHook"),
]
val_evaluator = [
    dict(type="AccMetric", metric_list=("top_k_accuracy", "mean_class_accuracy")),
    dict(type="PolicyCostMetric", kinds=dict(static=[0, 1, 2], motion=[3, 4, 5, 6, 7])),
]
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best="policy/reward", rule="greater", interval=14))
work_dir = "work_dirs/ceiling_actions/inflated_ada3d"
