"""The board: golden text, what is counted and what apart, and two real processes at once."""

import json
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest
from record_factory import KID, record, record_content

from selfflow_bench.atomic_files import BusyError, folder_lock
from selfflow_bench.errors import SuiteError
from selfflow_bench.results.comparison import compare
from selfflow_bench.results.leaderboard import build
from selfflow_bench.results.leaderboard_files import BEGIN, END, check, update
from selfflow_bench.results.leaderboard_markdown import markdown
from selfflow_bench.results.record import Record
from selfflow_bench.results.record_files import Reading, record_text, write

GOLDEN = Path(__file__).with_name("golden") / "leaderboard.md"


def reading(*records: Record) -> Reading:
    return Reading(tuple(sorted(records, key=lambda one: one.run_id)), (), {})


@pytest.fixture
def mixed(matched: list[Record]) -> list[Record]:
    """Everything a board can meet."""
    return [
        *matched,
        record("self_flow", 3, status="failed"),
        record("vanilla", 0, run_id="repeat", created="2026-03-03T00:00:00Z", loss=0.1, kid=0.01),
        record("self_flow", 0, run_id="shorter", overrides={"training.samples": 640}),
        record("vanilla", 0, run_id="smoke", tier="smoke"),
        record("vanilla", 0, recipe="wan", kid=None),
        record("self_flow", 0, recipe="wan"),
        record("vanilla", 0, recipe="wan", version=2, run_id="wan-new"),
        record("self_flow", 0, recipe="wan", version=2, run_id="wan-new-self_flow", loss=0.52),
    ]


def test_the_board_is_as_it_was(mixed: list[Record]) -> None:
    """To renew the golden file after a wanted change: write `markdown(build(...))` into it and read the diff."""
    assert markdown(build(reading(*mixed))) == GOLDEN.read_text(encoding="utf-8")


def test_the_order_of_records_does_not_matter() -> None:
    few = [
        record("vanilla", 0),
        record("self_flow", 0, loss=0.5),
        record("vanilla", 0, run_id="b", created="2026-01-01T00:00:00Z"),
    ]
    texts = {markdown(build(Reading(order, (), {}))) for order in permutations(few)}
    assert len(texts) == 1


def test_of_repeats_the_first_made_counts_however_good_the_others(mixed: list[Record]) -> None:
    [sana, _] = build(reading(*mixed)).tables
    [vanilla] = [arm for arm in sana.arms if arm.label == "vanilla"]
    assert (vanilla.repeats, vanilla.seeds) == (1, (0, 1, 2))
    assert vanilla.scores["validation_loss"].mean == pytest.approx((0.5508 + 0.5506 + 0.5548) / 3)


def test_other_digests_are_listed_apart_and_never_mixed(mixed: list[Record]) -> None:
    board = build(reading(*mixed))
    assert [(table.recipe, table.tier) for table in board.tables] == [("sana@1", "micro"), ("wan@2", "micro")]
    assert {one.run_id for one in board.superseded} == {"wan-micro-vanilla-s0", "wan-micro-self_flow-s0"}
    assert [one.run_id for one in board.open] == ["shorter"]
    assert board.smoke == 1
    assert [one.run_id for one in board.failed] == ["sana-micro-self_flow-s3"]


def test_comparing_what_is_not_comparable_names_the_field() -> None:
    content = record_content(run_id="b")
    content["protocol"]["digest"] = "00" * 32
    for other, field in (
        (record(recipe="wan"), "recipe.name"),
        (record(version=2, run_id="b"), "recipe.digest"),
        (record(tier="smoke"), "tier"),
        (Record.model_validate(content), "protocol.digest"),
        (record(run_id="b", overrides={"a": 1}), "overrides"),
    ):
        with pytest.raises(SuiteError, match=f"differ in {field}"):
            compare([record(), other])
    with pytest.raises(SuiteError, match="there are no records"):
        compare([])


def test_pairs_are_by_seed_and_costs_are_relative_to_the_baseline() -> None:
    records = [record("vanilla", s, kid=0.3 + s) for s in range(3)] + [
        record("self_flow", s, kid=0.4 + s) for s in (2, 1)
    ]
    found = compare(records)
    [kid] = [one for one in found.differences if one.metric == KID]
    assert (kid.paired.n, kid.paired.mean) == (2, pytest.approx(0.1))
    arm = found.arms[1]
    assert (arm.flops_over_baseline, arm.time_over_baseline) == (pytest.approx(1.22), pytest.approx(1.25))
    other = record("self_flow", 0, hardware=record().hardware.model_dump() | {"cores": 64})
    assert compare([record(), other]).arms[1].time_over_baseline is None
    json.dumps(found.as_dict(), allow_nan=False)


def test_a_metric_missing_in_one_arm_is_not_compared() -> None:
    found = compare([record("vanilla", 0, kid=None), record("self_flow", 0)])
    [kid] = [one for one in found.differences if one.metric == KID]
    assert kid.paired.verdict == "not measured"
    assert found.arms[0].scores[KID].reason == "sampling failed"


def test_settings_that_differ_under_one_label_are_two_rows() -> None:
    content = record_content("self_flow", 1)
    content["method"]["settings"]["weight"] = 0.8
    found = compare([record(), record("self_flow", 0), Record.model_validate(content)])
    assert len(found.arms) == 3
    assert all(arm.label.startswith("self_flow (") for arm in found.arms[1:])


def test_files_are_kept_between_their_markers_and_drift_is_shown(tmp_path: Path, matched: list[Record]) -> None:
    (tmp_path / "README.md").write_text(f"# Mine\n\n{BEGIN}\nold\n{END}\nAfter.\n", encoding="utf-8")
    write(matched[0], tmp_path)
    assert any("old" in line for line in check(tmp_path))
    update(tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# Mine\n")
    assert text.endswith(f"{END}\nAfter.\n")
    assert "old" not in text
    assert check(tmp_path) == []
    before = text, (tmp_path / "leaderboard.json").read_bytes()
    update(tmp_path)
    assert (
        (tmp_path / "README.md").read_text(encoding="utf-8"),
        (tmp_path / "leaderboard.json").read_bytes(),
    ) == before
    write(matched[1], tmp_path)
    assert any(line.startswith("+| self_flow") for line in check(tmp_path))
    (tmp_path / "README.md").write_text("no markers", encoding="utf-8")
    with pytest.raises(SuiteError, match=r"README\.md: needs the lines"):
        update(tmp_path)


def test_an_empty_folder_gets_a_board_that_says_so_and_damage_is_named(tmp_path: Path) -> None:
    update(tmp_path)
    assert "No records yet." in (tmp_path / "README.md").read_text(encoding="utf-8")
    path = write(record(), tmp_path)
    path.write_bytes(path.read_bytes()[:500])
    update(tmp_path)
    assert (
        "Damaged and not counted: records/sana/micro/sana-micro-vanilla-s0.json" in (tmp_path / "README.md").read_text()
    )


def test_two_processes_finishing_at_once_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from selfflow_bench.results.record import Record\n"
        "from selfflow_bench.results.record_files import write\n"
        "from selfflow_bench.results.leaderboard_files import update\n"
        "root = Path(sys.argv[1])\n"
        "for line in sys.stdin:\n"
        "    write(Record.model_validate_json(line), root); update(root)\n"
    )
    batches = [[record(label, seed) for seed in range(6)] for label in ("vanilla", "self_flow")]
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, text=True) for _ in batches
    ]
    for process, batch in zip(processes, batches, strict=True):
        assert process.stdin is not None
        process.stdin.write("".join(record_text(one).replace("\n", " ") + "\n" for one in batch))
        process.stdin.close()
    assert [process.wait() for process in processes] == [0, 0]
    assert check(tmp_path) == []
    data = json.loads((tmp_path / "leaderboard.json").read_text(encoding="utf-8"))
    assert [arm["seeds"] for arm in data["tables"][0]["arms"]] == [list(range(6))] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "leaderboard.json", "records"]


def test_a_folder_held_by_another_process_is_given_up_at_the_deadline_and_freed_by_its_death(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from selfflow_bench.atomic_files import folder_lock\n"
        "with folder_lock(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(600)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BusyError, match=r"another process has been writing for 0\.1 s"):
        update(tmp_path, deadline_s=0.1)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with folder_lock(tmp_path, deadline_s=5):
        pass
