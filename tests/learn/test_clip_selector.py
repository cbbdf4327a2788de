"""Choosing the clips of a long video: what is looked at, what it costs, that it learns."""

import pytest
import torch

from ada3d_fx import Ada3DError
from ada3d_fx.learn.clip_selector import ClipSelector, clip_loss, previews

CLIPS, CLASSES = 5, 4


def videos(n, seed=0):
    """Videos in which one clip at a random place shows the class; a preview tells which one it is,
    but not the class. The other clips vote for another class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    place = torch.randint(CLIPS, (n,), generator=generator)
    wrong = (labels + 1 + torch.randint(CLASSES - 1, (n,), generator=generator)) % CLASSES
    scores = 3 * torch.nn.functional.one_hot(wrong, CLASSES).float()[:, None].repeat(1, CLIPS, 1)
    scores[torch.arange(n), place] = 5 * torch.nn.functional.one_hot(labels, CLASSES).float()
    preview = torch.randn(n, CLIPS, 6, generator=generator)
    preview[torch.arange(n), place, 0] += 4
    return preview, scores, labels


def cached(scores):
    return lambda rows, clips: scores[rows, clips]


def test_each_clip_is_looked_at_once_and_never_after_the_stop():
    torch.manual_seed(0)
    preview, scores, _ = videos(20)
    calls = []

    def score_clips(rows, clips):
        calls.append((rows.tolist(), clips.tolist()))
        return scores[rows, clips]

    rollout = ClipSelector(6, CLASSES).train()(preview, score_clips)
    for video, order in enumerate(rollout.order.tolist()):
        kept = [clip for clip in order if clip >= 0]
        assert order == kept + [-1] * (len(order) - len(kept))
        assert len(set(kept)) == len(kept) >= 1
        looked = [clips[rows.index(video)] for rows, clips in calls if video in rows]
        assert looked == kept
    assert rollout.num_clips.tolist() == [
        sum(c >= 0 for c in order) for order in rollout.order.tolist()
    ]
    torch.testing.assert_close(rollout.probs.sum(1), torch.ones(20))


def test_a_video_is_walked_as_if_alone():
    torch.manual_seed(0)
    selector = ClipSelector(6, CLASSES).double().eval()
    preview, scores, _ = (value.double() for value in videos(7))
    together = selector(preview, cached(scores), threshold=0.49)
    for video in range(7):
        alone = selector(preview[[video]], cached(scores[[video]]), threshold=0.49)
        steps = alone.order.shape[1]
        assert torch.equal(together.order[[video], :steps], alone.order)
        torch.testing.assert_close(together.probs[[video]], alone.probs, rtol=0, atol=1e-9)


def test_the_dial_and_the_limit_hold():
    torch.manual_seed(0)
    selector, (preview, scores, _) = ClipSelector(6, CLASSES).eval(), videos(30)
    used = [
        selector(preview, cached(scores), threshold=t).num_clips.sum() for t in (0.3, 0.5, 0.9999)
    ]
    assert used[0] <= used[1] <= used[2] == 30 * CLIPS
    assert (selector(preview, cached(scores), max_clips=2, threshold=1.0).num_clips == 2).all()


def test_log_probability_is_that_of_the_walk():
    """Over every rollout of one video with two clips the probabilities sum to one."""
    torch.manual_seed(0)
    selector = ClipSelector(6, CLASSES).double().train()
    preview, scores, _ = videos(1)
    preview, scores = preview[:, :2].double(), scores[:, :2].double()
    found = {}
    for seed in range(60):
        rollout = selector(preview, cached(scores), generator=torch.Generator().manual_seed(seed))
        key = tuple(c for c in rollout.order[0].tolist() if c >= 0)
        found.setdefault(key, rollout.log_prob.exp().item())
    assert set(found) == {(0,), (1,), (0, 1), (1, 0)}
    assert sum(found.values()) == pytest.approx(1, abs=1e-9)


def test_it_learns_to_find_the_clip_that_shows_the_class_and_to_stop():
    torch.manual_seed(0)
    preview, scores, labels = videos(1500)
    selector = ClipSelector(6, CLASSES)
    optimizer = torch.optim.Adam(selector.parameters(), lr=3e-3)
    for step in range(300):
        part = torch.randint(len(labels), (64,), generator=torch.Generator().manual_seed(step))
        loss, _ = clip_loss(selector, preview[part], scores[part], labels[part], cost=0.3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    preview, scores, labels = videos(400, seed=1)
    with torch.no_grad():
        rollout = selector.eval()(preview, cached(scores))
    right = (rollout.probs.argmax(1) == labels).float().mean()
    vanilla = (scores.softmax(2).mean(1).argmax(1) == labels).float().mean()
    assert vanilla < 0.1  # the mean of all clips is outvoted
    assert right > 0.9 and rollout.num_clips.float().mean() < 2


def test_previews_are_means_and_changes():
    features = torch.tensor([[[0.0, 1.0], [2.0, 1.0]]])
    assert previews(features).tolist() == [[1.0, 1.0, 2.0, 0.0]]
    assert previews(features[:, :1]).tolist() == [[0.0, 1.0, 0.0, 0.0]]


def test_one_sample_is_refused():
    preview, scores, labels = videos(2)
    with pytest.raises(Ada3DError, match="samples=1"):
        clip_loss(ClipSelector(6, CLASSES), preview, scores, labels, 0.1, samples=1)
