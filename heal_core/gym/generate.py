"""The child that generates: `python -m heal_core.gym.generate REQUEST`, one JSON line per entry on standard output.

Five of the generators go through Python's sets, one through the global random numbers: so entries are made in a
process whose hashes have a fixed seed (`sources/gym` starts it), each after seeding anew. Lines are
`{"error": ..}` (the settings cannot be meant; nothing follows), `{"row": ..}`, `{"refused": ..}`, and at the
end `{"done": true}`.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from heal_core.errors import InputError
from heal_core.gym.entry import NotStorableError, pack
from heal_core.gym.library import PACKAGE, library_version, make_generator
from heal_core.gym.rules import ORACLE_IN_METADATA
from heal_core.specs import GymSpec, write_spec


def main(arguments: Sequence[str]) -> None:
    """Write the rows of a request, a JSON object of the settings of a source."""
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # as in the verifier's workers
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # some generators print
    for line in make_lines(json.loads(arguments[0])):
        output.write(json.dumps(line, ensure_ascii=True) + "\n")
        output.flush()


def make_lines(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what `main` writes."""
    name, config, curriculum, size, seed = (request[key] for key in ("dataset", "config", "curriculum", "size", "seed"))
    try:
        generator = make_generator(name, config, curriculum, size=size, seed=seed)
    except InputError as error:
        yield {"error": str(error)}
        return
    for index in range(size):
        random.seed(seed + index)
        np.random.seed((seed + index) % 2**32)
        try:
            entry = generator[index]
        except Exception as error:  # noqa: BLE001  some settings leave nothing to generate for some seeds
            yield {"refused": f"generator_failed: {type(error).__name__}: {error}"}
            continue
        yield _row(name, config, curriculum, seed, index, entry)
    yield {"done": True}


def _row(
    name: str, config: dict[str, Any], curriculum: Any, seed: int, index: int, entry: dict[str, Any]
) -> dict[str, Any]:
    """Return the entry as a row, or why it cannot be one."""
    answer = _oracle(name, entry)
    if answer is None:
        return {"refused": "no_answer: the entry has no reference answer"}
    try:
        spec = GymSpec(generator=name, config=config, curriculum=curriculum, entry=pack(entry))
    except NotStorableError as error:
        return {"refused": f"not_storable: {error}"}
    return {
        "row": {
            "question": entry["question"],
            "answer": answer,
            "problem_type": "reasoning_gym",
            "source": f"{PACKAGE}:{name}",
            "uuid": f"{PACKAGE}-{library_version()}:{name}:{seed}:{index}",
            "spec": write_spec(spec),
        }
    }


def _oracle(name: str, entry: dict[str, Any]) -> str | None:
    """Return the reference answer as text."""
    if name not in ORACLE_IN_METADATA:
        answer = entry["answer"]
        return answer if isinstance(answer, str) and answer.strip() else None
    example = entry["metadata"][ORACLE_IN_METADATA[name]]
    return example if isinstance(example, str) else json.dumps(example)


if __name__ == "__main__":
    main(sys.argv[1:])
