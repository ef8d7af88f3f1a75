"""Reviews: no more than needed, never twice at once, and a useful answer while nobody can be asked."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from queueproxy.freeze.node import review as review_module
from queueproxy.freeze.node.claims import Claims, Standing, Verdict
from queueproxy.freeze.node.cluster import Cluster
from queueproxy.freeze.node.review import Reviewer
from queueproxy.log import Level, LineWriter, Log
from tests.support.apiserver import ApiServer
from tests.support.knative_pod import knative_pod, merged
from tests.support.tokens import AUDIENCE
from tests.support.waiting import until

pytestmark = pytest.mark.slow  # real servers and clients, real time

POD = knative_pod()
OTHER = knative_pod("other-00001-deployment-7d9f-bcdef", ip="10.244.0.40")


class Scene:
    """A reviewer, its API server, and what it logged."""

    def __init__(self, api: ApiServer, log_path: Path) -> None:
        self.api = api
        self._log_path = log_path
        self._log_file = log_path.open("wb")
        self.log = Log(LineWriter(self._log_file.fileno()), level=Level.DEBUG)

    def run(self, work: Callable[[Reviewer], Awaitable[Any]], **options: Any) -> Any:
        async def inside() -> Any:
            cluster = Cluster(str(self.api.kubeconfig_path))
            reviewer = Reviewer(cluster, AUDIENCE, "node1", self.log, **options)
            try:
                return await work(reviewer)
            finally:
                await reviewer.close()
                await cluster.close()

        return asyncio.run(inside())

    @property
    def logged(self) -> str:
        self.log.close()
        return self._log_path.read_text()

    def close(self) -> None:
        self._log_file.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with ApiServer([POD, OTHER]) as api:
        made = Scene(api, tmp_path / "log")
        yield made
        made.close()


async def verdict(reviewer: Reviewer, token: str) -> Verdict:
    answered: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    reviewer.ask(token, answered.set_result)
    return await answered


@pytest.mark.fz("FZ-125", "FZ-126")
def test_a_good_token_is_reviewed_once_and_then_known(scene: Scene) -> None:
    token = scene.api.mint_token(POD)

    async def work(reviewer: Reviewer) -> tuple[Verdict, Verdict | None, Verdict]:
        assert reviewer.known(token) is None
        return await verdict(reviewer, token), reviewer.known(token), await verdict(reviewer, token)

    first, known, again = scene.run(work)
    assert first.standing is Standing.GOOD and first.claims.uid == POD["metadata"]["uid"]
    assert first == known == again
    assert scene.api.reviews == 1


@pytest.mark.fz("FZ-126")
def test_a_thousand_bad_tokens_cost_no_review(scene: Scene) -> None:
    good = scene.api.mint_token(POD)
    bad = [scene.api.mint_token(POD, "other"), scene.api.mint_token(POD, valid_for=-20), "nonsense", good + "="]
    bad.append(scene.api.mint_token(knative_pod(node="node2")))

    async def work(reviewer: Reviewer) -> set[Standing]:
        seen = {(await verdict(reviewer, bad[turn % len(bad)])).standing for turn in range(1000)}
        return seen | {reviewer.known(token).standing for token in bad}  # type: ignore[union-attr]

    assert scene.run(work) == {Standing.REFUSED}
    assert scene.api.reviews == 0


@pytest.mark.fz("FZ-126")
def test_a_forged_token_is_reviewed_once_in_ten_seconds(scene: Scene) -> None:
    forged = scene.api.mint_token(POD)[:-12] + "AAAAAAAAAAAA"

    async def work(reviewer: Reviewer) -> set[Standing]:
        return {(await verdict(reviewer, forged)).standing for _ in range(20)}

    assert scene.run(work) == {Standing.REFUSED} and scene.api.reviews == 1


@pytest.mark.fz("FZ-125", "FZ-127")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"audiences": None}, id="no audiences"),
        pytest.param({"audiences": ["https://kubernetes.default.svc"]}, id="another audience"),
        pytest.param({"user": {"extra": None}}, id="no pod"),
        pytest.param(
            {"user": {"extra": {"authentication.kubernetes.io/pod-uid": [OTHER["metadata"]["uid"]]}}}, id="another pod"
        ),
        pytest.param({"user": {"username": "system:node:node1"}}, id="another user"),
        pytest.param({"authenticated": False}, id="not authenticated"),
    ],
)
def test_an_answer_that_does_not_confirm_is_a_refusal(scene: Scene, change: dict[str, Any]) -> None:
    scene.api.tamper = lambda review: merged(review, {"status": change})
    token = scene.api.mint_token(POD)
    assert scene.run(lambda reviewer: verdict(reviewer, token)).standing is Standing.REFUSED
    assert "token refused" in scene.logged


@pytest.mark.fz("FZ-126")
def test_callers_with_the_same_token_share_one_review(scene: Scene) -> None:
    token = scene.api.mint_token(POD)

    async def work(reviewer: Reviewer) -> list[Verdict]:
        return list(await asyncio.gather(*(verdict(reviewer, token) for _ in range(30))))

    assert {answer.standing for answer in scene.run(work)} == {Standing.GOOD} and scene.api.reviews == 1


@pytest.mark.fz("FZ-130")
def test_reviews_at_once_are_bounded_and_so_are_those_that_wait(scene: Scene) -> None:
    tokens = [scene.api.mint_token(POD, valid_for=3600 + number) for number in range(400)]

    async def work(reviewer: Reviewer) -> list[Verdict]:
        scene.api.outage("hang")
        answers: list[Verdict] = []
        for token in tokens:
            reviewer.ask(token, answers.append)
        assert f"running={review_module._AT_ONCE} queued={review_module._QUEUED_MAX}" in repr(reviewer)
        refused = len(answers)
        assert refused == 400 - review_module._AT_ONCE - review_module._QUEUED_MAX
        scene.api.restore()
        await until(lambda: len(answers) == 400)
        return answers

    standings = [answer.standing for answer in scene.run(work)]
    assert set(standings) == {Standing.GOOD, Standing.UNKNOWN}
    assert standings.count(Standing.UNKNOWN) == 400 - review_module._AT_ONCE - review_module._QUEUED_MAX


@pytest.mark.fz("FZ-130")
def test_callers_that_share_a_review_are_bounded(scene: Scene) -> None:
    token = scene.api.mint_token(POD)

    async def work(reviewer: Reviewer) -> list[Standing]:
        return [each.standing for each in await asyncio.gather(*(verdict(reviewer, token) for _ in range(100)))]

    standings = scene.run(work)
    assert standings.count(Standing.GOOD) == review_module._SHARING_MAX
    assert standings.count(Standing.UNKNOWN) == 100 - review_module._SHARING_MAX


@pytest.mark.fz("FZ-064")
@pytest.mark.parametrize("kind", ["refuse", "hang", "error", "throttle", "unauthorized", "garbage"])
def test_in_an_outage_an_older_yes_is_stale_and_a_stranger_unknown(scene: Scene, kind: str) -> None:
    mine, strangers = scene.api.mint_token(POD), scene.api.mint_token(OTHER)

    async def work(reviewer: Reviewer) -> list[Verdict]:
        first = await verdict(reviewer, mine)
        scene.api.outage(kind)
        answers = [first, await verdict(reviewer, mine), await verdict(reviewer, strangers)]
        assert reviewer.known(mine) is None
        scene.api.restore()
        return answers

    first, mine_again, unknown = scene.run(work, within=0.5, fresh_for=0.0)  # as if five minutes had passed
    assert (first.standing, mine_again.standing, unknown.standing) == (Standing.GOOD, Standing.STALE, Standing.UNKNOWN)
    assert mine_again.claims == first.claims and unknown.claims is None and unknown.reason


@pytest.mark.fz("FZ-064")
def test_an_outage_costs_neither_time_nor_calls_and_ends_by_itself(scene: Scene) -> None:
    tokens = [scene.api.mint_token(POD, valid_for=3600 + number) for number in range(50)]

    async def work(reviewer: Reviewer) -> None:
        assert (await verdict(reviewer, scene.api.mint_token(OTHER))).standing is Standing.GOOD
        scene.api.outage("error")
        assert (await verdict(reviewer, tokens[0])).standing is Standing.UNKNOWN
        now: list[Verdict] = []
        for token in tokens:
            reviewer.ask(token, now.append)
        assert [answer.standing for answer in now] == [Standing.UNKNOWN] * 50  # at once
        assert (reviewer.reviews, reviewer.failures) == (2, 1)
        scene.api.restore()
        good: list[Verdict] = []

        def asked_again() -> bool:
            if not good:
                reviewer.ask(tokens[0], lambda answer: good.append(answer) if answer.claims else None)
            return bool(good)

        await until(asked_again, within=5.0)

    scene.run(work)


@pytest.mark.fz("FZ-127")
def test_what_the_node_holds_against_a_token_spares_its_review(scene: Scene) -> None:
    def screen(claims: Claims) -> str:
        return "" if claims.uid == POD["metadata"]["uid"] else "not on this node"

    async def work(reviewer: Reviewer) -> tuple[Verdict, Verdict, Verdict | None]:
        theirs = scene.api.mint_token(OTHER)
        return (
            await verdict(reviewer, scene.api.mint_token(POD)),
            await verdict(reviewer, theirs),
            reviewer.known(theirs),
        )

    mine, theirs, known = scene.run(work, screen=screen)
    assert mine.standing is Standing.GOOD and theirs.standing is Standing.REFUSED and known == theirs
    assert scene.api.reviews == 1


@pytest.mark.fz("FZ-126")
def test_a_deleted_pods_token_is_reviewed_again(scene: Scene) -> None:
    token = scene.api.mint_token(POD)

    async def work(reviewer: Reviewer) -> Verdict:
        await verdict(reviewer, token)
        scene.api.delete(POD)
        reviewer.gone(POD["metadata"]["uid"])
        return await verdict(reviewer, token)

    assert scene.run(work).standing is Standing.REFUSED and scene.api.reviews == 2


def test_stopping_answers_everybody(scene: Scene) -> None:
    tokens = [scene.api.mint_token(POD, valid_for=3600 + number) for number in range(20)]

    async def work(reviewer: Reviewer) -> list[Verdict]:
        scene.api.outage("hang")
        answers: list[Verdict] = []
        for token in tokens:
            reviewer.ask(token, answers.append)
        await asyncio.sleep(0)
        await reviewer.close()
        return answers

    answers = scene.run(work)
    assert [answer.standing for answer in answers] == [Standing.UNKNOWN] * 20
    scene.api.restore()


def test_one_callers_mistake_is_not_the_next_ones(scene: Scene) -> None:
    token = scene.api.mint_token(POD)

    async def work(reviewer: Reviewer) -> Verdict:
        reviewer.ask(token, lambda answer: 1 / 0)  # type: ignore[arg-type,return-value]
        return await verdict(reviewer, token)

    assert scene.run(work).standing is Standing.GOOD
    assert "ZeroDivisionError" in scene.logged


@pytest.mark.fz("FZ-102")
def test_no_token_is_ever_logged(scene: Scene) -> None:
    good = scene.api.mint_token(POD)
    forged = scene.api.mint_token(OTHER)[:-12] + "AAAAAAAAAAAA"

    async def work(reviewer: Reviewer) -> None:
        await verdict(reviewer, good)
        await verdict(reviewer, forged)
        scene.api.outage("error")
        await verdict(reviewer, scene.api.mint_token(POD, valid_for=60))
        assert "eyJ" not in repr(reviewer)

    scene.run(work)
    assert (
        "token confirmed" in scene.logged and "token refused" in scene.logged and "TokenReview failed" in scene.logged
    )
    assert "eyJ" not in scene.logged and good.rpartition(".")[2] not in scene.logged
