"""The board's files: results/README.md between its markers, results/leaderboard.json, the index made whole, and the
table of families in the README of a project that has a place for it.

Written under a lock with the records read inside it, so of two processes that finish together the later one sees both
records. Knows nothing of the board's content.
"""

import difflib
import json
from pathlib import Path

from selfflow_bench.atomic_files import folder_lock, replace_text
from selfflow_bench.errors import SuiteError
from selfflow_bench.results import record_index
from selfflow_bench.results.comparison import Margins
from selfflow_bench.results.families_table import families_table
from selfflow_bench.results.leaderboard import Board, build
from selfflow_bench.results.leaderboard_markdown import markdown
from selfflow_bench.results.record_files import read_all
from selfflow_bench.results.record_index import Index, extended, read_index

BEGIN, END = "<!-- leaderboard:begin -->", "<!-- leaderboard:end -->"
README, DATA = "README.md", "leaderboard.json"
FAMILIES_BEGIN, FAMILIES_END = "<!-- families:begin -->", "<!-- families:end -->"
_NEW_README = f"""# Results

One record per run lies under `records/`; the board below is generated from them, do not edit it by hand.

{BEGIN}
{END}
"""


def update(root: Path, margins: Margins, deadline_s: float = 30.0) -> Board:
    """Bring the files of the results folder `root` up to its records; the board. Records not indexed yet are indexed.

    Raises SuiteError where the README has lost its markers, DamagedFileError where the index is damaged, BusyError
    where another process holds the folder too long.
    """
    with folder_lock(root, deadline_s):
        board, wanted = _wanted(root, margins)
        for path, text in wanted.items():
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                replace_text(path, text)
    return board


def check(root: Path, margins: Margins) -> list[str]:
    """What differs between the files and the records, as lines of a unified diff; empty if nothing does."""
    _, wanted = _wanted(root, margins)
    drift: list[str] = []
    for path, text in wanted.items():
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = difflib.unified_diff(
            found.splitlines(), text.splitlines(), f"{path.name} as it is", f"{path.name} from the records", lineterm=""
        )
        drift += lines
    return drift


def _wanted(root: Path, margins: Margins) -> tuple[Board, dict[Path, str]]:
    reading = read_all(root)
    index = extended(read_index(root), reading.unindexed)
    board = build(reading, margins)
    readme, project = root / README, root.parent / README
    text = readme.read_text(encoding="utf-8") if readme.exists() else _NEW_README
    projects = project.read_text(encoding="utf-8") if project.exists() else ""
    data = json.dumps(board.as_dict(), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return board, {
        **({root / record_index.FILE: index.text} if index.text else {}),
        readme: _between(readme, text, (BEGIN, END), f"{markdown(board)}\n{_index_line(index)}\n"),
        root / DATA: data,
        **(
            {project: _between(project, projects, (FAMILIES_BEGIN, FAMILIES_END), families_table(board))}
            if FAMILIES_BEGIN in projects
            else {}
        ),
    }


def _between(path: Path, text: str, markers: tuple[str, str], made: str) -> str:
    """The text with what is between its markers made anew."""
    begin, end = markers
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise SuiteError(f"{path}: needs the lines {begin} and {end}, once each and in this order. Put them back.")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n\n{made}\n{end}{rest.partition(end)[2]}"


def _index_line(index: Index) -> str:
    """Says how long the index is, so that taking lines off its end shows here."""
    if not index.entries:
        return "The index is empty."
    last = ", ".join(tip[:12] for tip in index.tips)
    return f"Index: {len(index.entries)} lines, the last of sha256 {last}. Check it: `selfflow-bench verify`."
