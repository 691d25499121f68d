import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heal_core.kernels.head import TileSizes, head_entropy_and_logprobs

SMALL = TileSizes(num_tokens=5, num_words=7, num_folded=2)
"""Tiles that neither tokens nor vocabularies of the tests are a multiple of."""


def reference(logits: torch.Tensor, token_ids: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The definitions, in float64."""
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    entropy = torch.special.entr(logprobs.exp()).sum(dim=-1)
    return entropy.numpy(), logprobs.gather(1, token_ids[:, None]).squeeze(1).numpy()


def from_logits(
    logits: torch.Tensor, token_ids: torch.Tensor, sizes: TileSizes | None = SMALL
) -> tuple[np.ndarray, np.ndarray]:
    """Give the kernel a head whose logits are these: hidden states of one 1 each."""
    hidden, weight = torch.eye(len(logits)), logits.t().contiguous()
    entropy, logprob = head_entropy_and_logprobs(hidden, weight, token_ids, None, sizes)
    return entropy.numpy(), logprob.numpy()


def random_head(num_tokens: int, size: int, vocabulary_size: int, scale: float) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(num_tokens, size, generator=generator)
    weight = torch.randn(vocabulary_size, size, generator=generator) * scale / math.sqrt(size)
    return hidden, weight, torch.randint(0, vocabulary_size, (num_tokens,), generator=generator)


def test_a_worked_example() -> None:
    # p = (1/2, 1/4, 1/4): H = 1/2 ln 2 + 2 * 1/4 ln 4 = 1.5 ln 2
    entropies, logprobs = from_logits(torch.log(torch.tensor([[2.0, 1.0, 1.0]])), torch.tensor([1]))
    assert entropies[0] == pytest.approx(1.5 * math.log(2), abs=1e-6)
    assert logprobs[0] == pytest.approx(-math.log(4), abs=1e-6)


@pytest.mark.parametrize("vocabulary_size", [1, 6, 7, 8, 21, 100])
def test_equal_weights_have_the_entropy_of_the_vocabulary(vocabulary_size: int) -> None:
    entropies, logprobs = from_logits(torch.full((3, vocabulary_size), 5.0), torch.zeros(3, dtype=torch.int64))
    np.testing.assert_allclose(entropies, math.log(vocabulary_size), atol=1e-6)
    np.testing.assert_allclose(logprobs, -math.log(vocabulary_size), atol=1e-6)


@pytest.mark.parametrize("num_tokens", [0, 1, 2, 11])
def test_any_number_of_tokens(num_tokens: int) -> None:
    hidden, weight, token_ids = random_head(num_tokens, 16, 40, 3.0)
    entropies, logprobs = head_entropy_and_logprobs(hidden, weight, token_ids, None, SMALL)
    assert entropies.shape == logprobs.shape == (num_tokens,)
    expected = reference(hidden.double() @ weight.double().t(), token_ids)
    np.testing.assert_allclose(entropies.numpy(), expected[0], atol=1e-5)
    np.testing.assert_allclose(logprobs.numpy(), expected[1], atol=1e-5)


@pytest.mark.parametrize("scale", [0.5, 8.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2), (torch.float16, 1e-2)])
def test_errors_against_float64_on_the_same_weights(dtype: torch.dtype, tolerance: float, scale: float) -> None:
    # at scale 8 the largest logits are near 30, where bfloat16 has steps of 0.125
    hidden, weight, token_ids = (t.to(dtype) if t.is_floating_point() else t for t in random_head(300, 64, 9000, scale))
    logits = hidden.double() @ weight.double().t()
    token_ids[:150] = logits.argmax(dim=1)[:150]
    entropies, logprobs = head_entropy_and_logprobs(hidden, weight, token_ids)
    assert entropies.dtype == logprobs.dtype == torch.float32
    expected = reference(logits, token_ids)
    assert np.abs(entropies.numpy() - expected[0]).max() < tolerance
    assert np.abs(logprobs.numpy() - expected[1]).max() < tolerance


def test_products_of_bfloat16_leave_those_of_float32_alone() -> None:
    hidden, weight, token_ids = random_head(4, 64, 50, 8.0)
    before = torch.mm(hidden, weight.t())
    head_entropy_and_logprobs(hidden.bfloat16(), weight.bfloat16(), token_ids)
    assert torch.equal(torch.mm(hidden, weight.t()), before)


@pytest.mark.parametrize("first", [0, 7, 14])
def test_a_bias_forbids_tokens(first: int) -> None:
    # a whole tile may be forbidden, the first or the last too
    hidden, weight, token_ids = random_head(6, 16, 21, 3.0)
    bias = torch.linspace(-1, 1, 21)
    bias[first : first + 7] = -math.inf
    token_ids[0] = first
    entropies, logprobs = head_entropy_and_logprobs(hidden, weight, token_ids, bias, SMALL)
    expected = reference(hidden.double() @ weight.double().t() + bias.double(), token_ids)
    assert logprobs[0].item() == -math.inf
    np.testing.assert_allclose(entropies.numpy(), expected[0], atol=1e-5)
    np.testing.assert_allclose(logprobs.numpy(), expected[1], atol=1e-5)


def test_a_maximum_that_comes_late_takes_over() -> None:
    # each tile's maximum is far above all before it, up to the limits of what exp can take
    logits = torch.arange(40.0)[None] * 1000
    entropies, logprobs = from_logits(logits, torch.tensor([39]))
    assert (entropies[0], logprobs[0]) == (0.0, 0.0)
    entropies, logprobs = from_logits(logits.flip(1), torch.tensor([39]))
    assert (entropies[0], logprobs[0]) == (0.0, -39_000.0)


def test_hidden_states_that_are_not_numbers_show() -> None:
    hidden, weight, token_ids = random_head(2, 16, 20, 1.0)
    hidden[1, 3] = math.nan
    entropies, logprobs = head_entropy_and_logprobs(hidden, weight, token_ids, None, SMALL)
    assert entropies.isnan().tolist() == logprobs.isnan().tolist() == [False, True]


@settings(deadline=None, max_examples=50)
@given(
    num_words=st.integers(1, 40),
    scale=st.sampled_from([0.0, 1.0, 30.0]),
    shift=st.floats(-100, 100, width=32),
    seed=st.integers(0, 1000),
)
def test_invariances(num_words: int, scale: float, shift: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 1, (3, num_words)).astype(np.float32) * scale)
    token_ids = torch.from_numpy(rng.integers(0, num_words, 3))
    entropies, logprobs = from_logits(logits, token_ids)
    expected = reference(logits, token_ids)
    np.testing.assert_allclose(entropies, expected[0], atol=2e-5)
    np.testing.assert_allclose(logprobs, expected[1], atol=2e-5)
    assert ((entropies >= 0) & (entropies <= np.float32(math.log(num_words)))).all()
    assert (logprobs <= 0).all()

    shifted = from_logits(logits + shift, token_ids)
    order = rng.permutation(num_words)
    permuted = from_logits(logits[:, order], torch.from_numpy(np.argsort(order))[token_ids])
    for other in (shifted, permuted):  # a shift by 100 costs logits 2^-18
        np.testing.assert_allclose(other[0], entropies, atol=1e-4)
        np.testing.assert_allclose(other[1], logprobs, atol=1e-4)
