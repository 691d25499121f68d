"""The exceptions of HEAL; a message says what was expected, what was found, where, and the remedy.

HealError
├── ConfigError (ValueError)      a setting that cannot be meant
├── InputError (ValueError)       a problem file that cannot be used
├── HubError (RuntimeError)       the Hugging Face hub refuses, or cannot be reached
├── ModelError (ValueError)       a model folder that cannot be used as asked
│   └── RequestError              a model that refuses one request; others may pass
├── SandboxError (RuntimeError)   model-written code cannot be shut in on this machine
├── ShapeError (ValueError)       arrays that do not fit together
├── StoreError (RuntimeError)     a workspace that cannot be read or written safely
│   └── WorkspaceBusyError        another run holds the workspace
├── TransientError (RuntimeError) what may pass when tried again
│   ├── EngineStalledError        an engine's child died or went silent
│   ├── TrainingKilledError       the training child was killed
│   └── TrainingStalledError      the training child went silent
├── TrainingError (RuntimeError)  a stage of SFT that could not be trained
├── TooManyFailuresError (RuntimeError)  so much failed that the run cannot go on
└── LimitReachedError (RuntimeError)  a run came to a limit that was set to it; what is finished is stored
    ├── TimeIsUpError             its time is over
    └── BudgetSpentError          it sampled as many tokens as it may

Expected outcomes are values, not exceptions: no breakpoint is `None`, a dropped
repair has a reason.
"""


class HealError(Exception):
    """Base of all errors that HEAL raises on purpose; shown to users without a traceback."""


class ConfigError(HealError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class InputError(HealError, ValueError):
    """A source of problems is missing, empty or has no usable columns."""


class HubError(HealError, RuntimeError):
    """The Hugging Face hub refuses what was asked, or cannot be reached."""


class ModelError(HealError, ValueError):
    """A model folder cannot be read, or lacks what the plan needs."""


class RequestError(ModelError):
    """A model refuses one request: it is too long, its template refuses the text, its logits are not numbers."""


class SandboxError(HealError, RuntimeError):
    """The sandbox for model-written code does not work here, or could not be started."""


class ShapeError(HealError, ValueError):
    """Arrays that must be aligned are not."""


class StoreError(HealError, RuntimeError):
    """The workspace cannot be read or written safely."""


class WorkspaceBusyError(StoreError):
    """Another process holds the workspace."""


class TransientError(HealError, RuntimeError):
    """Something that may pass when tried again; tasks retry only these."""


class EngineStalledError(TransientError):
    """An engine's child process died or gave no sign of life in time."""


class TrainingKilledError(TransientError):
    """The training child was killed, for want of memory or by someone."""


class TrainingStalledError(TransientError):
    """The training child took no optimizer step in time; it goes on from its last checkpoint."""


class TrainingError(HealError, RuntimeError):
    """A stage of SFT could not be trained."""


class EvaluationError(HealError, RuntimeError):
    """lm-evaluation-harness failed on a student."""


class TooManyFailuresError(HealError, RuntimeError):
    """More problems failed than the run may lose."""


class LimitReachedError(HealError, RuntimeError):
    """A run came to a limit that was set to this start of it: it ends cleanly, and the next one goes on from there."""


class TimeIsUpError(LimitReachedError):
    """The time given to a run is over: it ends between two pieces of work."""


class BudgetSpentError(LimitReachedError):
    """A start of a run has sampled as many tokens as it may: it ends between two texts."""


def in_one_line(text: str) -> str:
    """Return the first line of an error, with the last one where the first introduces the end of a log."""
    first, *others = text.strip().splitlines() or [""]
    return f"{first} {others[-1].strip()}" if others and first.endswith(":") else first
