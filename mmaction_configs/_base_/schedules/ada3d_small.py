# Ada3D on a small recognizer from scratch, in one run: a warm-up of the recognizer with random
# policies beside the pre-training of the selection network's backbone, then the two phases of the
# paper's Algorithm 1.
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=18, val_interval=9)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
param_scheduler = []  # TrainingPhaseHook sets the learning rates
optim_wrapper = dict(
    constructor="Ada3DOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.02),
    clip_grad=dict(max_norm=10.0),
)
custom_hooks = [
    dict(
        type="TrainingPhaseHook",
        phases=[
            dict(
                name="warmup",
                epochs=6,
                recognizer_lr=3e-3,
                selector_lr=3e-3,
                schedule="cosine",
                rise=0.1,
            ),
            dict(name="selection", epochs=2, selector_lr=1e-3),
            dict(name="joint", epochs=10, recognizer_lr=7e-4, selector_lr=1e-3, schedule="cosine"),
        ],
    ),
    dict(type="PolicyLogHook"),
]
