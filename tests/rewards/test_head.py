"""The head: its learner against scikit-learn, its losses by hand, its file, and an opened one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from _toy import Toy, jsonl, marked, write_model
from grainline import models, rooms
from grainline.errors import DataError, ModelError, RunError, SpecError
from grainline.features import Features, Passage, Taken
from grainline.reward_training import Plan, train
from grainline.rewards import head_torch as head
from grainline.rewards._parts import Platt
from grainline.rewards._seam import Asked, Desk, Duel


def lesson(rows: int = 400, width: int = 12, aspects: int = 2, seed: int = 0) -> head.Lesson:
    luck = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, width, generator=luck)
    latent = features @ torch.randn(width, aspects, generator=luck) + 0.5
    target = (torch.rand(rows, aspects, generator=luck) < latent.sigmoid()).float()
    weight = torch.randint(0, 3, (rows, aspects), generator=luck).float()
    return head.Lesson(features, target, weight)


# ---------------------------------------------------------------------------------------------------------- learning


def test_a_linear_head_has_scikit_learn_s_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    """At one decay: C = 1 / (decay * sum of weights) of logistic regression with an intercept."""
    from sklearn.linear_model import LogisticRegression

    monkeypatch.setattr(head, "DECAYS", (0.1,))
    taught = lesson(aspects=1)
    found = head.backprop(taught, taught, head.Loss("likelihood"), 0, head.Descent(steps=200))
    weight = taught.weight[:, 0].numpy()
    theirs = LogisticRegression(C=1 / (0.1 * weight.sum()), tol=1e-8, max_iter=1000)
    theirs.fit(taught.features.numpy(), taught.target[:, 0].numpy(), sample_weight=weight)
    assert found.weight[0].tolist() == pytest.approx(theirs.coef_[0].tolist(), abs=1e-3)  # type: ignore[operator]
    assert found.bias.item() == pytest.approx(float(theirs.intercept_[0]), abs=1e-3)  # type: ignore[arg-type]


def test_the_path_of_decays_ends_where_the_held_loss_is_lowest() -> None:
    taught, held = lesson(60, 30, seed=1), lesson(200, 30, seed=1)
    held = head.Lesson(*(part[60:] for part in held))
    loss = head.Loss("likelihood")
    found = head.backprop(taught, held, loss, 0)
    ends = []
    for last in range(1, len(head.DECAYS) + 1):
        network = head.Linear(30, 2)
        for decay in head.DECAYS[:last]:
            head._descend(network, taught, loss, decay, 40)
        with torch.no_grad():
            ends.append(float(loss(network(held.features), held)))
    with torch.no_grad():
        assert float(loss(found(held.features), held)) == pytest.approx(min(ends), abs=1e-6)
    assert min(ends) < ends[-1] - 0.1, "the weakest decay learns the lessons by heart"


def test_losses_by_hand() -> None:
    target, weight = torch.tensor([[1.0], [0.25], [0.0]]), torch.tensor([[1.0], [2.0], [0.0]])
    one = head.Lesson(torch.zeros(3, 1), target, weight)
    latent = torch.tensor([[0.0], [math.log(3.0)], [9.0]])  # sigma: 1/2, 3/4
    wanted = (math.log(2) + 2 * (-0.25 * math.log(3 / 4) - 0.75 * math.log(1 / 4))) / 3
    assert float(head.loss("likelihood", one)(latent, one)) == pytest.approx(wanted)
    wanted = (1.0 + 2 * (math.log(3.0) - 0.25) ** 2) / 3
    assert float(head.loss("squares", one)(latent, one)) == pytest.approx(wanted)
    pair = head.Lesson(torch.zeros(4, 1), torch.tensor([[1.0], [1.0], [0.0], [0.0]]), torch.tensor([[1.0], [3.0]] * 2))
    latent = torch.tensor([[2.0], [0.0], [2.0 - math.log(3.0)], [0.0]])  # won by 3/4 and by 1/2
    wanted = (-math.log(3 / 4) + 3 * math.log(2)) / 4
    assert float(head.loss("pairs", pair)(latent, pair)) == pytest.approx(wanted)


def test_an_ordinal_head_begins_at_the_data_s_average() -> None:
    """Levels 0, 1/2, 1 at 1 : 2 : 1; latent 0 passes them as often as the data do (with half a row beside)."""
    target = torch.tensor([0.0, 0.5, 0.5, 1.0] * 100)[:, None]
    one = head.Lesson(torch.zeros(400, 1), target, torch.ones(400, 1))
    loss = head.loss("ordinal", one)
    assert loss.levels is not None
    assert loss.levels.tolist() == [0, 0.5]
    assert loss._passed(torch.zeros(1, 1)).sigmoid()[0, 0].tolist() == pytest.approx([300.5 / 401, 100.5 / 401])
    wanted = -(0.75 * math.log(300.5 / 401) + 0.25 * math.log(100.5 / 401)) / 2 * 2
    assert float(loss(torch.zeros(400, 1), one)) == pytest.approx(wanted, rel=1e-3)
    assert float(loss.log_odds(torch.zeros(1, 1)).sigmoid()) == pytest.approx(0.5)


def test_folds_keep_prompts_together() -> None:
    groups = [f"prompt {n % 37}" for n in range(200)]
    fold = head.folds(groups, 5, seed=3)
    assert len({(g, int(f)) for g, f in zip(groups, fold, strict=True)}) == 37
    assert sorted(fold.unique().tolist()) == [0, 1, 2, 3, 4]
    assert not torch.equal(fold, head.folds(groups, 5, seed=4))


def test_what_is_said_of_unseen_rows_is_of_the_member_that_has_not_seen_them() -> None:
    """Targets of pure luck cannot be said of rows not seen, and can be of rows learnt by heart."""
    luck = torch.Generator().manual_seed(0)
    target = (torch.rand(200, 1, generator=luck) < 0.5).float()
    random_lesson = head.Lesson(torch.randn(200, 100, generator=luck), target, torch.ones(200, 1))

    def by_heart(taught: head.Lesson, held: head.Lesson, loss: head.Loss, seed: int) -> Any:
        network = head.Linear(100, 1)
        head._descend(network, taught, loss, 1e-4, 100)
        return network.eval()

    found = head.teach(random_lesson, head.folds(list(range(200)), 5, 0), head.Loss("likelihood"), by_heart, seed=0)
    right = [
        ((said > 0) == (target > 0.5)).float().mean()
        for said in (found.unseen_NA, found.members[0](random_lesson.features))
    ]
    assert 0.35 < float(right[0]) < 0.65
    assert float(right[1]) > 0.85


def test_one_level_is_no_order() -> None:
    with pytest.raises(DataError, match="judged alike"):
        head.loss("ordinal", head.Lesson(torch.zeros(3, 1), torch.ones(3, 1), torch.ones(3, 1)))


def test_calibration_of_pairs_has_no_offset_and_of_judgements_is_right_on_average() -> None:
    one = lesson(2000)
    said = torch.randn(2000, 2, generator=torch.Generator().manual_seed(1)) * 4
    for platt, a in zip(head.calibrated(head.Loss("likelihood"), said, one), (0, 1), strict=True):
        w, y = one.weight[:, a], one.target[:, a]
        after = torch.tensor([platt(float(x)) for x in said[:, a]])
        assert float((w * after).sum() / w.sum()) == pytest.approx(float((w * y).sum() / w.sum()), abs=2e-3)
    pairs = head.Lesson(one.features, torch.zeros(2000, 1), torch.ones(2000, 1))
    strength = torch.cat([torch.randn(1000, 1) + 1, torch.randn(1000, 1)])
    (platt,) = head.calibrated(head.Loss("pairs"), strength, pairs)
    assert platt.offset == 0
    assert platt.slope == pytest.approx(1.0, abs=0.25)  # log odds of N(1, 1) against N(0, 1) apart by d: d


# ------------------------------------------------------------------------------------------------------------- a file


def trained(loss: head.Loss, learning: str = "backprop") -> head.Trained:
    one = lesson(60, 6)
    options = {"layers": (4,), "epochs": 1} if learning == "equilibrium" else {}
    members = [head.learner(learning, options)(one, one, loss, seed) for seed in (0, 1)]
    return head.Trained(head.Scale(torch.ones(6), torch.full((6,), 2.0)), loss, members, (Platt(2.0, 1.0), Platt()))


@pytest.mark.parametrize("learning", sorted(head.LEARNERS))
@pytest.mark.parametrize("name", ["likelihood", "squares", "ordinal"])
def test_a_head_comes_back_as_it_was_saved(name: Any, learning: str, tmp_path: Path) -> None:
    made = trained(head.loss(name, lesson(60, 6)), learning)
    head.save(tmp_path / "head", made, {"learning": learning})
    told = json.loads((tmp_path / "head" / "head.json").read_text())
    features = torch.randn(5, 6)
    again = head.load(tmp_path / "head", told)
    assert torch.equal(made(features), again(features))
    assert made(features).shape == (2, 5, 2)
    (tmp_path / "head" / "head.safetensors").write_bytes(b"broken")
    with pytest.raises(RunError, match="the head cannot be read"):
        head.load(tmp_path / "head", told)


# ------------------------------------------------------------------------------------------------------ an opened one


@pytest.fixture(scope="module")
def taught(toy_world: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head on the toy model's hidden states: their mean, for nothing random has taught the last one of the others."""
    root = tmp_path_factory.mktemp("heads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAINLINE_CACHE", str(root / "cache"))
        train(
            jsonl(root / "rows.jsonl", marked(60)),
            root / "head",
            Plan(pool="mean", model=toy_world.model, members=3),
        )
    return root / "head"


def open_(text: str, folder: Path) -> Any:
    return rooms.parse("rewards", text).open(Desk(folder))


def test_an_opened_head_is_its_parts(taught: Path, toy: Toy, tmp_path: Path) -> None:
    """By hand: features, then members, their mean and deviation, calibrated before that."""
    asked = Asked(
        ({"role": "user", "content": "tell me of 99"},),
        "Sure kind glad warm. Cold bad never rude.",
        ((0, 21), (21, 41)),
        ("tone", ""),
    )
    with open_(f"head:path={taught}", tmp_path) as reward:
        (scores,) = reward.score([asked])
        assert reward.facts["base"]["name"] == toy.model
    told = json.loads((taught / "head.json").read_text())
    (read,) = Features(models.load(toy.model), None, Taken(pool="mean"))(
        [Passage(asked.prompt, asked.answer, asked.pieces)]
    )
    each = head.load(taught, told)(read)[..., 0]
    assert [row[0] for row in scores.value] == pytest.approx(each.mean(0).tolist(), abs=1e-6)
    assert [row[0] for row in scores.spread] == pytest.approx(each.std(0).tolist(), abs=1e-6)
    assert all(value[0] == value[1] for value in scores.value), "of one aspect the mean is that aspect"
    assert scores.value[0][0] > scores.value[1][0] + 0.3, "warm words and cold ones"


def test_an_answer_as_a_whole_is_the_mean_of_its_sentences(taught: Path, toy: Toy, tmp_path: Path) -> None:
    """Of a head that was taught on sentences; the spread is that of the members' means."""
    chat, answer = ({"role": "user", "content": "tell me of 7"},), "Sure kind glad warm. Cold bad never rude. "
    with open_(f"head:path={taught}", tmp_path) as reward:
        apart, whole = reward.score([Asked(chat, answer, ((0, 21), (21, 42))), Asked(chat, answer)])
    assert len(whole.value) == 1
    assert whole.value[0][0] == pytest.approx((apart.value[0][0] + apart.value[1][0]) / 2, abs=1e-6)
    assert whole.spread[0][0] < max(row[0] for row in apart.spread)


def test_it_knows_how_good_it_is(taught: Path) -> None:
    unseen = json.loads((taught / "head.json").read_text())["unseen"]
    assert unseen["tone/auc_low"] > 0.9
    assert unseen["tone/calibration"] < 0.1


def test_option_path(taught: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no head is named"), open_("head", tmp_path):
        pass
    with pytest.raises(RunError, match="no head"), open_(f"head:path={tmp_path}", tmp_path):
        pass
    (tmp_path / "head.json").write_text('{"format": 7}')
    with pytest.raises(RunError, match="a head of format 7, not 1"), open_(f"head:path={tmp_path}", tmp_path):
        pass


def test_option_model(taught: Path, toy: Toy, tmp_path: Path) -> None:
    """The language model may have moved; another one is not taken."""
    moved, other = tmp_path / "moved", tmp_path / "other"
    write_model(moved)
    write_model(other, initializer_range=0.1)
    asked = [Asked(({"role": "user", "content": "hello"},), "Yes kind.")]
    with open_(f"head:path={taught}", tmp_path) as reward, open_(f"head:path={taught},model={moved}", tmp_path) as same:
        assert list(reward.score(asked)) == list(same.score(asked))
    not_these = pytest.raises(ModelError, match="not the weights that the head was taught on")
    with not_these, open_(f"head:path={taught},model={other}", tmp_path):
        pass


def test_option_device(taught: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="device nowhere"), open_(f"head:path={taught},device=nowhere", tmp_path):
        pass


def test_option_max_tokens(taught: Path, toy: Toy, tmp_path: Path) -> None:
    """One answer a forward says the same, in more files."""
    asked = [
        Asked(({"role": "user", "content": f"hello {n}"},), "Yes kind. No.", ((0, 10), (10, 13))) for n in range(4)
    ]
    found = []
    for name, option in (("together", ""), ("alone", ",max_tokens=1")):
        with open_(f"head:path={taught}{option}", tmp_path / name) as reward:
            found.append([row[0] for scores in reward.score(asked) for row in scores.value])
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    files = [len(list((tmp_path / name).rglob("*.safetensors"))) for name in ("together", "alone")]
    assert files[0] < files[1] == 4


def test_an_aspect_that_it_does_not_know_is_refused_and_an_answer_that_cannot_be_read_is_not_judged(
    taught: Path, toy: Toy, tmp_path: Path
) -> None:
    with open_(f"head:path={taught}", tmp_path) as reward:
        with pytest.raises(SpecError, match=r"no aspect 'tune'. Did you mean 'tone'"):
            list(reward.score([Asked("p", "yes", (), ("tune",))]))
        (scores,) = reward.score([Asked("", "yes", ((0, 1), (1, 3)), ("tone", ""))])
    assert [[math.isnan(x) for x in row] for row in scores.value] == [[True, True]] * 2


def test_a_member_that_cannot_say_leaves_the_piece_to_the_others(taught: Path, tmp_path: Path) -> None:
    """As in an ensemble: NaN takes part in nothing, and one opinion cannot disagree."""
    said_MSA = torch.tensor([[[0.2], [math.nan]], [[0.4], [math.nan]], [[math.nan], [0.5]]])
    asked = Asked(({"role": "user", "content": "hello"},), "Yes kind. No.", ((0, 10), (10, 13)), ("tone",))
    with open_(f"head:path={taught}", tmp_path) as reward:
        reward._trained = lambda features_SD: said_MSA
        (scores,) = reward.score([asked])
        (whole,) = reward.score([asked._replace(segments=())])
    assert scores.value == ((pytest.approx(0.3),), (pytest.approx(0.5),))
    assert scores.spread[0][0] == pytest.approx(0.2 / math.sqrt(2))
    assert math.isnan(scores.spread[1][0])
    assert whole.value[0][0] == pytest.approx((0.2 + 0.4 + 0.5) / 3)


def test_duels_of_judged_aspects_and_of_strengths(taught: Path, toy: Toy, tmp_path: Path) -> None:
    chat = ({"role": "user", "content": "hello"},)
    duel = Duel(chat, "Yes kind glad.", "No rude bad.")
    with open_(f"head:path={taught}", tmp_path) as reward:
        assert list(reward.compare([duel, Duel(chat, duel.second, duel.first)])) == [1.0, 0.0]
    train(toy.pairs, tmp_path / "pairs", Plan(pool="mean", model=toy.model, members=3, learn="pairs"))
    assert rooms.parse("rewards", f"head:path={tmp_path / 'pairs'}").between is None
    assert rooms.parse("rewards", f"head:path={taught}").between == (0, 1)
    with open_(f"head:path={tmp_path / 'pairs'}", tmp_path) as reward:
        first, second = (
            scores.value[0][0] for scores in reward.score([Asked(chat, duel.first), Asked(chat, duel.second)])
        )
        (won,) = reward.compare([duel])
    assert won == pytest.approx(1 / (1 + math.exp(second - first)))
    assert won > 0.8
