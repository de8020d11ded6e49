import threading

import numpy as np
import pytest

from common import pipeline

SOURCE = [{"x": np.full((2,), i)} for i in range(10)]


def _draws_to_records(batches, count):
    seen = {}
    for _ in range(count):
        batch = next(batches)
        seen |= dict(
            zip(batch["draw"].tolist(), batch["x"][:, 0].tolist(), strict=True)
        )
    return seen


def test_an_epoch_is_a_permutation_and_the_next_another():
    stream = pipeline.draws(SOURCE, seed=3)
    first = [int(stream[i]["x"][0]) for i in range(10)]
    second = [int(stream[i]["x"][0]) for i in range(10, 20)]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_draws_do_not_depend_on_batch_size():
    of_two = _draws_to_records(pipeline.train_batches(SOURCE, seed=3, batch_size=2), 12)
    of_six = _draws_to_records(pipeline.train_batches(SOURCE, seed=3, batch_size=6), 4)
    assert of_two == of_six
    assert sorted(of_two) == list(range(24))


def test_seed_changes_the_order():
    one = _draws_to_records(pipeline.train_batches(SOURCE, seed=3, batch_size=5), 2)
    other = _draws_to_records(pipeline.train_batches(SOURCE, seed=4, batch_size=5), 2)
    assert one != other


def test_processes_share_a_global_batch(monkeypatch):
    monkeypatch.setattr(pipeline.jax, "process_count", lambda: 2)
    draws = []
    for process in range(2):
        monkeypatch.setattr(pipeline.jax, "process_index", lambda p=process: p)
        batches = pipeline.train_batches(SOURCE, seed=3, batch_size=3)
        draws.append([next(batches)["draw"].tolist() for _ in range(2)])
    for step in range(2):
        joined = draws[0][step] + draws[1][step]
        assert sorted(joined) == list(range(6 * step, 6 * step + 6))


def test_state_puts_an_iterator_back():
    batches = pipeline.train_batches(SOURCE, seed=3, batch_size=4)
    for _ in range(3):
        next(batches)
    state = batches.get_state()
    wanted = next(batches)
    again = pipeline.train_batches(SOURCE, seed=3, batch_size=4)
    again.set_state(state)
    np.testing.assert_array_equal(next(again)["x"], wanted["x"])


def test_transform_sees_each_record():
    batches = pipeline.train_batches(
        SOURCE, seed=3, batch_size=4, transform=lambda r: {"y": r["x"][0] + 1}
    )
    assert set(next(batches)) == {"y"}


@pytest.mark.parametrize("threads", [1, 3])
def test_read_ahead_keeps_the_order_and_reads_no_further_than_its_threads(threads):
    taken = []

    def items():
        for i in range(9):
            taken.append(i)
            yield i

    results = pipeline.read_ahead(
        lambda i: (i, threading.get_ident()), items(), threads=threads
    )
    first = next(results)
    assert len(taken) == threads + 1
    found = [first, *results]
    assert [i for i, _ in found] == list(range(9))
    assert threading.get_ident() not in {thread for _, thread in found}


def test_read_ahead_raises_in_place_and_stops_when_left():
    def read(i):
        if i == 2:
            raise KeyError("two")
        return i

    results = pipeline.read_ahead(read, range(5))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError, match="two"):
        next(results)
    left = pipeline.read_ahead(read, range(2))
    next(left)
    left.close()
    assert not list(pipeline.read_ahead(read, []))
