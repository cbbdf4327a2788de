"""Clips that exit: scores, prices and records of those that need no recognizer."""

import copy

import mm_parts
import oracle
import pytest
import torch
from mmaction.registry import MODELS

import ada3d_fx.mm  # noqa: F401  registers the model
from ada3d_fx import Ada3DError, Policy
from ada3d_fx.exits import certainty, log_odds
from ada3d_fx.mm.build import build_recognizer
from ada3d_fx.report import records

BOTH = {"training": {"classify": 1.0}, "testing": {"predict_with": "both"}}
EXACT = {"rtol": 0, "atol": 1e-9}


def build(exit=None, head=None, testing=None, **options):
    """A model of policies and confidences that differ from clip to clip."""
    torch.manual_seed(0)
    parts = {**BOTH, "testing": {**BOTH["testing"], **(testing or {})}, **options}
    model = MODELS.build(mm_parts.model(head, exit=exit, **parts))
    model.init_weights()
    with torch.no_grad():
        for parameter in model.selector.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape))
    return model.eval()


def between(model, clips, exiting):
    """A confidence that so many of the clips exceed."""
    with torch.no_grad():
        classes = model.class_scores(model.selector.frame_features(clips))
    probs = classes.double().softmax(1).amax(1).sort(descending=True).values
    assert probs.unique().numel() == len(probs)
    return float((probs[exiting - 1] + probs[exiting]) / 2)


@pytest.fixture(scope="module")
def six():
    return mm_parts.batch(3, views=2)


def seen_by(recognizer):
    """How many clips each call of the recognizer gets, from now on."""
    sizes = []
    recognizer.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    return sizes


@pytest.mark.parametrize("exiting", [0, 1, 3, 5, 6])
@pytest.mark.parametrize("pretrain", ["frame", "clip"])
def test_scores_are_those_of_the_oracle_clip_by_clip(exiting, pretrain):
    model = build(selector=mm_parts.selector(pretrain=pretrain)).double()
    clips = mm_parts.batch(6)[0].flatten(0, 1).double()
    model.exit = {0: 1.0, 6: 1e-6}.get(exiting) or between(model, clips, exiting)
    plain = build_recognizer(mm_parts.recognizer()).eval().double()
    plain.load_state_dict(model.recognizer.state_dict())
    sizes = seen_by(model.recognizer)
    with torch.no_grad():
        scored = model.score(clips)
        policy = model.choose_policy(clips)
        scores, exited = oracle.scores_with_exits(
            plain, model.plan, model.selector, clips, policy, model.exit,
            lambda net, x: net.cls_head(net.backbone(x)),
        )  # fmt: skip
    torch.testing.assert_close(scored.scores, scores, **EXACT)
    assert scored.exited.tolist() == exited and sum(exited) == exiting
    assert sizes == ([6 - exiting] if exiting < 6 else [])
    assert torch.equal(scored.policy.frames, policy.frames[~scored.exited])


def test_a_clip_is_as_if_alone(six):
    model = build().double()
    clips = six[0].flatten(0, 1).double()
    model.exit = between(model, clips, 3)
    with torch.no_grad():
        whole = model.score(clips)
        alone = [model.score(clip[None]) for clip in clips]
    torch.testing.assert_close(whole.scores, torch.cat([one.scores for one in alone]), **EXACT)
    assert torch.equal(whole.frames, torch.cat([one.frames for one in alone]))
    assert torch.equal(whole.exited, torch.cat([one.exited for one in alone]))


@pytest.mark.parametrize("average", ["prob", "score", None])
def test_samples_tell_which_views_exited_and_what_they_cost(six, average):
    model = build(head={"average_clips": average})
    inputs, samples = six
    clips = inputs.flatten(0, 1)
    model.exit = between(model, clips, 3)
    with torch.no_grad():
        scored = model.score(clips)
        out = model(inputs, copy.deepcopy(samples), mode="predict")
        assert torch.equal(model(inputs), scored.scores)
    frames = torch.cat([sample.policy_frames for sample in out])
    macs = torch.cat([sample.recognizer_macs for sample in out])
    assert torch.equal(~frames.any(1), scored.exited) and scored.exited.sum() == 3
    assert not torch.cat([sample.policy_stages for sample in out])[scored.exited].any()
    assert torch.equal(macs[~scored.exited], model.price(scored.policy))
    assert not macs[scored.exited].any()
    assert {sample.selector_macs for sample in out} == {model.selector_macs}
    by_view = scored.scores.unflatten(0, (3, 2))
    predicted = torch.stack([sample.pred_score for sample in out])
    expected = {"prob": by_view.softmax(2).mean(1), "score": by_view.mean(1), None: by_view}
    torch.testing.assert_close(predicted, expected[average])


def test_an_exit_costs_nothing_in_the_reward(six):
    """R(u) + R(v) of eq. 4 with O(u) = O(v) = 0: 2 where the prediction is right, else -2 gamma."""
    inputs, samples = six
    out = build(exit=1e-6)(inputs, copy.deepcopy(samples), mode="predict")
    for sample in out:
        right = int(sample.pred_score.argmax()) == int(sample.gt_label)
        assert sample.reward == (2.0 if right else -2.0)


def test_all_clips_exit_like_a_selection_network_alone(six):
    inputs, samples = six
    all_exit = build(exit=1e-6)
    alone = build(testing={"predict_with": "selector"})
    sizes = seen_by(all_exit.recognizer), seen_by(alone.recognizer)
    with torch.no_grad():
        assert torch.equal(all_exit(inputs), alone(inputs))
        out = alone(inputs, copy.deepcopy(samples), mode="predict")
    assert sizes == ([], []) and not any(sample.policy_frames.any() for sample in out)


def test_no_clip_exits_at_one(six):
    inputs, _ = six
    with torch.no_grad():
        assert torch.equal(build(exit=1.0)(inputs), build()(inputs))


def test_training_knows_no_exits():
    inputs, samples = mm_parts.batch(4)
    losses = []
    for exit in (None, 1e-6):
        model = build(exit=exit)
        model.set_training_phase("joint")
        model.train()
        torch.manual_seed(5)
        losses.append(model(inputs, samples, mode="loss"))
    assert losses[0].keys() == losses[1].keys()
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])


@pytest.mark.parametrize("policy", ["full", "random"])
def test_clips_exit_whatever_the_policy_of_the_others(six, policy):
    model = build(testing={"policy": policy})
    clips = six[0].flatten(0, 1)
    model.exit = between(model, clips, 2)
    torch.manual_seed(3)
    with torch.no_grad():
        scored = model.score(clips)
        torch.manual_seed(3)
        same = model.choose_policy(clips)
    assert int(scored.exited.sum()) == 2
    assert scored.policy == same[~scored.exited]  # drawn for all, so for the others as without


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_recorded_exits_are_taken_again(six, tmp_path, kind):
    """In chunks of views too, and whatever the threshold is now."""
    model = build()
    inputs, samples = six
    model.exit = between(model, inputs.flatten(0, 1), 3)
    path = tmp_path / f"p.{kind}"
    with torch.no_grad():
        out = model(inputs, copy.deepcopy(samples), mode="predict")
        rows = [
            {**dict.fromkeys(records.POLICY_FIELDS, 0), "video": "x", **records.policy_words(u, v)}
            for sample in out
            for u, v in zip(sample.policy_frames, sample.policy_stages)
        ]
        records.write_policies(path, rows)
        recorded = {"policy": "recorded", "policy_file": str(path)}
        for exit in (None, 1e-6):
            again = build(exit=exit, testing=recorded)
            again.max_testing_views = 4
            for _ in range(2):
                again.eval()
                replayed = again(inputs, copy.deepcopy(samples), mode="predict")
                for one, other in zip(out, replayed):
                    torch.testing.assert_close(one.pred_score, other.pred_score)
                    for name in ("policy_frames", "policy_stages", "recognizer_macs"):
                        assert torch.equal(one.get(name), other.get(name))
                    assert one.selector_macs == other.selector_macs
        alone = build(testing={**recorded, "predict_with": "recognizer"})
        with pytest.raises(Ada3DError, match="clips without a frame: they exited"):
            alone(inputs, copy.deepcopy(samples), mode="predict")


def test_records_tell_exits_from_policies():
    frames, stages = torch.tensor([[1, 0], [0, 0], [1, 1]]).bool(), torch.tensor([[1], [0], [0]])
    rows = [records.policy_words(u, v.bool()) for u, v in zip(frames, stages)]
    policy, exited = records.decisions_of(rows)
    assert exited.tolist() == [False, True, False]
    assert policy == Policy(frames[[0, 2]], stages[[0, 2]].bool())
    with pytest.raises(Ada3DError, match="at least one frame"):
        records.policies_of(rows)
    policy, exited = records.decisions_of(rows[1:2])
    assert len(policy) == 0 and policy.frames.shape == (0, 2) and exited.all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"exit": 0}, "model.exit=0; expected a finite number above 0 and at most 1"),
        ({"exit": 1.5}, "model.exit=1.5; expected"),
        ({"exit": float("nan")}, "model.exit=nan; expected"),
        ({"exit": "x"}, "model.exit='x'; expected"),
        ({"exit": 0.9, "testing": {"predict_with": "recognizer"}}, "predict_with='both', not"),
        ({"exit": 0.9, "testing": {"predict_with": "selector"}}, "else all clips exit"),
        ({"exit": 0.9, "training": None}, "predict_with='both' needs training.classify"),
        ({"exit": 0.9, "head": {"multi_class": True}}, "have no most probable class"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(Ada3DError, match=message):
        build(**options)


def test_confidence_is_the_probability_of_the_mean_over_frames(six):
    """Of the scores: those that predict where the clip exits."""
    model = build()
    clips = six[0].flatten(0, 1)
    with torch.no_grad():
        classes = model.class_scores(model.selector.frame_features(clips))
    odds = [log_odds(p) for p in classes.double().softmax(1).amax(1).tolist()]
    torch.testing.assert_close(certainty(classes).tolist(), odds, rtol=0, atol=1e-9)
