"""Start-up checks of block indices, which count from 1, with the remedy in the message."""

from __future__ import annotations

from selfflow_bench.errors import FieldError
from selfflow_bench.methods.base import Situation


def check_block(situation: Situation, field: str, block: int) -> None:
    """Refuse a block that the transformer does not have."""
    if not 1 <= block <= situation.depth:
        raise FieldError(
            situation.where,
            f"methods.{situation.method}.{field}",
            block,
            "outside the model",
            f"Its blocks are 1 to {situation.depth}.",
        )


def check_deeper(situation: Situation, student: int, teacher: int) -> None:
    """Refuse a teacher's block outside the model or not deeper than the student's."""
    check_block(situation, "teacher_block", teacher)
    if teacher <= student:
        raise FieldError(
            situation.where,
            f"methods.{situation.method}.teacher_block",
            teacher,
            f"not deeper than the student's block {student}",
            f"Set one of {student + 1} to {situation.depth}.",
        )
