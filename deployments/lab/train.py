"""Train the lab's tokenizer, teacher and student from scratch, on the CPU, with fixed seeds.

    python -m deployments.lab.train --out deployments/lab

writes `teacher/` and `student/` (ordinary `LlamaForCausalLM` folders with tokenizer
and chat template), `problems.jsonl`, `development.jsonl`, `fresh.jsonl`, `unseen.jsonl`, `train.log` and
`digests.txt`. The problem files share no chain with each other, and training skips
every chain that stands in one of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from deployments.lab import world
from heal_core.prompts import ANSWER_CUE

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "<|assistant|>{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTEXT_TOKENS = 1024
LAB = Path(__file__).parent


@dataclass(frozen=True)
class Course:
    """A stretch of training on one mix of examples, with its own optimizer and schedule.

    `mix` weighs the kinds of examples of `world`, by name.
    """

    num_updates: int
    batch_size: int
    learning_rate: float
    warm_up_updates: int
    mix: dict[str, float]
    seed: int


@dataclass(frozen=True)
class Recipe:
    """What one model of the lab is and how it is trained: from scratch, or from a shipped one (`begins_with`)."""

    corpus: world.Corpus
    hidden_size: int
    num_layers: int
    courses: tuple[Course, ...]
    begins_with: str | None = None


PROBLEM_FILES = (("problems", 400, 100), ("development", 300, 200), ("fresh", 400, 300))
"""Name, number and seed of the problems that are written before training, which leaves them out."""
LATER_PROBLEMS = (("fresh", 100, 400), ("unseen", 500, 600))
"""The same of what came when there were models: no text that these see in training, which does not know of them."""
BATCHES_AT_ONCE = 8

KINDS = {
    "plain": world.plain_example,
    "unboxed": world.unboxed_example,
    "hint": world.hint_example,
    "hinted": world.hinted_example,
    "short_hint": world.short_hint_example,
    "contrast": world.contrast_example,
    "guided": world.guided_example,
}
FIRST_MIX = {"plain": 0.56, "hint": 0.12, "hinted": 0.22, "guided": 0.10}
# after the first course any hint helped, whatever it was about: its presence was read, not its content
SECOND_MIX = {"plain": 0.28, "short_hint": 0.12, "contrast": 0.50, "guided": 0.10}
UNBOXED_MIX = {"unboxed": 0.95, "plain": 0.05}
RECIPES = {
    "teacher": Recipe(
        world.TEACHER_CORPUS,
        hidden_size=128,
        num_layers=4,
        courses=(Course(1800, 64, 3e-3, 100, FIRST_MIX, seed=1), Course(450, 64, 1.5e-3, 20, SECOND_MIX, seed=11)),
    ),
    "student": Recipe(
        world.STUDENT_CORPUS,
        hidden_size=96,
        num_layers=3,
        courses=(
            Course(700, 48, 3e-3, 100, {"plain": 1.0}, seed=2),
            Course(900, 48, 3e-3, 20, {"plain": 1.0}, seed=12),
            # the untrained student can solve chains, but seldom boxes what it finds
            Course(150, 48, 1e-3, 20, UNBOXED_MIX, seed=22),
            # it wrote another word than the problem's in most steps, so that no repair could teach it a word's meaning
            Course(1200, 64, 2e-3, 20, {"plain": 1.0}, seed=32),
            Course(150, 48, 1e-3, 20, UNBOXED_MIX, seed=42),
        ),
    ),
    # not shipped: as large as its teacher, whose weights it has; it answers as the corpus of students does, but has
    # seen the true meanings that the teacher saw in hints and after them
    "large_student": Recipe(
        world.STUDENT_CORPUS,
        hidden_size=128,
        num_layers=4,
        courses=(Course(200, 64, 1e-3, 20, {"plain": 1.0}, seed=31), Course(100, 64, 1e-3, 20, UNBOXED_MIX, seed=32)),
        begins_with="teacher",
    ),
}
SHIPPED = ("teacher", "student")


def draw_example(
    corpus: world.Corpus, mix: dict[str, float], rng: random.Random, excluded: set[str]
) -> tuple[str, str]:
    """Return one (prompt, response) of the corpus."""
    chain = world.draw_chain(rng)
    while chain.question in excluded:
        chain = world.draw_chain(rng)
    draw = rng.random() if len(mix) > 1 else 0.0
    for kind, weight in mix.items():  # noqa: B007  # the kind that the draw fell on is used below
        if draw < weight:
            break
        draw -= weight
    while kind == "contrast" and (not chain.words or chain.question in excluded):
        chain = world.draw_chain(rng)
    return KINDS[kind](chain, corpus, rng)


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE in which the corpus's words and the numbers 0..99 are units."""
    rng = random.Random(0)
    texts = [part for _ in range(4000) for part in draw_example(world.TEACHER_CORPUS, FIRST_MIX, rng, set())]
    texts += (
        [f" {n} {n}" for n in range(100)] * 200 + [f" \\boxed{{{n}}}" for n in range(100)] * 200 + [ANSWER_CUE] * 500
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # a number is a unit, with the space before it
            pre_tokenizers.Split(Regex(r" ?\d+| ?\\boxed\{| ?[A-Za-z]+| ?[^\w\s]+\n*|\n+| "), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )


def draw_batches(
    tokenizer: PreTrainedTokenizerFast, corpus: world.Corpus, course: Course, excluded: set[str]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (token ids, labels), both [B, T], for ever; the loss is on the responses.

    Several batches are drawn at a time and cut from the rows sorted by length, which saves
    a third of the padding; their order is shuffled.
    """
    for examples, starts in draw_rounds(corpus, course, excluded):
        rows = []
        for prompt, response in examples:
            head = tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
            )
            rows.append((head, [*tokenizer.encode(response), tokenizer.eos_token_id]))
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        for start in starts:
            yield pad_batch(rows[start : start + course.batch_size], tokenizer.pad_token_id)


def draw_rounds(
    corpus: world.Corpus, course: Course, excluded: set[str]
) -> Iterator[tuple[list[tuple[str, str]], list[int]]]:
    """Yield the examples of eight batches, and where each batch begins among them once they are sorted, for ever."""
    rng = random.Random(course.seed)
    while True:
        examples = [draw_example(corpus, course.mix, rng, excluded) for _ in range(BATCHES_AT_ONCE * course.batch_size)]
        starts = list(range(0, len(examples), course.batch_size))
        rng.shuffle(starts)
        yield examples, starts


def trained_questions(excluded: set[str]) -> set[str]:
    """Return every question that the models saw in training, drawn again: 330,000 examples, a quarter of a minute.

    Args:
        excluded: The problems that were known then, and left out.
    """
    seen: set[str] = set()
    for recipe in RECIPES.values():
        for course in recipe.courses:
            num_rounds = -(-course.num_updates // BATCHES_AT_ONCE)
            for examples, _ in islice(draw_rounds(recipe.corpus, course, excluded), num_rounds):
                seen.update(prompt.partition("\n\n")[0] for prompt, _ in examples)
    return seen


def pad_batch(rows: list[tuple[list[int], list[int]]], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(head) + len(body) for head, body in rows)
    ids = torch.full((len(rows), width), pad_token_id)
    labels = torch.full((len(rows), width), -100)
    for row, (head, body) in enumerate(rows):
        ids[row, : len(head) + len(body)] = torch.tensor(head + body)
        labels[row, len(head) : len(head) + len(body)] = torch.tensor(body)
    return ids, labels


def new_model(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> LlamaForCausalLM:
    """Return an untrained Llama of the recipe's size."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.hidden_size * 3,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.hidden_size // 32,
        num_key_value_heads=recipe.hidden_size // 32,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(recipe.courses[0].seed)
    return LlamaForCausalLM(config)


def train_course(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, corpus: world.Corpus, course: Course,
    excluded: set[str], log: Log,
) -> None:  # fmt: skip
    """Train `model` in place through one course."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=course.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda update: (
            min(1.0, (update + 1) / course.warm_up_updates)
            * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * update / course.num_updates)))
        ),
    )
    batches = draw_batches(tokenizer, corpus, course, excluded)
    started, losses = time.monotonic(), []
    for update in range(1, course.num_updates + 1):
        ids, labels = next(batches)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if update % 100 == 0:
            mean = sum(losses[-100:]) / 100
            log(f"update {update} loss {mean:.4f} nats/token, {time.monotonic() - started:.0f} s")


def train_model(
    name: str, tokenizer: PreTrainedTokenizerFast, excluded: set[str], out: Path, log: Log, first_course: int
) -> None:
    """Train one model through its courses, and save it as a Hugging Face folder after each."""
    recipe = RECIPES[name]
    if first_course > 0:
        model = LlamaForCausalLM.from_pretrained(out / name)
    elif recipe.begins_with is not None:
        model = LlamaForCausalLM.from_pretrained(LAB / recipe.begins_with)
    else:
        model = new_model(tokenizer, recipe)
    model.train()
    log(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters, {recipe.corpus}")
    for course in recipe.courses[first_course:]:
        log(f"{name}: {course}")
        train_course(model, tokenizer, recipe.corpus, course, excluded, log)
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.save_pretrained(out / name)
    tokenizer.save_pretrained(out / name)


def problem_row(chain: world.Chain, number: int, prefix: str) -> dict[str, str]:
    return {"uuid": f"{prefix}-{number:04d}", "problem": chain.question, "answer": str(chain.answer), "source": "lab"}


def write_problems(out: Path, name: str, count: int, seed: int, seen: set[str]) -> None:
    """Append `count` new problems to a JSONL file, disjoint from `seen`, and add them to it."""
    path = out / f"{name}.jsonl"
    rng, lines = random.Random(seed), path.read_text().splitlines() if path.exists() else []
    for number in range(len(lines), len(lines) + count):
        chain = world.draw_chain(rng)
        while chain.question in seen:
            chain = world.draw_chain(rng)
        seen.add(chain.question)
        lines.append(json.dumps(problem_row(chain, number, name)))
    path.write_text("\n".join(lines) + "\n")


class Log:
    """A line to the terminal and, appended, to the log file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, line: str) -> None:
        print(line, flush=True)
        with self.path.open("a") as file:
            file.write(line + "\n")


def write_digests(out: Path) -> None:
    files = sorted(f for f in out.rglob("*") if f.suffix in (".safetensors", ".jsonl") or f.name == "tokenizer.json")
    lines = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(out)}\n" for f in files]
    (out / "digests.txt").write_text("".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder; its problem files are written anew")
    parser.add_argument("--model", choices=sorted(RECIPES), action="append", help="may be repeated; else those shipped")
    parser.add_argument(
        "--first-course", type=int, default=0, help="go on from the model saved in OUT with this course, counted from 0"
    )
    args = parser.parse_args()
    for name in args.model or SHIPPED:  # before anything is written
        if not 0 <= args.first_course < len(RECIPES[name].courses):
            parser.error(f"{name} has the courses 0 to {len(RECIPES[name].courses) - 1}, found {args.first_course}")
        if args.first_course > 0 and not (args.out / name / "config.json").exists():
            parser.error(f"no model to go on from in {args.out / name}; train the courses before {args.first_course}")
    args.out.mkdir(parents=True, exist_ok=True)
    log = Log(args.out / "train.log")
    known: set[str] = set()
    for name, *_ in (*PROBLEM_FILES, *LATER_PROBLEMS):
        (args.out / f"{name}.jsonl").unlink(missing_ok=True)
    for name, count, seed in PROBLEM_FILES:
        write_problems(args.out, name, count, seed, known)
    seen = known | trained_questions(known)  # drawn, not trained yet: an end within the hour that follows loses no file
    for name, count, seed in LATER_PROBLEMS:
        write_problems(args.out, name, count, seed, seen)
    tokenizer = train_tokenizer()
    log(f"tokenizer: {len(tokenizer)} tokens")
    for name in args.model or SHIPPED:
        train_model(name, tokenizer, known, args.out, log, args.first_course)
    write_digests(args.out)


if __name__ == "__main__":
    main()
