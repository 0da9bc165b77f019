"""Documents in rows: nothing lost, nothing cut without need, little room left."""

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.learner.train.documents import best_fit, cut_document, pack_documents

END = 0


@given(st.lists(st.integers(2, 40), max_size=60), st.integers(40, 70))
def test_best_fit_is_a_partition_within_the_size(lengths: list[int], size: int) -> None:
    rows = best_fit(lengths, size)
    assert sorted(at for row in rows for at in row) == list(range(len(lengths)))
    assert all(sum(lengths[at] for at in row) <= size for row in rows)
    # Any two rows together hold more than one could: else they would be one.
    held = sorted(sum(lengths[at] for at in row) for row in rows)
    assert len(held) < 2 or held[0] + held[1] > size


def test_the_longest_come_first_and_each_goes_where_it_fits_closest() -> None:
    # Room after the first three: 4, 3, 5. The 3 goes where nothing is left; the 2s where the
    # least is.
    assert best_fit([2, 6, 7, 5, 3, 2], 10) == [[2, 4], [1, 0, 5], [3]]
    assert best_fit([], 10) == []


def test_equal_lengths_keep_their_order_and_rows_depend_on_lengths_alone() -> None:
    assert best_fit([5, 5, 5], 10) == [[0, 1], [2]]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.integers(2, 17))
def test_every_token_of_a_cut_document_is_predicted_once(ids: list[int], length: int) -> None:
    pieces = cut_document(ids, length)
    assert all(2 <= len(piece) <= length for piece in pieces)
    assert [token for piece in pieces for token in piece[1:]] == ids[1:]
    # What it is predicted from begins where the piece before ends.
    assert all(after[0] == before[-1] for before, after in pairwise(pieces))
    assert (len(pieces) > 1) == (len(ids) > length)


def test_documents_are_whole_and_closed() -> None:
    packed = pack_documents([[1, 2], [3], [], [4, 5, 6, 7, 8, 9]], END, 5)
    rows = [[list(segment.ids) for segment in row.segments] for row in packed.rows]
    # The long one is cut; the empty one has nothing to learn.
    assert rows == [[[4, 5, 6, 7, 8]], [[1, 2, END]], [[8, 9, END], [3, END]]]
    names = [[segment.id for segment in row.segments] for row in packed.rows]
    assert names == [["text 3"], ["text 0"], ["text 3", "text 1"]]
    assert [row.learnt for row in packed.rows] == [4, 2, 3]
    assert [row.length for row in packed.rows] == [5, 3, 5]
    assert (packed.cut, packed.fill) == (1, 13 / 15)


def test_rows_of_a_corpus_are_nearly_full() -> None:
    draw = random.Random(0)
    texts = [[1] * round(draw.lognormvariate(4.5, 1.0)) for _ in range(2000)]
    packed = pack_documents(texts, END, 512)
    assert packed.fill > 0.995
    learnt = sum(row.learnt for row in packed.rows)
    assert learnt == sum(len(text) for text in texts)


def test_no_texts_are_no_rows() -> None:
    packed = pack_documents([], END, 16)
    assert (packed.rows, packed.fill, packed.cut) == ([], 0.0, 0)
