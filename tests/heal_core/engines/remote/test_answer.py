from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from heal_core.engines.remote.answer import Answer, Token
from heal_core.engines.remote.chat import decode_bytes, without_end
from heal_core.engines.remote.faults import NonsenseError


def piece(*tokens: str, finish: str | None = None, **usage: int) -> dict[str, Any]:
    """Return a piece in vLLM's form, each token as likely as its one alternative."""
    return {
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "token_ids": list(range(len(tokens))),
                "logprobs": {
                    "tokens": list(tokens),
                    "token_logprobs": [-0.7] * len(tokens),
                    "top_logprobs": [{"token_id:1": -0.7, "token_id:2": -0.8} for _ in tokens],
                },
            }
        ],
        "usage": usage or None,
    }


def answer_of(*pieces: dict[str, Any]) -> Answer:
    answer = Answer(num_top=2)
    for one in pieces:
        answer.add(one)
    return answer


def test_pieces_add_up() -> None:
    answer = answer_of(
        piece("a", "b"),
        piece("c", finish="length"),
        {"model": "m", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3,
                                                "prompt_tokens_details": {"cached_tokens": 4}}},
    )  # fmt: skip
    assert [token.text for token in answer.tokens] == ["a", "b", "c"]
    assert (answer.num_prompt_tokens, answer.num_completion_tokens, answer.num_cached_tokens) == (7, 3, 4)
    answer.check(7, 3)


def test_the_sampled_token_beside_the_most_probable_ones_is_not_one_of_them() -> None:
    one = piece("a")
    one["choices"][0]["logprobs"]["top_logprobs"] = [{"x": -0.5, "y": -1.5, "a": -4.0}]
    assert answer_of(one).tokens[0].top_logprobs == (-0.5, -1.5)


def test_fewer_alternatives_than_asked_may_hold_the_sampled_token_that_is_none_of_them() -> None:
    one = piece("token_id:9")
    one["choices"][0]["logprobs"]["top_logprobs"] = [{"token_id:1": -0.5, "token_id:9": -0.7}]
    answer = Answer(num_top=5)
    answer.add(one)
    assert answer.tokens[0].top_logprobs == (-0.5,)
    assert not answer.tokens[0].has_gaps


def test_alternatives_that_are_named_by_text_may_hide_one_another() -> None:
    one = piece("a")
    one["choices"][0]["logprobs"]["top_logprobs"] = [{"a": -0.5, "b": -1.5}]
    answer = Answer(num_top=3)
    answer.add(one)
    assert answer.tokens[0].has_gaps


@pytest.mark.parametrize(("sampled", "has_gaps"), [(-4.0, True), (-1.5, False)])
def test_as_many_as_asked_may_be_one_too_few_where_the_sampled_token_is_the_least(
    sampled: float, has_gaps: bool
) -> None:
    """Three were asked for: were "a" none of them, there would be four, unless two of the others have one text."""
    one = piece("a")
    least = {"z": -4.0} if sampled > -4.0 else {}
    one["choices"][0]["logprobs"] = {
        "tokens": ["a"], "token_logprobs": [sampled], "top_logprobs": [{"x": -0.5, "a": sampled, "y": -2.0} | least],
    }  # fmt: skip
    answer = Answer(num_top=4 if least else 3)
    answer.add(one)
    assert answer.tokens[0].has_gaps == has_gaps


def test_the_end_of_the_turn_is_no_token_of_a_chat_answer() -> None:
    """vLLM lists it with the others, though it is not in the text; hosted models do not list it."""

    def answered(*texts: str, content: str, finish: str = "stop") -> Answer:
        tops = [{"logprob": -0.7}]
        entries = [{"token": text, "bytes": [*text.encode()], "logprob": -0.7, "top_logprobs": tops} for text in texts]
        answer = Answer(num_top=1)
        answer.add(
            {"choices": [{"finish_reason": finish, "delta": {"content": content}, "logprobs": {"content": entries}}]}
        )
        return answer

    assert [token.text for token in without_end(answered("4", "2", "<|im_end|>", content="42"))] == ["4", "2"]
    assert len(without_end(answered("4", "2", content="42"))) == 2
    assert len(without_end(answered("4", "2", content="4", finish="length"))) == 2
    assert len(without_end(answered(" 4", "2", content="42"))) == 2, "some servers strip the text"
    assert not without_end(answered("<|im_end|>", content=""))


@pytest.mark.parametrize(
    "change",
    [
        {"token_logprobs": [float("nan")]},
        {"token_logprobs": [None]},
        {"token_logprobs": ["-0.7"]},
        {"token_logprobs": [0.5]},
        {"token_logprobs": [-0.7, -0.7]},
        {"top_logprobs": [{}]},
        {"top_logprobs": [{"x": float("nan")}]},
        {"tokens": []},
    ],
)
def test_numbers_that_are_none_are_refused(change: dict[str, Any]) -> None:
    one = piece("a")
    one["choices"][0]["logprobs"] |= change
    with pytest.raises(NonsenseError):
        answer_of(one)


@pytest.mark.parametrize(
    ("num_prompt", "limit", "usage"),
    [(8, 3, {}), (7, 2, {}), (7, 4, {}), (7, 3, {"completion_tokens": 4}), (7, 3, {"prompt_tokens": 9})],
)
def test_an_answer_that_contradicts_itself_or_the_request_is_refused(
    num_prompt: int, limit: int, usage: dict[str, int]
) -> None:
    counts = {"prompt_tokens": 7, "completion_tokens": 3} | usage
    answer = answer_of(piece("a", "b", "c", finish="length", **counts))
    with pytest.raises(NonsenseError):
        answer.check(num_prompt, limit)
    answer_of(piece("a", "b", "c", finish="length", prompt_tokens=7, completion_tokens=3)).check(7, 3)


@pytest.mark.parametrize("finish", [None, "abort", "content_filter"])
def test_an_answer_that_did_not_end_as_one_should_is_refused(finish: str | None) -> None:
    with pytest.raises(NonsenseError, match="finish_reason"):
        answer_of(piece("a", finish=finish)).check(None, 5)


@pytest.mark.parametrize(
    "odd",
    [
        {"error": {"message": "out of memory"}},
        {"choices": [{"index": 1}]},
        {"choices": [{"index": 0, "text": "a", "logprobs": None}]},
        {"choices": 5},
        {"choices": ["a"]},
    ],
)
def test_what_is_no_piece_of_an_answer_is_refused(odd: dict[str, Any]) -> None:
    with pytest.raises(NonsenseError):
        answer_of(odd)


def test_a_probability_of_zero_is_no_alternative() -> None:
    one = piece("a")
    one["choices"][0]["logprobs"]["top_logprobs"] = [{"x": -0.1, "y": -9999.0}]
    assert answer_of(one).tokens[0].top_logprobs == (-0.1,)


def token(data: bytes) -> Token:
    return Token("", None, data, -0.1, (-0.1,))


def test_characters_that_are_split_over_tokens_are_put_together() -> None:
    snowman = "\u2603".encode()  # three bytes
    text, starts = decode_bytes([token(b"a"), token(snowman[:1]), token(snowman[1:]), token(b""), token(b"b")])
    assert text == "a\u2603b"
    # the later bytes begin at the character that they belong to, a token without text where the next one does
    assert starts.tolist() == [0, 1, 1, 2, 2]
    assert starts.dtype == np.int32


def test_bytes_that_are_no_text_are_shown_as_replaced() -> None:
    text, starts = decode_bytes([token(b"\xff"), token(b"a")])
    assert text == "\ufffda"
    assert starts.tolist() == [0, 1]
    assert decode_bytes([])[0] == ""
