"""The watermark: in use where a claim was slow, and nothing that lies below a floor is passed over for long."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from pgflow.store.job import QUEUE_START, ClaimedRow, QueuePosition
from pgflow.worker.turns.watermark import JOB_SECONDS, SHARE, SHARE_DRY, SLOW_SECONDS, Watermark

SLOW = 0.05
QUICK = 0.001
ROOMS = {"q": 2}


def claimed(place: QueuePosition, took: float, *, queue: str = "q", crashes: int = 0) -> ClaimedRow:
    """What a claim returns of the token at a place."""
    row = dict.fromkeys(ClaimedRow._fields)
    known = {"id": place.id, "priority": place.priority, "moment": place.moment}
    return ClaimedRow(**{**row, **known, "queue": queue, "took": took, "crashes": crashes})  # type: ignore[arg-type]


def slow(mark: Watermark, *places: QueuePosition, now: float = 0.0, took: float = SLOW) -> None:
    """Let it learn of a claim without floors."""
    mark.learn(now, ROOMS, {}, [claimed(place, took) for place in places])


A, B, C = QueuePosition(0, 10.0, 1), QueuePosition(0, 10.0, 2), QueuePosition(5, 3.0, 3)


def test_a_quick_claim_leaves_no_floor() -> None:
    mark = Watermark()
    slow(mark, A, B, took=QUICK)
    assert mark.positions(0.0) == {}
    assert not mark.is_in_use


def test_a_large_claim_may_take_longer() -> None:
    mark = Watermark()
    rows = [claimed(QueuePosition(0, 1.0, number), SLOW_SECONDS + 99 * JOB_SECONDS) for number in range(100)]
    assert not mark.learn(0.0, {"q": 100}, {}, rows)
    assert mark.learn(0.0, {"q": 100}, {}, rows[:50])


def test_after_a_slow_claim_the_next_begins_where_it_ended() -> None:
    mark = Watermark()
    slow(mark, A, B)
    assert mark.positions(0.0) == {"q": B}
    mark.learn(0.0, ROOMS, mark.positions(0.0), [claimed(C, QUICK), claimed(QueuePosition(5, 4.0, 9), QUICK)])
    assert mark.positions(0.0) == {"q": QueuePosition(5, 4.0, 9)}


def test_the_plan_is_doubted_when_a_floor_comes_into_use() -> None:
    mark = Watermark()
    rows = [claimed(A, SLOW)]
    assert mark.learn(0.0, ROOMS, {}, rows)
    assert not mark.learn(1.0, ROOMS, {}, rows)


def test_a_look_below_is_made_after_a_share_of_the_time() -> None:
    mark = Watermark()
    slow(mark, A, B)
    assert mark.positions(SHARE * SLOW - 0.01)
    assert not mark.positions(SHARE * SLOW)


def test_a_look_below_is_made_sooner_when_the_queue_gave_less_than_its_room() -> None:
    mark = Watermark()
    slow(mark, A, B)
    mark.learn(0.01, ROOMS, mark.positions(0.01), [claimed(C, QUICK)])
    assert mark.look_at(ROOMS) == SHARE_DRY * SLOW
    assert mark.look_at(["p"]) == inf  # no capacity: nothing to do for that queue
    assert mark.positions(SHARE_DRY * SLOW - 0.01)
    assert not mark.positions(SHARE_DRY * SLOW)


def test_a_look_that_is_quick_again_ends_it() -> None:
    mark = Watermark()
    slow(mark, A, B)
    slow(mark, A, B, now=2.0, took=QUICK)
    assert not mark.is_in_use


def test_a_look_that_finds_nothing_does_not_measure_the_queue() -> None:
    mark = Watermark()
    slow(mark, A, B)
    slow(mark, now=2.0)
    assert mark.positions(2.0) == {"q": B}


def test_a_full_look_takes_the_floor_down_and_a_short_one_does_not() -> None:
    mark = Watermark()
    slow(mark, A, C)
    slow(mark, A, now=2.0)
    assert mark.positions(2.0) == {"q": C}
    slow(mark, A, B, now=4.0)
    assert mark.positions(4.0) == {"q": B}


def test_what_has_to_run_alone_moves_no_floor() -> None:
    mark = Watermark()
    mark.learn(0.0, ROOMS, {}, [claimed(A, SLOW), claimed(C, SLOW, crashes=2)])
    assert mark.positions(0.0) == {"q": A}


def test_each_queue_has_its_own_floor() -> None:
    mark = Watermark()
    rooms = {"q": 1, "p": 1, "none": 1}
    mark.learn(0.0, rooms, {}, [claimed(A, SLOW), claimed(C, SLOW, queue="p")])
    assert mark.positions(0.0) == {"q": A, "p": C, "none": QUEUE_START}


@dataclass
class Queue:
    """One queue with a pinned horizon: each claim skips the dead tuples after its watermark, at a cost."""

    cost: float
    ready: dict[QueuePosition, float] = field(default_factory=dict)  # since when
    dead: list[QueuePosition] = field(default_factory=list)

    def claim(self, floor: QueuePosition, room: int) -> list[ClaimedRow]:
        taken = sorted(place for place in self.ready if place > floor)[:room]
        took = self.cost * sum(place > floor for place in self.dead) + 0.0001
        for place in taken:
            del self.ready[place]
        self.dead += taken
        return [claimed(place, took) for place in taken]


ARRIVALS = st.lists(
    st.tuples(st.integers(0, 3), st.floats(0.0, 100.0), st.integers(1, 5)), max_size=40
)  # priority, run_at, how many


@given(ARRIVALS, st.integers(1, 6), st.floats(0.0, 0.01), st.lists(st.floats(0.0, 0.5), min_size=1, max_size=8))
def test_each_token_is_claimed_and_none_is_passed_over_for_longer_than_a_share(
    arrivals: list[tuple[int, float, int]], room: int, cost: float, pauses: list[float]
) -> None:
    mark, queue = Watermark(), Queue(cost)
    now, looked_at, took, number = 0.0, 0.0, 0.0, 0
    for turn in range(2000):
        if turn < len(arrivals):
            priority, moment, count = arrivals[turn]
            for _ in range(count):
                number += 1
                queue.ready[QueuePosition(priority, moment, number)] = now
        floors = mark.positions(now)
        if passed_over := [place for place in queue.ready if floors and place <= floors["q"]]:
            assert now < looked_at + SHARE * took, passed_over
        rows = queue.claim(floors.get("q", QUEUE_START), room)
        now += rows[0].took if rows else 0.0001
        if not floors:
            looked_at, took = now, rows[0].took if rows else took
        mark.learn(now, {"q": room}, floors, rows)
        if turn >= len(arrivals) and not queue.ready:
            break
        now = max(now, min(now + pauses[turn % len(pauses)], mark.look_at(ROOMS)))
    assert not queue.ready
    assert len(queue.dead) == number
