"""Whether a trainer that renders an exported example with the student's chat template trains what HEAL trained.

Templates of reasoning models drop `<think>..</think>` from assistant turns, write an empty one where there was none,
or cut blanks; nothing tells a user so. The tokenizer is passed in: nothing here loads a model. What does not belong
here: the rendering that HEAL itself trains with (`chat`, `sft.data`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from jinja2 import TemplateError

from heal_core.chat import END_THINK, PLAIN_TEMPLATE, THINK, fit_opening, render_prompt_ids
from heal_core.export.examples import Layout, TracedExample, turn
from heal_core.sft.data import Example, tokenise_examples

REASONING_LOST = "reasoning_lost"
TEXT_CHANGED = "text_changed"
TOKENS_DIFFER = "tokens_differ"
REFUSED = "refused"
FAULTS = {
    REASONING_LOST: "lose reasoning: the template drops it from the assistant turn",
    TEXT_CHANGED: "are rendered with another text than HEAL trained on",
    TOKENS_DIFFER: "keep their text, but are cut into other tokens where prompt and response meet",
    REFUSED: "cannot be rendered: there is no chat template, or it refuses them",
}
"""What can become of an example, worst first, and how a person is told."""

_MAX_NAMED = 3
_PROBE = "hello"
_UNBOUNDED = 2**62


@dataclass
class TemplateReport:
    """What became of the examples that were checked; `num_same` and the `faults` add up to them.

    Attributes:
        opening: What the prompt already has of an answer, such as "<think>\\n"; it stands before each response.
        named: The first trajectories of each fault.
        longest_tokens: Of the longest example as HEAL trains on it, its end of turn included.
    """

    tokenizer: str
    opening: str = ""
    num_same: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[str]] = field(default_factory=dict)
    longest_tokens: int = 0

    @property
    def num_losing(self) -> int:
        """How many would not be trained on the text that HEAL trained on."""
        return sum(num for fault, num in self.faults.items() if fault != TOKENS_DIFFER)

    def note(self, trajectory_id: str, fault: str | None, num_tokens: int) -> None:
        """Count an example."""
        self.longest_tokens = max(self.longest_tokens, num_tokens)
        if fault is None:
            self.num_same += 1
            return
        self.faults[fault] += 1
        named = self.named.setdefault(fault, [])
        if len(named) < _MAX_NAMED:
            named.append(trajectory_id)


class TemplateCheck:
    """Checks examples in one layout, with the tokenizer of the student.

    Args:
        tokenizer: Of transformers.
        name: How the report calls it.
    """

    def __init__(self, tokenizer: Any, name: str, layout: Layout) -> None:
        self._tokenizer = tokenizer
        self._layout = layout
        self.report = TemplateReport(name, opening=_opening(tokenizer))

    def complete(self, example: TracedExample) -> TracedExample:
        """Return the example with what its prompt already has of the answer, which an assistant turn must say itself.

        The template of DeepSeek-R1 ends its prompt in `<think>`; without that an exported turn would begin within the
        reasoning.
        """
        return replace(example, response=self.report.opening + self._trained_response(example))

    def as_text(self, example: TracedExample) -> dict[str, Any]:
        """Return prompt and completion as rendered text, from which a trainer makes HEAL's own tokens."""
        wanted = self._trained_ids(example)
        prompt = self._rendered_prompt(example.prompt)
        completion = self._trained_response(example) + self._decode(wanted[-1:])
        begin = self._tokenizer.bos_token
        if begin and prompt.startswith(begin) and self._encode(prompt + completion) != wanted:
            prompt = prompt.removeprefix(begin)  # the tokenizer sets it before every text by itself
        return {"prompt": prompt, "completion": completion, **example.trace()}

    def note(self, example: TracedExample) -> None:
        """Check an example as the store has it, and count what would become of it."""
        wanted = self._trained_ids(example)
        self.report.note(example.trajectory_id, self._fault(example, wanted), len(wanted))

    def _fault(self, example: TracedExample, wanted: list[int]) -> str | None:
        try:
            found = self._consumer_ids(example)
        except (TemplateError, ValueError):  # ValueError: there is no template
            return REFUSED
        if found[: len(wanted)] == wanted and not self._decode(found[len(wanted) :]).strip():
            return None
        text, trained = self._decode(found), self._decode(wanted)
        if text.startswith(trained) and not text.removeprefix(trained).strip():
            return TOKENS_DIFFER
        reasoning, ends, _ = example.response.rpartition(END_THINK)
        thought = reasoning.rpartition(THINK)[2].strip()
        return REASONING_LOST if ends and thought not in text else TEXT_CHANGED

    def _consumer_ids(self, example: TracedExample) -> list[int]:
        """Return the tokens that TRL makes of the exported row."""
        if self._layout == "text":
            row = self.as_text(example)
            return self._encode(row["prompt"] + row["completion"])
        turns = [turn("user", example.prompt), turn("assistant", self.complete(example).response)]
        return list(self._tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"])

    def _trained_ids(self, example: TracedExample) -> list[int]:
        row = Example(example.trajectory_id, example.prompt, example.response)
        return tokenise_examples([row], self._tokenizer, _UNBOUNDED).examples[0].input_ids

    def _trained_response(self, example: TracedExample) -> str:
        """Return the response as HEAL trains it: it opens `<think>` exactly where the prompt does not."""
        return fit_opening(self._rendered_prompt(example.prompt), example.response)

    def _rendered_prompt(self, prompt: str) -> str:
        if self._tokenizer.chat_template is None:
            return PLAIN_TEMPLATE.format_map({"x": prompt})
        return self._decode(render_prompt_ids(self._tokenizer, prompt))

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text=text)["input_ids"])

    def _decode(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _opening(tokenizer: Any) -> str:
    """Return what a prompt has after the header of an assistant turn; "" for most templates."""
    if tokenizer.chat_template is None:
        return ""
    user = turn("user", "?")
    try:
        prompt = str(tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True))
        rendered = str(tokenizer.apply_chat_template([user, turn("assistant", _PROBE)], tokenize=False))
    except TemplateError:
        return ""
    header = rendered.rpartition(_PROBE)[0]
    return prompt.removeprefix(header) if header and prompt.startswith(header) else ""
