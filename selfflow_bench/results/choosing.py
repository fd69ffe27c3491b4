"""What two words of `compare A B` stand for: which records are set against each other, and in what they may differ.

A word is a record's file or run id, a method of a recipe (``sana:self_flow``), a version of a recipe (``sana@2``), or
the results of another checkout (a folder). Reads records; compares nothing itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfflow_bench.errors import FieldError, SuiteError
from selfflow_bench.results.comparison import Side
from selfflow_bench.results.record import Record
from selfflow_bench.results.record_files import RECORDS, read, read_all

METHOD = ("method.label", "method.settings")
VERSION = ("recipe.digest",)
CHECKOUT: tuple[str, ...] = ()


@dataclass(frozen=True)
class Matchup:
    """Two sides to compare, and the fields in which they may differ."""

    first: Side
    second: Side
    may_differ: Sequence[str]


def matchups(first: str, second: str, root: Path, tier: str) -> list[Matchup]:
    """The comparisons that two words ask for: one, or with versions and checkouts one for each method both have.

    Raises SuiteError naming the word that stands for nothing, or where the two are not of one kind.
    """
    folders = [Path(word) for word in (first, second)]
    if all(folder.is_dir() for folder in folders):
        return _checkouts(_results(folders[0]), _results(folders[1]), tier)
    if all(":" in word for word in (first, second)):
        return [Matchup(_method(first, root, tier), _method(second, root, tier), METHOD)]
    if all("@" in word and ":" not in word for word in (first, second)):
        return _versions(first, second, root, tier)
    sides = [_single(word, root) for word in (first, second)]
    return [Matchup(sides[0], sides[1], METHOD)]


def _single(word: str, root: Path) -> Side:
    path = Path(word)
    if path.suffix == ".json" and path.is_file():
        return Side(path.stem, (read(path),))
    reading = read_all(root)
    found = [record for record in reading.records if record.run_id == word]
    if found:
        return Side(word, (found[0],))
    if word in reading.invalidated:
        raise SuiteError(
            f"{word}: is invalidated ({reading.invalidated[word].reason}), so it is compared with nothing."
        )
    for damaged in reading.damaged:
        if Path(damaged.path).stem == word:
            raise SuiteError(f"{damaged.path}: {damaged.problem}")
    raise FieldError(
        "compare",
        "A or B",
        word,
        f"no record under {root / RECORDS}, nor a file, a recipe's method or version, or a folder of results",
        "Give both as run ids or files, as sana:vanilla, as sana@1, or as folders.",
    )


def _method(word: str, root: Path, tier: str) -> Side:
    recipe, _, label = word.partition(":")
    found = [record for record in _of(recipe, read_all(root).records, tier) if record.method.label == label]
    if not found:
        raise FieldError("compare", "A or B", word, f"there are no {tier} records of it", _there_are(root, tier))
    if "@" not in recipe:
        newest = max(record.recipe.version for record in found)
        found = [record for record in found if record.recipe.version == newest]
    return Side(word, tuple(found))


def _versions(first: str, second: str, root: Path, tier: str) -> list[Matchup]:
    records = read_all(root).records
    sides = [_of(word, records, tier) for word in (first, second)]
    for word, side in zip((first, second), sides, strict=True):
        if not side:
            raise FieldError("compare", "A or B", word, f"there are no {tier} records of it", _there_are(root, tier))
    found = []
    for label in _shared(*sides):
        one, two = (
            Side(f"{word}:{label}", tuple(record for record in side if record.method.label == label))
            for word, side in zip((first, second), sides, strict=True)
        )
        found.append(Matchup(one, two, VERSION))
    if not found:
        raise SuiteError(f"{first} and {second}: no method has {tier} records of both. Run one with both.")
    return found


def _checkouts(first: Path, second: Path, tier: str) -> list[Matchup]:
    names = [str(first.parent.name or first), str(second.parent.name or second)]
    titles = names if names[0] != names[1] else [f"A ({names[0]})", f"B ({names[1]})"]
    sides = [
        [record for record in read_all(folder).records if record.tier == tier and not record.departures]
        for folder in (first, second)
    ]
    found = []
    for recipe in sorted({record.recipe.name for record in sides[0]} & {record.recipe.name for record in sides[1]}):
        chosen = [[record for record in side if record.recipe.name == recipe] for side in sides]
        for label in _shared(*chosen):
            one, two = (
                Side(f"{title}, {recipe}:{label}", tuple(record for record in side if record.method.label == label))
                for title, side in zip(titles, chosen, strict=True)
            )
            found.append(Matchup(one, two, CHECKOUT))
    if not found:
        raise SuiteError(f"{first} and {second}: have no {tier} records of one recipe and method.")
    return found


def _results(folder: Path) -> Path:
    for found in (folder, folder / "results"):
        if (found / RECORDS).is_dir():
            return found.resolve()
    raise FieldError("compare", "A or B", str(folder), f"has no {RECORDS}", "Give a checkout or its results folder.")


def _of(recipe: str, records: Iterable[Record], tier: str) -> list[Record]:
    return [
        record
        for record in records
        if record.tier == tier and not record.departures and recipe in (str(record.recipe), record.recipe.name)
    ]


def _shared(first: Iterable[Record], second: Iterable[Record]) -> list[str]:
    return sorted({record.method.label for record in first} & {record.method.label for record in second})


def _there_are(root: Path, tier: str) -> str:
    words = sorted({f"{r.recipe}:{r.method.label}" for r in read_all(root).records if r.tier == tier})
    return f"There are: {', '.join(words) or 'none'}."
