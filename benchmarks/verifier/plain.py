"""The peer: math-verify's own `parse` and `verify` with their defaults, in a process that can be killed.

Both sides are given as it documents it: the reference in a box, the completion whole.
"""

from __future__ import annotations

import logging
import multiprocessing
import resource
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection

from benchmarks.verifier.triples import Triple

_LIMIT_SECONDS = 30.0  # its own limits are 5 s a call; this one is for what they do not stop
_MAX_MEMORY_BYTES = 4 * 2**30


def grade_plainly(triples: Sequence[Triple]) -> list[str]:
    """Return "correct", "wrong", or "unverifiable" where math-verify hung, died or raised, in the order given."""
    labels: list[str] = []
    while len(labels) < len(triples):
        labels += _grade_until_it_fails(triples[len(labels) :])
    return labels


def _grade_until_it_fails(triples: Sequence[Triple]) -> Iterator[str]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, triples), daemon=True)
    process.start()
    theirs.close()  # or its death would not be noticed
    try:
        for _ in triples:
            if not ours.poll(_LIMIT_SECONDS):
                yield "unverifiable"
                return
            yield str(ours.recv())
    except EOFError:
        yield "unverifiable"
    finally:
        process.kill()
        process.join()


def _serve(connection: Connection, triples: Sequence[Triple]) -> None:
    from math_verify import parse, verify

    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    logging.disable(logging.CRITICAL)
    for triple in triples:
        is_correct = verify(parse(f"\\boxed{{{triple.gold}}}"), parse(triple.completion))
        connection.send("correct" if is_correct else "wrong")
