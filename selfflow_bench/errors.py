"""Errors a user can act on, and the exit code each one ends the command with. Knows nothing of what raises them."""

from pathlib import Path
from typing import Any

EXIT_USAGE = 2
EXIT_INFRASTRUCTURE = 3
EXIT_INCONCLUSIVE = 4
EXIT_NOTHING_MEASURED = 5
EXIT_REGRESSION = 6
EXIT_INTERRUPTED = 130


class SuiteError(Exception):
    """Something the user can mend. The message says what was wrong, where, and what to do."""

    exit_code = EXIT_USAGE


class FieldError(SuiteError):
    """A value that cannot be used: names the file, the field and the value, and what to set instead."""

    def __init__(self, where: str | Path, field: str, value: object, problem: str, remedy: str) -> None:
        self.where, self.field, self.value = str(where), field, value
        self.reason = (problem, remedy)
        super().__init__(f"{where}: {field} = {value!r}: {problem}. {remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Its parts, so that it comes back whole from a process of a pool."""
        return type(self), (self.where, self.field, self.value, *self.reason)


class InfrastructureError(SuiteError):
    """Not the run's fault and not the user's: a process was killed, hung, or is in the way. Trying again can help."""

    exit_code = EXIT_INFRASTRUCTURE


class DamagedFileError(SuiteError):
    """A file whose content is not what its checksum or its format says."""

    exit_code = EXIT_INFRASTRUCTURE


class NonFiniteLossError(SuiteError):
    """Training produced a loss that is not a number. The run's own failure: recorded, never retried."""

    exit_code = EXIT_INFRASTRUCTURE


class InterruptedRunError(SuiteError):
    """The run was asked to stop (SIGTERM or Ctrl-C) and has written its checkpoint."""

    exit_code = EXIT_INTERRUPTED
