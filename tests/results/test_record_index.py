"""The chain: nothing can be changed or taken out unseen, two machines' tails merge, processes lose no line."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from selfflow_bench.errors import DamagedFileError
from selfflow_bench.results.record_index import FILE, Indexed, Invalidation, append, extended, parse, read_index

EMPTY = parse("")
REPOSITORY = Path(__file__).parents[2]


def lines(*names: str) -> list[Indexed]:
    return [Indexed(run_id=name, sha256=f"{ord(name[0]):064x}") for name in names]


def test_a_chain_is_read_as_it_was_written() -> None:
    index = extended(extended(EMPTY, lines("a", "b")), lines("b", "c"))
    assert [one.run_id for one in index.entries] == ["a", "b", "c"], "what it has already is not added again"
    assert index.problems == ()
    assert len(index.tips) == 1
    assert [len(one.after) for one in index.entries] == [0, 1, 1]
    noted = extended(index, [Invalidation(run_id="b", reason="r", evidence="e", date="2026-01-02")])
    assert set(noted.invalidated) == {"b"}


@pytest.mark.parametrize(
    ("change", "line", "says"),
    [
        (lambda text: [text[0], text[1].replace("62", "63"), *text[2:]], 3, "follows a line that is not above it"),
        (lambda text: [text[0], *text[2:]], 2, "follows a line that is not above it"),
        (lambda text: [text[1], text[0], *text[2:]], 1, "follows a line that is not above it"),
        (lambda text: [text[0], text[1].replace('":', '": '), *text[2:]], 2, "was edited"),
        (lambda text: [*text, "{}"], 5, "is no line of an index"),
        (lambda text: [*text, ""], 5, "is no line of an index"),
        (lambda text: [*text, text[0].replace("61", "62")], 5, "follows no line"),
        (lambda text: [*text, text[1].replace('"b"', '"a"')], 5, "gives a another hash"),
    ],
)
def test_what_was_done_to_it_is_found_by_its_line(change: object, line: int, says: str) -> None:
    whole = extended(EMPTY, lines("a", "b", "c", "d")).text.splitlines()
    broken = parse("\n".join(change(whole)) + "\n")  # type: ignore[operator]
    assert (broken.problems[0].line, says in broken.problems[0].text) == (line, True), broken.problems
    with pytest.raises(DamagedFileError, match=f"index.jsonl: line {line} .*version control"):
        extended(broken, lines("e"))


def test_a_cut_line_is_found() -> None:
    text = extended(EMPTY, lines("a", "b")).text
    assert parse(text[:-20]).problems
    assert "no end" in parse(text[:-1]).problems[-1].text


def test_an_invalidation_of_nothing_is_found() -> None:
    line = Invalidation(run_id="x", reason="r", evidence="e", date="2026-01-02")
    assert "not above it" in extended(extended(EMPTY, lines("a")), [line]).problems[0].text


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, timeout=60)


def test_git_merges_the_tails_of_two_machines_and_the_chain_holds(tmp_path: Path) -> None:
    """By the repository's own attributes, without a conflict; the next line follows both tails."""
    root = tmp_path / "results"
    root.mkdir()
    shutil.copy(REPOSITORY / ".gitattributes", tmp_path)
    git(tmp_path, "init", "-b", "main")
    append(root, lambda _: lines("a", "b"))
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-m", "base")
    for branch, names in (("here", "cd"), ("there", "ef")):
        git(tmp_path, "checkout", "-b", branch, "main")
        append(root, lambda _, names=names: lines(*names))  # type: ignore[misc]
        git(tmp_path, "commit", "-am", branch)
    git(tmp_path, "merge", "here", "-m", "merge")
    merged = read_index(root)
    assert merged.problems == ()
    assert {one.run_id for one in merged.entries} == set("abcdef")
    assert len(merged.tips) == 2
    append(root, lambda _: lines("g"))
    after = read_index(root)
    assert (after.problems, len(after.entries[-1].after), len(after.tips)) == ((), 2, 1)
    kept = after.text.splitlines()
    for taken in range(6):
        assert parse("\n".join(kept[:taken] + kept[taken + 1 :]) + "\n").problems, "no line can be taken out"


def test_processes_that_append_at_once_lose_no_line(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from selfflow_bench.results.record_index import Indexed, append\n"
        "for index in range(15):\n"
        "    append(Path(sys.argv[1]), lambda _: [Indexed(run_id=f'{sys.argv[2]}{index}', sha256='0' * 64)])\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "xyz"]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    index = read_index(tmp_path)
    assert (len(index.entries), index.problems) == (45, ())
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
