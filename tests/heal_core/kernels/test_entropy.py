import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from heal_core.kernels.entropy import entropy_and_logprobs
from heal_core.kernels.tiles import row_tiles


def reference(logits: np.ndarray, token_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The definitions, in float64: ln p = x - ln sum e^x and H = -sum p ln p."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    logprobs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    probabilities = np.exp(logprobs)
    terms = np.where(probabilities > 0, probabilities * np.where(probabilities > 0, logprobs, 0), 0)
    return -terms.sum(axis=1), logprobs[np.arange(len(logits)), token_ids]


def test_a_worked_example() -> None:
    # p = (1/2, 1/4, 1/4): H = 1/2 ln 2 + 2 * 1/4 ln 4 = 1.5 ln 2
    logits = torch.log(torch.tensor([[2.0, 1.0, 1.0]]))
    entropies, logprobs = entropy_and_logprobs(logits, torch.tensor([1]))
    assert entropies.item() == pytest.approx(1.5 * math.log(2), abs=1e-6)
    assert logprobs.item() == pytest.approx(-math.log(4), abs=1e-6)


@settings(deadline=None)
@given(
    logits=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 40)),
        elements=st.floats(-1000, 1000, width=32),
    ),
    data=st.data(),
)
def test_it_agrees_with_float64(logits: np.ndarray, data: st.DataObject) -> None:
    num_tokens, vocabulary_size = logits.shape
    token_ids = np.array([data.draw(st.integers(0, vocabulary_size - 1)) for _ in range(num_tokens)])
    entropies, logprobs = entropy_and_logprobs(torch.from_numpy(logits), torch.from_numpy(token_ids))
    expected_entropies, expected_logprobs = reference(logits, token_ids)
    np.testing.assert_allclose(entropies.numpy(), expected_entropies, atol=2e-5)
    np.testing.assert_allclose(logprobs.numpy(), expected_logprobs, rtol=1e-6, atol=2e-5)
    # the bound in float32, as the result is
    assert ((entropies >= 0) & (entropies <= np.float32(math.log(vocabulary_size)))).all()
    assert (logprobs <= 0).all()


def test_a_forbidden_token_counts_nothing() -> None:
    logits = torch.tensor([[0.0, 0.0, -math.inf]])
    entropies, logprobs = entropy_and_logprobs(logits, torch.tensor([0]))
    assert entropies.item() == pytest.approx(math.log(2), abs=1e-6)
    assert logprobs.item() == pytest.approx(-math.log(2), abs=1e-6)


def test_half_precision_logits_get_float32_statistics() -> None:
    # 4096 equal weights: in bfloat16 the sum would stop growing at 256
    entropies, logprobs = entropy_and_logprobs(torch.zeros(1, 4096, dtype=torch.bfloat16), torch.tensor([7]))
    assert (entropies.dtype, logprobs.dtype) == (torch.float32, torch.float32)
    assert entropies.item() == pytest.approx(math.log(4096), abs=1e-5)
    assert logprobs.item() == pytest.approx(-math.log(4096), abs=1e-5)


def test_tiles_are_joined_in_order() -> None:
    vocabulary_size = 1 << 19
    logits = torch.zeros(5, vocabulary_size, dtype=torch.bfloat16)
    assert len(list(row_tiles(logits))) == 3
    logits[torch.arange(5), torch.arange(5)] = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0]).bfloat16()
    token_ids = torch.arange(5)
    entropies, logprobs = entropy_and_logprobs(logits, token_ids)
    # p = e^x / (e^x + V - 1)
    for row, x in enumerate((10.0, 20.0, 30.0, 40.0, 50.0)):
        expected = -math.log1p((vocabulary_size - 1) * math.exp(-x))
        assert logprobs[row].item() == pytest.approx(expected, abs=1e-4)
    assert (entropies[:-1] > entropies[1:]).all()
