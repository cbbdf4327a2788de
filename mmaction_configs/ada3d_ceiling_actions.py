# Ada3D on ceiling_actions, from the recognizer of ceiling_actions_stage0.py. Choose the fold with
# `--cfg-options fold=1 model.recognizer_checkpoint=...`.
_base_ = ["ceiling_actions_stage0.py"]
class_file = "{data_root}/classes.txt"
model = dict(
    _delete_=True,
    type="Ada3DRecognizer",
    recognizer=_base_.model,
    recognizer_checkpoint="work_dirs/ceiling_actions/stage0/epoch_40.pth",
    clip_shape=(3, 8, 72, 96),
    selector=dict(
        type="SelectionNetwork",
        backbone=dict(type="SmallConvNet", channels=(8, 16, 32, 64), in_channels=6),
        # Single frames of a walk and of sitting down are alike; what changes between them is not.
        motion=True,
        head=dict(type="FrameHead", context=True),
        pretrain="clip",
        frame_prob=0.6,  # near the budget from the start
        weights=None,
        input_size=64,
        max_logit=3.0,
    ),
    training=dict(
        distill=1.0,  # some 350 clips are few to learn all policies from
        classify=1.0,  # what tells sitting down from walking must not be unlearned from rewards
    ),
    testing=dict(
        predict_with="both",  # the selection network, which sees differences, classifies as well
        # Frames are much alike here: a threshold would turn all of them on or off at once.
        greedy="systematic",
    ),
    objective=dict(
        type="Reinforce",
        gamma=6.0,
        samples=4,
        reward_temperature=0.25,
        cost="flops",
        budget=0.26,  # GMACs per clip; the recognizer alone costs 1.11
        budget_rate=0.01,
    ),
)
train_cfg = dict(max_epochs=64)
param_scheduler = []
optim_wrapper = dict(
    _delete_=True,
    constructor="Ada3DOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0),
)
custom_hooks = [
    dict(
        type="TrainingPhaseHook",
        phases=[
            dict(name="warmup", epochs=16, recognizer_lr=1e-3, selector_lr=3e-3, schedule="cosine"),
            dict(name="pretrain", epochs=30, selector_lr=3e-3, schedule="cosine"),
            dict(name="selection", epochs=4, selector_lr=5e-4),
            dict(name="joint", epochs=14, recognizer_lr=5e-4, selector_lr=3e-4, schedule="cosine"),
        ],
    ),
    dict(type="PolicyLogHook"),
]
val_evaluator = [
    dict(type="AccMetric", metric_list=("top_k_accuracy", "mean_class_accuracy")),
    dict(type="PolicyCostMetric", kinds=dict(static=[0, 1, 2], motion=[3, 4, 5, 6, 7])),
]
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best="policy/reward", rule="greater", interval=10))
work_dir = "work_dirs/ceiling_actions/ada3d"
