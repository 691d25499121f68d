import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heal_core.engines.base import SamplingConfig
from heal_core.engines.drawing import draw, slot_uniforms
from heal_core.kernels.tiles import row_tiles

PLAIN = SamplingConfig(temperature=1, top_p=1)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    weights = np.exp((logits - logits.max()) / temperature)
    return weights / weights.sum()


def test_a_uniform_is_the_hash_of_slot_and_position() -> None:
    # position 9 is the second of the eight numbers of block 1
    digest = hashlib.blake2b(b"slot:1", digest_size=64).digest()
    expected = (int.from_bytes(digest[8:16], "little") >> 11) / 2**53
    assert slot_uniforms("slot", 9, 1)[0] == expected


@given(st.text(max_size=10), st.integers(0, 100), st.integers(0, 40))
def test_uniforms_do_not_depend_on_how_they_are_cut(slot_id: str, start: int, count: int) -> None:
    whole = slot_uniforms(slot_id, 0, start + count)
    assert slot_uniforms(slot_id, start, count).tolist() == whole[start:].tolist()
    assert ((whole >= 0) & (whole < 1)).all()


@pytest.mark.parametrize(
    ("u", "top_p", "expected"),
    [
        # p = (0.1, 0.4, 0.2, 0.3), cumulated in order of id: 0.1, 0.5, 0.7, 1
        (0.05, 1.0, 0),
        (0.11, 1.0, 1),
        (0.69, 1.0, 2),
        (0.71, 1.0, 3),
        # the nucleus of 0.6 is {1: 0.4, 3: 0.3}, renormalised: 4/7 = 0.571
        (0.05, 0.6, 1),
        (0.57, 0.6, 1),
        (0.58, 0.6, 3),
        # one token suffices for 0.4
        (0.99, 0.39, 1),
    ],
)
def test_the_draw_inverts_the_cumulative_distribution(u: float, top_p: float, expected: int) -> None:
    logits = torch.log(torch.tensor([[0.1, 0.4, 0.2, 0.3]]))
    chosen = draw(logits, torch.tensor([u], dtype=torch.float64), SamplingConfig(temperature=1, top_p=top_p))
    assert chosen.tolist() == [expected]


def test_temperature_sharpens() -> None:
    # p = (1/3, 2/3) at temperature 1; squares (1, 4) / 5 at 0.5
    logits = torch.log(torch.tensor([[1.0, 2.0]]))
    u = torch.tensor([0.3], dtype=torch.float64)
    assert draw(logits, u, SamplingConfig(temperature=1, top_p=1)).item() == 0
    assert draw(logits, u, SamplingConfig(temperature=0.5, top_p=1)).item() == 1


def test_temperature_zero_takes_the_most_probable() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert draw(logits, torch.full((2,), 0.999, dtype=torch.float64), SamplingConfig(temperature=0)).tolist() == [1, 0]


def test_tokens_that_tie_at_the_edge_all_belong_to_the_nucleus() -> None:
    # four equal tokens, top_p = 0.5: whichever two a sort put first, all four may be drawn
    logits = torch.zeros(4, 4)
    u = torch.tensor([0.1, 0.3, 0.6, 0.9], dtype=torch.float64)
    assert draw(logits, u, SamplingConfig(temperature=1, top_p=0.5)).tolist() == [0, 1, 2, 3]


def test_the_largest_uniform_draws_a_token_of_the_nucleus() -> None:
    logits = torch.tensor([[0.0, 5.0, -math.inf, -math.inf]])
    u = torch.tensor([1 - 2.0**-53], dtype=torch.float64)
    assert draw(logits, u, SamplingConfig(temperature=1, top_p=1)).item() == 1
    assert draw(logits, u, SamplingConfig(temperature=1, top_p=0.5)).item() == 1


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 2), st.floats(0.05, 1), st.floats(0, 1, exclude_max=True))
def test_flat_and_peaked_rows_agree_with_a_sorted_reference(
    seed: int, temperature: float, top_p: float, u: float
) -> None:
    # 300 tokens: peaked rows are settled by the first 64, flat ones need the full sort
    logits = np.random.default_rng(seed).normal(size=(2, 300)).astype(np.float32) * [[0.1], [6.0]]
    sampling = SamplingConfig(temperature=temperature, top_p=top_p)
    chosen = draw(torch.from_numpy(logits), torch.full((2,), u, dtype=torch.float64), sampling)
    for row, token in zip(logits, chosen.tolist(), strict=True):
        probabilities = softmax(row.astype(np.float64), temperature)
        order = np.argsort(-probabilities)
        size = int((np.cumsum(probabilities[order]) < top_p).sum()) + 1
        kept = np.zeros(300)
        kept[order[:size]] = probabilities[order[:size]]
        edges = np.cumsum(kept) / kept.sum()
        # float32 weights shift an edge by about 1e-7
        assert edges[token] > u - 1e-5
        assert (edges[token - 1] if token else 0.0) <= u + 1e-5


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([300, 1024, 1025, 1300, 1536]),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([1.0, 0.9, 0.5]),
)
def test_summing_blocks_finds_the_token_of_one_cumulative_sum(seed: int, size: int, u: float, top_p: float) -> None:
    # peaked, so that whole blocks weigh next to nothing and edges of blocks are met
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, size)).astype(np.float32) * 8)
    sampling = SamplingConfig(temperature=1, top_p=top_p)
    token = draw(logits, torch.tensor([u], dtype=torch.float64), sampling).item()
    weights = (logits - logits.max()).exp().double()[0]
    ordered = weights.sort(descending=True).values
    floor = ordered[(ordered.cumsum(dim=0) < top_p * ordered.sum()).sum()] if top_p < 1 else 0.0
    edges = torch.where(weights >= floor, weights, 0.0).cumsum(dim=0)
    wanted = u * edges[-1]
    assert edges[token] >= wanted - 1e-12
    assert (edges[token - 1] if token else 0.0) <= wanted + 1e-12


def test_a_block_without_weight_at_the_end_is_never_drawn_from() -> None:
    logits = torch.full((1, 1300), -math.inf)
    logits[0, 600] = 0.0
    for u in (0.0, 0.5, 1 - 2.0**-53):
        assert draw(logits, torch.tensor([u], dtype=torch.float64), PLAIN).item() == 600


def test_rows_of_a_large_vocabulary_are_drawn_tile_by_tile() -> None:
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(5, 1 << 19)).astype(np.float32) * 4)
    assert len(list(row_tiles(logits))) > 1
    u = torch.linspace(0.05, 0.95, 5, dtype=torch.float64)
    for sampling in (PLAIN, SamplingConfig(temperature=0.7, top_p=0.9), SamplingConfig(temperature=0)):
        together = draw(logits, u, sampling).tolist()
        assert together == [draw(logits[r : r + 1], u[r : r + 1], sampling).item() for r in range(5)]
        assert len(set(together)) == 5


def test_logits_that_are_not_numbers_draw_a_token_of_the_vocabulary() -> None:
    # so that the row reaches the check that names it
    logits = torch.full((1, 1300), math.nan)
    assert 0 <= draw(logits, torch.tensor([0.5], dtype=torch.float64), PLAIN).item() < 1300
