"""Ada3DRecognizer in MMAction2's data flow: modes, views, labels, baselines, training phases."""

import copy

import mm_parts
import pytest
import torch
from families import FAMILIES, config_of
from mmaction.models.utils import BaseMiniBatchBlending
from mmaction.registry import MODELS

import ada3d_fx.mm  # noqa: F401  registers the model
from ada3d_fx import Ada3DError, Policy
from ada3d_fx.mm.build import build_recognizer
from ada3d_fx.mm.options import read_fixed_policy
from ada3d_fx.plan import Stage, StagePlan
from ada3d_fx.report import records

# Multiply-adds of the classifier for one clip of 4 frames with 6 features: of each frame, or of the
# heads' 8 numbers, which come from 4 frames and from 3 times 8 numbers.
CLASSES_SEEN = {
    "frame": 4 * 6 * mm_parts.CLASSES,
    "clip": 4 * 6 * 8 + 24 * 8 + 8 * mm_parts.CLASSES,
}


def build(**options):
    torch.manual_seed(0)
    model = MODELS.build(mm_parts.model(**options))
    model.init_weights()
    return model


def state(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(before, after):
    return [key for key, value in before.items() if not torch.equal(value, after[key])] == []


def test_full_policy_predicts_what_the_plain_recognizer_does():
    model = build(testing={"policy": "full"}).eval()
    plain = build_recognizer(mm_parts.recognizer()).eval()
    plain.load_state_dict(model.recognizer.state_dict())
    inputs, samples = mm_parts.batch(3, views=2)
    with torch.no_grad():
        ours = model(inputs, copy.deepcopy(samples), mode="predict")
        theirs = plain(inputs, copy.deepcopy(samples), mode="predict")
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.pred_score, b.pred_score)
        assert a.policy_frames.all() and a.policy_stages.all()
        assert a.recognizer_macs.tolist() == [model.full_macs] * 2
        assert a.selector_macs == 0


def test_each_view_has_its_own_policy_and_scores_are_averaged():
    model = build(testing={"policy": "random"}, random_policy={"frames": 0.5, "stages": 0.5}).eval()
    inputs, samples = mm_parts.batch(2, views=5)
    with torch.no_grad():
        out = model(inputs, samples, mode="predict")
    assert out[0].policy_frames.shape == (5, 4) and out[0].policy_stages.shape == (5, 5)
    assert len(torch.cat([s.policy_stages for s in out]).unique(dim=0)) > 1
    for sample in out:
        policy = Policy(sample.policy_frames, sample.policy_stages)
        assert torch.equal(sample.recognizer_macs, model.price(policy))
        assert sample.pred_score.sum().item() == pytest.approx(1, abs=1e-5)


def test_max_testing_views_changes_nothing_but_memory():
    config = mm_parts.model()
    config["recognizer"]["test_cfg"] = {"max_testing_views": 2}
    model, whole = MODELS.build(config).eval(), build().eval()
    model.load_state_dict(whole.state_dict())
    inputs, samples = mm_parts.batch(1, views=5)
    with torch.no_grad():
        a = model(inputs, copy.deepcopy(samples), mode="predict")[0]
        b = whole(inputs, copy.deepcopy(samples), mode="predict")[0]
    torch.testing.assert_close(a.pred_score, b.pred_score)
    assert torch.equal(a.policy_frames, b.policy_frames)


def recorded(path, policy):
    """Write policies as the test tool does."""
    rows = [
        {**dict.fromkeys(records.POLICY_FIELDS, 0), "video": "x", **records.policy_words(u, v)}
        for u, v in zip(policy.frames, policy.stages)
    ]
    records.write_policies(path, rows)
    return {"policy": "recorded", "policy_file": str(path)}


def test_recorded_policies_are_taken_in_the_order_of_the_list(tmp_path):
    """From the file's start in each test, whatever the batches and the chunks of views."""
    policy = Policy.random(build().plan, 10, frames=0.5, stages=0.5)
    config = mm_parts.model(testing=recorded(tmp_path / "policies.json", policy))
    config["recognizer"]["test_cfg"] = {"max_testing_views": 3}
    model = MODELS.build(config)
    inputs, samples = mm_parts.batch(2, views=5)
    for _ in range(2):
        model.eval()
        out = [model(inputs[i : i + 1], samples[i : i + 1], mode="predict")[0] for i in range(2)]
        assert torch.equal(torch.cat([s.policy_frames for s in out]), policy.frames)
        assert torch.equal(torch.cat([s.policy_stages for s in out]), policy.stages)
        assert out[0].selector_macs == model.selector_macs  # it was asked for them once
    with pytest.raises(Ada3DError, match="policies of 10 clips, but the test list has more"):
        model(inputs, samples, mode="predict")


def test_recorded_policies_of_another_plan_are_refused(tmp_path):
    policy = Policy(torch.ones(2, 7, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool))
    model = build(testing=recorded(tmp_path / "policies.csv", policy)).eval()
    with pytest.raises(Ada3DError, match=r"policy.frames .* \[2, 7\]"):
        model(mm_parts.batch(1)[0])


def test_tensor_mode_gives_scores_under_the_greedy_policy():
    model = build().eval()
    inputs, _ = mm_parts.batch(2)
    scores = model(inputs)
    clips = inputs.flatten(0, 1)
    torch.testing.assert_close(scores, model.recognizer(clips, model.selector(clips).mode()))


@pytest.mark.parametrize("baseline", ["leave_one_out", "greedy", "moving_average"])
@pytest.mark.parametrize("cost", ["usage", "flops"])
def test_phases_with_policies_train_for_every_baseline(baseline, cost):
    model = build(objective={"samples": 2, "baseline": baseline, "cost": cost, "entropy": 0.01})
    model.train().set_training_phase("joint")
    inputs, samples = mm_parts.batch(4, views=2)
    losses = model(inputs, samples, mode="loss")
    total = sum(value for key, value in losses.items() if "loss" in key)
    total.backward()
    assert torch.isfinite(total)
    grads = [p.grad for p in model.selector.head.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in grads)
    assert any(g.abs().sum() > 0 for g in grads)
    assert all(p.grad is not None for p in model.recognizer.parameters())
    logged = "reward_frames reward_stages advantage entropy_frames entropy_stages kept_frames"
    logged += " active_stages gmacs distinct_policies"
    assert set(logged.split()) <= set(losses)


@pytest.mark.parametrize("part", [None, "frames", "stages"])
def test_straight_through_trains_what_is_learned(part):
    objective = {"samples": 2, "type": "StraightThrough", "reward_temperature": 0.5}
    model = build(objective=objective, random_part=part).train()
    for phase in ("selection", "joint"):
        model.set_training_phase(phase)
        losses = model(*mm_parts.batch(), mode="loss")
        model.zero_grad()
        losses["loss_policy"].backward()
        heads = model.selector.head
        for name, layer in (("frames", heads.frame_out), ("stages", heads.stage_out)):
            learned = layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0
            assert learned == (part != name), (phase, name)


def test_straight_through_names_gates_in_the_models_own_code():
    config, shape = config_of("mvit"), FAMILIES["mvit"][2]
    objective = {"samples": 1, "type": "StraightThrough", "reward_temperature": 0.5}
    with pytest.raises(Ada3DError, match=r"backbone\.blocks.*Reinforce"):
        build(recognizer=config, clip_shape=shape, objective=objective)


@pytest.mark.parametrize("samples_as", ["top1", "average_precision"])
def test_label_sets_train_and_predict(samples_as):
    head = {
        "loss_cls": {"type": "BCELossWithLogits"},
        "multi_class": True,
        "average_clips": "score",
    }
    model = build(head=head, objective={"samples": 2, "multi_label": samples_as})
    inputs, samples = mm_parts.batch(4, multi_label=True)
    for phase in ("warmup", "selection", "joint", "random"):
        model.train().set_training_phase(phase)
        losses = model(inputs, samples, mode="loss")
        assert all(torch.isfinite(value).all() for value in losses.values())
    out = model.eval()(inputs, samples, mode="predict")
    assert out[0].pred_score.shape == (mm_parts.CLASSES,)


def test_the_selection_phase_freezes_the_recognizer_bit_for_bit():
    model = build().train()
    model.set_training_phase("selection")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    weights, heads = state(model.recognizer), state(model.selector.head)
    for _ in range(3):
        model.train()  # as the loop does before each epoch
        inputs, samples = mm_parts.batch(4)
        losses = model(inputs, samples, mode="loss")
        optimizer.zero_grad()
        losses["loss_policy"].backward()
        optimizer.step()
    assert same(weights, state(model.recognizer))
    assert not same(heads, state(model.selector.head))
    assert "loss_cls" not in losses


def test_the_joint_phase_trains_both_and_batch_norm_moves():
    model = build().train()
    model.set_training_phase("joint")
    weights = state(model.recognizer)
    inputs, samples = mm_parts.batch(4)
    model(inputs, samples, mode="loss")
    after = state(model.recognizer)
    moved = {key for key in weights if not torch.equal(weights[key], after[key])}
    assert any("running_mean" in key for key in moved)


def test_the_recognizer_learns_from_greedy_policies_too_where_they_are_the_baseline():
    model = build(objective={"samples": 2, "baseline": "greedy"}).train()
    model.set_training_phase("joint")
    seen, loss = [], model.head[0].loss_by_feat
    model.head[0].loss_by_feat = lambda scores, samples: (
        seen.append((scores, samples)) or loss(scores, samples)
    )
    inputs, samples = mm_parts.batch(3)
    model(inputs, samples, mode="loss")
    ((scores, labelled),) = seen
    assert len(scores) == len(labelled) == 3 * (2 + 1)
    assert labelled == [sample for sample in samples for _ in range(2)] + samples


def test_a_budget_moves_the_weight_of_the_cost():
    tight = build(objective={"samples": 2, "budget": 1e-6, "reward_temperature": 0.5}).train()
    losses = tight(*mm_parts.batch(3), mode="loss")
    assert (
        tight.estimator.cost_weight.value > 1
        and losses["cost_weight"] == tight.estimator.cost_weight.value
    )
    assert losses["gmacs"] > 0 and losses["gmacs_greedy"] > 0
    loose = build(objective={"samples": 2, "budget": 1e6}).train()
    loose(*mm_parts.batch(3), mode="loss")
    assert loose.estimator.cost_weight.value < 1


def test_warmup_leaves_a_share_of_each_batch_full():
    model = build().train()
    model.set_training_phase("warmup")
    seen = []
    forward = model.recognizer.with_auxiliary
    model.recognizer.with_auxiliary = lambda clips, policy: (
        seen.append(policy) or forward(clips, policy)
    )
    losses = model(*mm_parts.batch(9), mode="loss")
    full = seen[0].frames.all(1) & seen[0].stages.all(1)
    assert full[:3].all() and full.sum() < 9
    assert {"loss_cls", "loss_classifier"} <= set(losses)


def test_pretraining_trains_the_selector_and_leaves_the_recognizer(tmp_path):
    model = build(selector=mm_parts.selector(pretrain="clip")).train()
    model.set_training_phase("pretrain")
    before = state(model.recognizer)
    losses = model(*mm_parts.batch(), mode="loss")
    assert list(losses) == ["loss_classifier"]
    losses["loss_classifier"].backward()
    assert same(before, model.recognizer.state_dict())
    assert all(p.grad is None for p in model.recognizer.parameters())
    heads = model.selector.head
    assert heads.embed[0].weight.grad.any() and heads.frame_out.weight.grad is None
    with pytest.raises(Ada3DError, match="pretrain="):
        build(selector=mm_parts.selector()).set_training_phase("pretrain")


@pytest.mark.parametrize("phase", ["selection", "joint"])
def test_the_classifier_goes_on_learning_beside_the_policies(phase):
    losses = {}
    for weight in (0.0, 0.5, 1.0):
        model = build(
            selector=mm_parts.selector(pretrain="clip"), training={"classify": weight}
        ).train()
        model.set_training_phase(phase)
        losses[weight] = model(*mm_parts.batch(), mode="loss")
        sum(value for name, value in losses[weight].items() if "loss" in name).backward()
        assert (model.selector.classifier.weight.grad is not None) == (weight > 0)
    assert "loss_classifier" not in losses[0.0]
    half, whole = losses[0.5]["loss_classifier"], losses[1.0]["loss_classifier"]
    torch.testing.assert_close(2 * half, whole)


@pytest.mark.parametrize("pretrain", ["frame", "clip"])
def test_both_networks_predict_and_both_are_paid_for(pretrain):
    parts = {}
    for name in ("recognizer", "both", "selector"):
        selector = mm_parts.selector(pretrain=pretrain)
        model = build(
            selector=selector, testing={"predict_with": name}, training={"classify": 1.0}
        ).eval()
        inputs, samples = mm_parts.batch(3, views=2)
        with torch.no_grad():
            scores = model(inputs)
            out = model(inputs, samples, mode="predict")
        parts[name] = (model, scores, out)
    model, scores, out = parts["both"]
    clips = inputs.flatten(0, 1)
    with torch.no_grad():
        classes = model.selector.classify(model.selector.frame_features(clips)).mean(1)
    torch.testing.assert_close(parts["selector"][1], classes, rtol=0, atol=1e-5)
    torch.testing.assert_close(scores, parts["recognizer"][1] + classes, rtol=0, atol=1e-5)
    averaged = scores.softmax(1).unflatten(0, (3, 2)).mean(1)
    torch.testing.assert_close(torch.stack([s.pred_score for s in out]), averaged)
    plain = parts["recognizer"][2]
    assert all(torch.equal(a.policy_frames, b.policy_frames) for a, b in zip(out, plain))
    assert all(torch.equal(a.recognizer_macs, b.recognizer_macs) for a, b in zip(out, plain))
    dearer = out[0].selector_macs - plain[0].selector_macs
    assert dearer >= CLASSES_SEEN[pretrain]
    alone = parts["selector"][2]
    assert not any(s.policy_frames.any() or s.policy_stages.any() for s in alone)
    assert not any(s.recognizer_macs.any() for s in alone) and "reward" not in alone[0]
    assert dearer <= alone[0].selector_macs < out[0].selector_macs


def test_a_full_policy_needs_no_heads_where_both_predict():
    model = build(
        testing={"policy": "full", "predict_with": "both"}, training={"classify": 1.0}
    ).eval()
    assert 0 < model.tested_selector_macs < model.selector_macs
    inputs, samples = mm_parts.batch(2)
    out = model(inputs, samples, mode="predict")
    assert out[0].policy_frames.all() and out[0].selector_macs == model.tested_selector_macs


def test_the_random_phase_keeps_to_its_usage():
    model = build(
        random_policy={"frames": 0.5, "stages": 0.4}, selector=None, training={"phase": "random"}
    )
    losses = model.train()(*mm_parts.batch(8), mode="loss")
    assert losses["kept_frames"] == 2 and losses["active_stages"] == 2


def test_a_fixed_policy_is_that_of_all_clips_in_training_and_in_test():
    model = build(
        selector=None, fixed_policy="0110/10100", training={"phase": "fixed"},
        testing={"policy": "fixed"},
    )  # fmt: skip
    inputs, samples = mm_parts.batch(3, views=2)
    losses = model.train()(inputs, samples, mode="loss")
    assert losses["kept_frames"] == 2 and losses["active_stages"] == 2
    out = model.eval()(inputs, samples, mode="predict")
    for sample in out:
        assert sample.policy_frames.tolist() == 2 * [[False, True, True, False]]
        assert sample.policy_stages.tolist() == 2 * [[True, False, True, False, False]]
        assert sample.selector_macs == 0
    policy = Policy(out[0].policy_frames, out[0].policy_stages)
    assert losses["gmacs"].item() == pytest.approx(model.price(policy)[0].item() / 1e9)


def test_a_fixed_policy_keeps_whole_units_of_frames():
    pairs = StagePlan((3, 4, 8, 8), (Stage("a", ("a",)),), 2)
    frames = torch.tensor([[False, False, True, True]])
    assert read_fixed_policy("0011/1", pairs) == Policy(frames, torch.tensor([[True]]))
    with pytest.raises(Ada3DError, match=r"fixed_policy='0111/1': .* whole units of 2 frames"):
        read_fixed_policy("0111/1", pairs)


def test_mixed_precision_keeps_the_policy_in_float32():
    model = build().train()
    inputs, samples = mm_parts.batch(2)
    with torch.autocast("cpu", torch.bfloat16):
        distribution = model.selector(inputs.flatten(0, 1))
        losses = model(inputs, samples, mode="loss")
    assert distribution.frame_logits.dtype == torch.float32
    assert losses["loss_policy"].dtype == torch.float32
    sum(value for key, value in losses.items() if "loss" in key).backward()


def test_checkpoint_of_the_plain_recognizer_is_where_it_starts(tmp_path):
    plain = build_recognizer(mm_parts.recognizer())
    torch.save({"state_dict": plain.state_dict(), "meta": {}}, tmp_path / "plain.pth")
    model = build(recognizer_checkpoint=str(tmp_path / "plain.pth"))
    assert same(plain.state_dict(), model.recognizer.state_dict())
    assert set(model.state_dict()) >= {f"recognizer.{key}" for key in plain.state_dict()}


def test_distillation_is_nothing_where_the_pupil_is_the_teacher(tmp_path):
    """Full policies, the teacher's weights, evaluation mode: both scores are the same; other
    policies differ, and only the recognizer learns from that."""
    plain = build_recognizer(mm_parts.recognizer())
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    model = build(recognizer_checkpoint=str(tmp_path / "plain.pth"), training={"distill": 0.5})
    assert not [key for key in model.state_dict() if "teacher" in key]
    inputs, samples = mm_parts.batch()
    before = torch.get_rng_state()
    model.teacher.scores(inputs.flatten(0, 1))
    assert torch.equal(torch.get_rng_state(), before)  # its making draws nothing
    usage = {"frames": 1.0, "stages": 1.0}
    for share, exact in ((1.0, True), (0.5, False)):
        model.random_policy = {key: share * value for key, value in usage.items()}
        model.set_training_phase("random")
        model.eval()
        loss = model(inputs, samples, mode="loss")["loss_distill"]
        assert (loss.item() < 1e-5) == exact
    loss.backward()
    assert any(p.grad is not None and p.grad.any() for p in model.recognizer.parameters())
    model.set_training_phase("joint")
    assert "loss_distill" in model.train()(inputs, samples, mode="loss")
    model.set_training_phase("selection")  # the recognizer is frozen
    assert "loss_distill" not in model(inputs, samples, mode="loss")


def test_distillation_of_label_sets(tmp_path):
    head = {"multi_class": True, "loss_cls": {"type": "BCELossWithLogits"}}
    plain = build_recognizer(mm_parts.recognizer(**head))
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    model = build(
        head=head, recognizer_checkpoint=str(tmp_path / "plain.pth"),
        training={"distill": 1.0, "phase": "random"},
    ).train()  # fmt: skip
    loss = model(*mm_parts.batch(multi_label=True), mode="loss")["loss_distill"]
    assert loss.isfinite() and loss > 0


def test_distillation_needs_a_teacher():
    model = build(training={"distill": 1.0, "phase": "random"})
    with pytest.raises(Ada3DError, match="recognizer_checkpoint"):
        model(*mm_parts.batch(), mode="loss")


def test_mmaction_backbones_select_too():
    backbone = {"type": "MobileNetV2", "widen_factor": 0.25}
    model = build(selector={"backbone": backbone, "input_size": 32})
    assert model.selector(torch.randn(1, *mm_parts.CLIP_SHAPE)).frame_probs.shape == (1, 4)
    assert model.selector_macs > 0


def test_a_selector_is_transferred_frozen_to_other_classes(tmp_path):
    """Table 3: policies learned on some classes, with a recognizer for others."""
    source = build(head={"num_classes": 7})
    torch.save({"state_dict": source.state_dict()}, tmp_path / "source.pth")
    torch.manual_seed(1)
    model = MODELS.build(mm_parts.model(selector_checkpoint=str(tmp_path / "source.pth")))
    model.init_weights()
    model.train().set_training_phase("transfer")
    inputs, samples = mm_parts.batch(4)
    assert torch.equal(
        model.selector(inputs.flatten(0, 1)).frame_logits,
        source.eval().selector(inputs.flatten(0, 1)).frame_logits,
    )
    weights, kept = state(model.recognizer), state(model.selector)
    losses = model(inputs, samples, mode="loss")
    assert "loss_policy" not in losses and losses["gmacs"] > 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses["loss_cls"].backward()
    optimizer.step()
    assert same(kept, state(model.selector)) and not same(weights, state(model.recognizer))


def test_a_selector_that_does_not_fit_is_refused(tmp_path):
    torch.save(
        build(selector=mm_parts.selector(head={"type": "FrameHead", "hidden": 12})).state_dict(),
        tmp_path / "other.pth",
    )
    with pytest.raises(Ada3DError, match=r"does not fit .*head.embed.0.weight \[12, 6\] instead"):
        build(selector_checkpoint=str(tmp_path / "other.pth"))
    plain = build_recognizer(mm_parts.recognizer())
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    with pytest.raises(Ada3DError, match="holds no selection network"):
        build(selector_checkpoint=str(tmp_path / "plain.pth"))
    with pytest.raises(Ada3DError, match="selector_checkpoint needs selector="):
        build(selector=None, selector_checkpoint=str(tmp_path / "other.pth"))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"recognizer": {"type": "Recognizer3D"}}, "backbone"),
        ({"recognizer": {"backbone": {"type": "ResNet3d"}}}, "type"),
        ({"recognizer": "absent.py"}, "absent.py"),
        ({"recognizer_checkpoint": "absent.pth"}, "absent.pth"),
        ({"selector": None, "training": {"phase": "joint"}}, "needs selector"),
        ({"training": {"phase": "phase9"}}, "phase9"),
        ({"testing": {"policy": "best"}}, "best"),
        ({"testing": {"policy": "recorded"}}, "policy_file"),
        ({"testing": {"policy": "fixed"}}, "testing.policy: 'fixed' needs model.fixed_policy"),
        ({"training": {"phase": "fixed"}}, "training phase: 'fixed' needs model.fixed_policy"),
        ({"fixed_policy": "1011"}, "fixed_policy='1011'; expected a bit for each frame"),
        ({"fixed_policy": "0000/11111"}, "of which one at least is 1"),
        ({"fixed_policy": "4/11111"}, "fixed_policy='4/11111'; expected a bit for each frame"),
        ({"fixed_policy": "10110/11111"}, "takes 4 bits, a slash and 5 bits, such as 1111/11111"),
        ({"testing": {"polciy": "full"}}, "testing: there is no 'polciy'; there are policy,"),
        ({"random_part": "clips"}, "random_part .clips.; there are none, frames, stages"),
        ({"testing": {"greedy": "best"}}, "greedy 'best'; there are threshold, count, systematic"),
        ({"objective": {"baseline": "none"}}, "baseline"),
        ({"training": {"distill": -1.0}}, "distill"),
        ({"training": {"classify": -1.0}}, "classify=-1.0"),
        (
            {"training": {"classify": 1.0}, "selector": mm_parts.selector()},
            "classify needs selector.pretrain",
        ),
        ({"testing": {"predict_with": "both"}}, "predict_with='both' needs training.classify"),
        (
            {"testing": {"predict_with": "all"}},
            "predict_with 'all'; there are recognizer, both, selector",
        ),
        ({"training": {"distill_temperature": 0.0}}, "distill_temperature"),
        ({"training": {"distill": float("nan")}}, "distill=nan"),
        ({"training": {"warmup_full": 2}}, "warmup_full=2; .* at least 0 and at most 1"),
        ({"testing": {"threshold": float("nan")}}, "threshold=nan"),
        ({"objective": {"gamma": -5}}, "gamma=-5; expected a finite number at least 0"),
        ({"selector": {"backbone": {"type": "torchvision.absent"}}}, "absent"),
        ({"selector": {"backbone": {"type": "NoSuchNet"}}}, "NoSuchNet"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(Ada3DError, match=message):
        build(**options)


def test_2d_recognizer_is_refused():
    recognizer = {
        "type": "Recognizer2D",
        "backbone": {"type": "ResNet", "depth": 18, "pretrained": None},
        "cls_head": {"type": "TSNHead", "num_classes": 4, "in_channels": 512},
    }
    with pytest.raises(Ada3DError, match="single frames"):
        build(recognizer=recognizer)


def test_checkpoint_for_other_classes_names_the_tensors(tmp_path):
    other = build_recognizer(mm_parts.recognizer(num_classes=9))
    torch.save(other.state_dict(), tmp_path / "other.pth")
    with pytest.raises(Ada3DError, match=r"fc_cls.*\[9, 32\] instead of \[4, 32\]"):
        build(recognizer_checkpoint=str(tmp_path / "other.pth"))


@MODELS.register_module()
class NextClip(BaseMiniBatchBlending):
    """Blending that leaves of each clip nothing and of the next one everything."""

    def do_blending(self, imgs, label):
        return imgs.roll(-1, 0), label.roll(-1, 0).float()


def blending_model(phase, blending, tmp_path):
    torch.manual_seed(0)
    torch.save(build_recognizer(mm_parts.recognizer()).state_dict(), tmp_path / "plain.pth")
    config = mm_parts.model(
        recognizer_checkpoint=str(tmp_path / "plain.pth"),
        training={"phase": phase, "distill": 1.0},
    )
    preprocessor = config["recognizer"]["data_preprocessor"]
    preprocessor["blending"] = (
        None if not blending else dict(type="NextClip", num_classes=mm_parts.CLASSES)
    )
    torch.manual_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    return model.train()


def losses_of(model, inputs, samples):
    data = model.data_preprocessor({"inputs": list(inputs), "data_samples": samples}, training=True)
    torch.manual_seed(1)
    return model(**data, mode="loss")


@pytest.mark.parametrize("phase", ["warmup", "random"])
def test_the_recognizer_alone_learns_from_blended_clips(phase, tmp_path):
    """The same as from the clips and labels that blending makes, under the same policies."""
    inputs, samples = mm_parts.batch(3)
    losses = losses_of(blending_model(phase, True, tmp_path), inputs, samples)
    assert [sample.gt_label.tolist() for sample in samples] == [[0], [1], [2]]
    as_they_are = losses_of(blending_model(phase, False, tmp_path), inputs, samples)
    others = inputs.roll(-1, 0), samples[1:] + samples[:1]
    expected = losses_of(blending_model(phase, False, tmp_path), *others)
    for name in ("loss_cls", "loss_distill"):
        torch.testing.assert_close(losses[name], expected[name])
        assert not torch.allclose(losses[name], as_they_are[name])
    if phase == "warmup":  # the selection network's classifier sees clips as they are
        torch.testing.assert_close(losses["loss_classifier"], as_they_are["loss_classifier"])


@pytest.mark.parametrize("phase", ["pretrain", "selection", "joint"])
def test_policies_are_learned_from_clips_as_they_are(phase, tmp_path):
    inputs, samples = mm_parts.batch(3)
    losses = losses_of(blending_model(phase, True, tmp_path), inputs, samples)
    as_they_are = losses_of(blending_model(phase, False, tmp_path), inputs, samples)
    assert losses.keys() == as_they_are.keys()
    for name, value in losses.items():
        torch.testing.assert_close(value, as_they_are[name])


def test_inputs_of_another_rank_are_named():
    with pytest.raises(Ada3DError, match="FormatShape"):
        build()(torch.randn(2, *mm_parts.CLIP_SHAPE))


@pytest.fixture
def process_group(tmp_path):
    """A group of one process: DistributedDataParallel's rules hold in it as in any other."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("phase", ["warmup", "selection", "joint", "transfer", "random", "fixed"])
def test_what_learns_is_the_same_under_distributed_training(phase, process_group):
    """Zeros instead of no gradient would let optimizers decay what does not learn."""
    model = build(fixed_policy="0110/10100").train()
    model.set_training_phase(phase)
    wrapped = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
    learns = []
    for network in (model, wrapped, wrapped):  # a second step would wait for a gradient left out
        model.zero_grad()
        losses = network(*mm_parts.batch(3), mode="loss")
        sum(value for key, value in losses.items() if "loss" in key).backward()
        learns.append({name for name, p in model.named_parameters() if p.grad is not None})
    assert learns[0] and learns[0] == learns[1] == learns[2]
    frozen = {"selection": "recognizer."} | dict.fromkeys(
        ("random", "transfer", "fixed"), "selector."
    )
    frozen = frozen.get(phase)
    assert frozen is None or not any(name.startswith(frozen) for name in learns[0])


@pytest.mark.parametrize("part", ["frames", "stages"])
def test_a_random_part_is_drawn_and_not_learned(part):
    usage = {"frames": 0.5, "stages": 0.4}
    model = build(random_part=part, random_policy=usage).train()
    model.set_training_phase("selection")
    heads = model.selector.head
    outs = {"frames": heads.frame_out, "stages": heads.stage_out}
    losses = model(*mm_parts.batch(6), mode="loss")
    losses["loss_policy"].backward()
    assert losses["kept_frames" if part == "frames" else "active_stages"] == 2
    for name, layer in outs.items():
        assert layer.bias.grad.any() == (name != part)
    inputs, _ = mm_parts.batch(6)
    chosen = model.eval().choose_policy(inputs.flatten(0, 1))
    used = {"frames": chosen.num_frames, "stages": chosen.num_stages}
    assert used[part].unique().tolist() == [2]
