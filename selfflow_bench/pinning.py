"""Finds the commits of weights and data that a recipe and its protocols leave unpinned, and writes them down.

Asks the hub for names' newest commits and nothing else; downloads nothing. Knows recipes as files and not what they do.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from selfflow_bench.atomic_files import replace_text
from selfflow_bench.errors import FieldError, InfrastructureError
from selfflow_bench.places import Places
from selfflow_bench.recipe import load_protocol, load_recipe
from selfflow_bench.strict_model import UNPINNED

Kind = Literal["model", "dataset"]
_DEADLINE_S = 30.0


@dataclass(frozen=True)
class Loose:
    """A revision that is not pinned: the file, the table in it, and what it is of."""

    file: Path
    table: tuple[str, ...]
    kind: Kind
    id: str


def loose_revisions(places: Places, name: str) -> list[Loose]:
    """The unpinned revisions of a recipe's newest version, or the one named (``sana@1``), and of its protocols."""
    base, _, version = name.partition("@")
    where, recipe = load_recipe(places.recipes, base, int(version) if version.isdecimal() else None)
    found: list[Loose] = []
    for tier, body in recipe.tiers.items():
        if body.checkpoint is not None and body.checkpoint.revision == UNPINNED:
            found.append(Loose(where.path, ("tiers", tier, "checkpoint"), "model", body.checkpoint.id))
        file, protocol = load_protocol(places.recipes, body.protocol)
        hub = protocol.data.hub
        for table, data in (("hub",), hub), (("hub", "validation_from"), hub and hub.validation_from):
            if data is not None and data.revision == UNPINNED:
                found.append(Loose(file.path, ("data", *table), "dataset", data.id))
    return list(dict.fromkeys(found))


def newest_commit(kind: Kind, name: str) -> str:
    """The hub's newest commit of a repository. Raises InfrastructureError where it cannot be had, saying why."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        commit = HfApi().repo_info(name, repo_type=kind, timeout=_DEADLINE_S).sha or ""
    except GatedRepoError as error:
        remedy = "Accept its terms on the hub, and log in: hf auth login"
        raise InfrastructureError(f"{kind} {name}: the hub does not let this user see it. {remedy}") from error
    except RepositoryNotFoundError as error:
        remedy = "Correct its id in the recipe or protocol, or log in if it is private: hf auth login"
        raise InfrastructureError(f"{kind} {name}: the hub has none of that name. {remedy}") from error
    except Exception as error:  # whatever the client's own HTTP library raises where nothing answers
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = "Pin on a machine that reaches the hub, without HF_HUB_OFFLINE."
        raise InfrastructureError(f"{kind} {name}: the hub does not answer ({reason.rstrip('.')}). {remedy}") from error
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise InfrastructureError(f"{kind} {name}: the hub names {commit!r} as its commit, which is none. Try again.")
    return commit


def pin(
    places: Places,
    names: Sequence[str],
    lock_text: Callable[[Places], str],
    ask: Callable[[Kind, str], str] = newest_commit,
) -> dict[Loose, str]:
    """Pin what the named recipes leave open; each revision with the commit it got.

    Everything is asked and checked, and the new lock made, before the first file is written, each whole: what fails
    changes nothing, and a kill in between leaves files that the next call completes.

    Args:
        places: where recipes are.
        names: recipes.
        lock_text: the lock's text for a folder of recipes.
        ask: the commit of a repository.
    """
    wanted = dict.fromkeys(loose for name in names for loose in loose_revisions(places, name))
    answers = {question: ask(*question) for question in dict.fromkeys((one.kind, one.id) for one in wanted)}
    found = {loose: answers[loose.kind, loose.id] for loose in wanted}
    if not found:
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / "recipes"
        shutil.copytree(places.recipes, draft)
        for file, text in _edited(found):
            (draft / file.relative_to(places.recipes)).write_text(text, encoding="utf-8")
        lock = lock_text(replace(places, recipes=draft))
        for file, text in _edited(found):
            replace_text(file, text)
        replace_text(places.recipes / "lock.json", lock)
    return found


def _edited(found: dict[Loose, str]) -> Iterator[tuple[Path, str]]:
    """Each file's new text: comments and layout as they were."""
    import tomlkit

    for file in dict.fromkeys(loose.file for loose in found):
        document = tomlkit.parse(file.read_text(encoding="utf-8"))
        for loose, commit in found.items():
            if loose.file != file:
                continue
            table: Any = document
            for key in loose.table:
                table = table[key]
            if table["revision"] != UNPINNED:
                raise FieldError(file, ".".join(loose.table), table["revision"], "changed meanwhile", "Pin again.")
            table["revision"] = commit
        yield file, tomlkit.dumps(document)
