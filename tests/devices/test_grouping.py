"""Launches that become one, and launches that change places, give what they gave one by one."""

from __future__ import annotations

import random

from veloflow.devices.opencl.grouping import Access, Work, grouped

ROWS, WIDTH = 6, 4


def work(*accesses, rows=ROWS, is_whole=False):  # noqa: ANN002 - triples
    """A launch from (buffer, "r" or "w", "rows" or "all") of whole buffers."""
    found = [Access(buffer, 0, ROWS * WIDTH, mode == "w", how == "rows")
             for buffer, mode, how in accesses]  # fmt: skip
    return Work(tuple(found), rows, is_whole)


def test_neighbours_that_go_by_rows_are_one_launch():
    first = work((0, "r", "all"), (1, "w", "rows"))
    second = work((1, "r", "rows"), (2, "w", "rows"))
    assert grouped([first, second]) == [[0, 1]]


def test_what_needs_all_of_another_s_result_waits_for_it():
    first = work((1, "w", "rows"))
    second = work((1, "r", "all"), (2, "w", "rows"))
    assert grouped([first, second]) == [[0], [1]]


def test_other_rows_or_other_places_are_no_neighbours():
    first = work((1, "w", "rows"))
    assert grouped([first, work((1, "r", "rows"), rows=3)]) == [[0], [1]]
    part = Work((Access(1, 0, WIDTH, False, True),), ROWS, False)
    assert grouped([first, part]) == [[0], [1]]
    beside = Work((Access(1, ROWS * WIDTH, 2 * ROWS * WIDTH, True, False),), 0, False)
    assert grouped([first, beside]) == [[0, 1]]


def test_one_that_has_nothing_to_do_with_the_others_moves_to_the_front():
    works = [work((1, "w", "rows")), work((1, "r", "all"), (2, "w", "all")), work((3, "w", "all"))]
    assert grouped(works) == [[0, 2], [1]]


def test_nobody_writes_what_another_still_reads():
    works = [work((1, "r", "all"), (2, "w", "rows")), work((1, "w", "rows"))]
    assert grouped(works) == [[0], [1]]


def test_some_launches_stay_alone():
    works = [work((1, "w", "rows")), work((2, "w", "rows"), is_whole=True)]
    assert grouped(works) == [[0], [1]]


class _Machine:
    """Buffers of rows; a work-item of a group does its rows of each member before the next item."""

    def __init__(self, seed):
        pick = random.Random(seed)
        self.works, self.deeds = [], []
        for number in range(pick.randint(2, 14)):
            source, target = pick.sample(range(5), 2)
            by_rows, whole_source = pick.random() < 0.7, pick.random() < 0.3
            self.works.append(
                work(
                    (source, "r", "all" if whole_source or not by_rows else "rows"),
                    (target, "w", "rows" if by_rows else "all"),
                    rows=ROWS if by_rows else 0,
                )
            )
            self.deeds.append((source, target, by_rows, whole_source or not by_rows, number + 2))

    def _row(self, memory, deed, row):
        source, target, _, reads_all, factor = deed
        seen = sum(memory[source]) if reads_all else memory[source][row]
        memory[target][row] = (memory[target][row] * 3 + seen * factor + row) % 10007

    def run(self, groups):
        memory = [[10 * buffer + row for row in range(ROWS)] for buffer in range(5)]
        for group in groups:
            for item in range(ROWS):
                for number in group:
                    deed = self.deeds[number]
                    if deed[2]:
                        self._row(memory, deed, item)
                    elif item == 0:  # its work is one item's
                        for row in range(ROWS):
                            self._row(memory, deed, row)
        return memory


def test_any_sequence_gives_the_same_in_groups():
    merged = 0
    for seed in range(500):
        machine = _Machine(seed)
        groups = grouped(machine.works)
        alone = [[number] for number in range(len(machine.works))]
        assert sorted(number for group in groups for number in group) == [*range(len(alone))]
        assert machine.run(groups) == machine.run(alone), seed
        merged += len(alone) - len(groups)
    assert merged > 500
