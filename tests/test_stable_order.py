import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.hashing import image_ids, mix64, order_keys

IDS = image_ids("d", "s", map(str, range(5000)))


def test_order_keys_have_golden_values() -> None:
    assert order_keys(IDS[:2], 133, "rank main train").tolist() == [12448752358070165723, 14010555013630180699]


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, min_size=2, max_size=200))
def test_mix64_is_a_bijection(words: list[int]) -> None:
    assert len(np.unique(mix64(np.array(words, np.uint64)))) == len(words)


def test_a_key_depends_on_its_own_id_seed_and_purpose_only() -> None:
    keys = order_keys(IDS, 1, "a")
    assert np.array_equal(order_keys(IDS[::-1], 1, "a"), keys[::-1])
    assert not np.isin(keys, order_keys(IDS, 2, "a")).any()
    assert not np.isin(keys, order_keys(IDS, 1, "b")).any()


def test_keys_spread_over_the_whole_range() -> None:
    counts = np.bincount((order_keys(IDS, 7, "spread") >> np.uint64(60)).astype(int), minlength=16)
    # 5,000 over 16 cells is 312 each; seven standard deviations are 120.
    assert counts.min() > 190
    assert counts.max() < 435
