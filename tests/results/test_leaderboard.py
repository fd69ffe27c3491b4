"""The board: golden text, what is counted and what apart, and two real processes at once."""

import json
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest
from record_factory import FRECHET, KID, MARGINS, record, record_content

from selfflow_bench.atomic_files import BusyError, folder_lock
from selfflow_bench.errors import DamagedFileError, SuiteError
from selfflow_bench.results.comparison import compare
from selfflow_bench.results.leaderboard import build
from selfflow_bench.results.leaderboard_files import BEGIN, END, FAMILIES_BEGIN, FAMILIES_END, check, update
from selfflow_bench.results.leaderboard_markdown import markdown
from selfflow_bench.results.record import Record
from selfflow_bench.results.record_files import Reading, invalidate, record_path, record_text, write
from selfflow_bench.results.record_index import read_index

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
    assert markdown(build(reading(*mixed), MARGINS)) == GOLDEN.read_text(encoding="utf-8")


def test_the_order_of_records_does_not_matter() -> None:
    few = [
        record("vanilla", 0),
        record("self_flow", 0, loss=0.5),
        record("vanilla", 0, run_id="b", created="2026-01-01T00:00:00Z"),
    ]
    texts = {markdown(build(Reading(order, (), {}), MARGINS)) for order in permutations(few)}
    assert len(texts) == 1


def test_of_repeats_the_first_made_counts_however_good_the_others(mixed: list[Record]) -> None:
    [sana, _] = build(reading(*mixed), MARGINS).tables
    [vanilla] = [arm for arm in sana.arms if arm.label == "vanilla"]
    assert (vanilla.repeats, vanilla.seeds) == (1, (0, 1, 2))
    assert vanilla.scores["validation_loss"].mean == pytest.approx((0.5508 + 0.5506 + 0.5548) / 3)


def test_pairs_are_made_on_one_class_of_machine_where_they_can_be() -> None:
    """A method run on another processor is paired with the control's repeat there, however the two differ."""
    here, there = record().hardware, record().hardware.model_copy(update={"cpu": "another"})
    other = there.model_dump()
    made = [
        record(seed=0, loss=0.50),
        record(seed=0, loss=0.40, hardware=other, run_id="again", created="2026-02-02T03:04:05Z"),
        record(seed=0, loss=0.30, hardware=other, run_id="a-third-time", created="2026-03-02T03:04:05Z"),
        record("layersync", seed=0, loss=0.45, hardware=other),
        record("repa", seed=0, loss=0.45),
    ]
    assert here != there
    found = {one.label: one.paired for one in compare(made).differences if one.metric == "validation_loss"}
    assert found["layersync"].mean == pytest.approx(0.05), "the first made there"
    assert found["repa"].mean == pytest.approx(-0.05), "the first made"
    vanilla = compare(made).arms[0]
    assert (vanilla.scores["validation_loss"].mean, vanilla.repeats) == (pytest.approx(0.50), 2)


def test_seconds_beside_other_work_are_not_compared() -> None:
    busy = record("self_flow").timing.model_copy(update={"processor_share": 0.6}).model_dump()
    quiet = {**busy, "processor_share": 0.97}
    for timing, compared in ((busy, False), (quiet, True)):
        found = compare([record(), record("self_flow", timing=timing)])
        assert (found.arms[1].time_over_baseline is not None) is compared
        (at_time,) = (one for one in found.equal if one.axis == "seconds")
        assert (at_time.reason == "timed on a machine that did other work too") is not compared


def test_other_digests_are_listed_apart_and_never_mixed(mixed: list[Record]) -> None:
    board = build(reading(*mixed), MARGINS)
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
        record("self_flow", s, kid=0.4 + s) for s in (1, 0)
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


def verdicts(records: list[Record]) -> dict[str, str]:
    return {one.metric: one.paired.verdict for one in compare(records, MARGINS).differences}


def test_the_verdicts_of_a_table_are_one_family(matched: list[Record]) -> None:
    more = [record("self_flow.paper", seed, loss=0.5642 + seed / 1000) for seed in range(3)]
    few, many = compare(matched, MARGINS), compare([*matched, *more], MARGINS)
    assert {one.paired.family for one in few.differences} == {3}
    assert {one.paired.family for one in many.differences} == {6}
    assert {one.paired.family for one in few.equal} == {3}
    assert few.differences[0].paired.margin_percent == pytest.approx(1.0)
    assert compare(matched).differences[0].paired.margin is None


def test_after_a_seed_without_any_run_none_counts(matched: list[Record]) -> None:
    holed = [one for one in matched if (one.method.label, one.seed.index) != ("self_flow", 1)]
    arm = compare(holed).arms[1]
    assert (arm.seeds, arm.missing, arm.beyond) == ((0,), (1,), (2,))
    text = markdown(build(reading(*holed), MARGINS))
    assert "1 (not counted: seed 2, because seed 1 has no run)" in text
    failed = compare([*holed, record("self_flow", 1, status="failed")])
    assert failed.arms[1].seeds == (0, 2)
    assert failed.arms[1].lost == (1,)


def test_no_verdict_favours_the_method_that_failed_on_a_seed() -> None:
    made = [
        record(label, seed, loss=(0.55 if label == "vanilla" else 0.5) + seed / 1000, kid=0.3 + seed / 1000)
        for seed in range(3)
        for label in ("vanilla", "self_flow")
    ]
    assert verdicts(made) == {"validation_loss": "better", KID: "identical", FRECHET: "better"}
    lost = [*made, record("vanilla", 3), record("self_flow", 3, status="failed")]
    assert set(verdicts(lost).values()) == {"inconclusive"}
    assert {one.lost for one in compare(lost).differences} == {(3,)}
    assert "(failed in one of the two: seed 3)" in markdown(build(reading(*lost), MARGINS))
    base_lost = [*made, record("vanilla", 3, status="failed"), record("self_flow", 3)]
    assert verdicts(base_lost) == {"validation_loss": "better", KID: "inconclusive", FRECHET: "better"}
    both = [*made, record("vanilla", 3, status="failed"), record("self_flow", 3, status="failed")]
    assert verdicts(both) == verdicts(made)


def test_equal_axes_by_hand(matched: list[Record]) -> None:
    """Self-Flow's steps cost 1.22x the FLOPs and all rows have the same seconds; validations at 0, 6,400, 12,800."""
    samples, flops, time = compare(matched, MARGINS).equal
    assert (samples.axis, samples.budget) == ("samples", 12_800)
    assert samples.paired.mean == pytest.approx(0.0121333, abs=1e-6)
    assert (flops.axis, flops.budget) == ("FLOPs", 12_800 * 4e9)
    reached = 12_800 / 1.22
    share = (reached - 6400) / 6400
    wanted = (1.4 + (1.0 - 1.4) * share) * (0.5627 + 0.5625 + 0.5674) / 3
    assert flops.paired.candidate_mean == pytest.approx(wanted)
    assert flops.paired.verdict == "worse"
    assert (time.axis, time.budget) == ("seconds", 80.0)
    assert time.paired.mean == samples.paired.mean


def test_equal_axes_that_cannot_be_say_why(matched: list[Record]) -> None:
    elsewhere = [
        record("self_flow", seed, hardware=record().hardware.model_dump() | {"cores": 64}, cost={}) for seed in range(3)
    ]
    found = compare([*[one for one in matched if one.method.label == "vanilla"], *elsewhere]).equal
    assert [(one.axis, one.reason) for one in found] == [
        ("samples", None),
        ("FLOPs", "a record has no validations with FLOPs"),
        ("seconds", "not on the same class of machine"),
    ]
    [alone] = {one.reason for one in compare([record("vanilla", 0), record("self_flow", 1)]).equal}
    assert alone == "no seed has succeeded in both"


def test_files_are_kept_between_their_markers_and_drift_is_shown(tmp_path: Path, matched: list[Record]) -> None:
    (tmp_path / "README.md").write_text(f"# Mine\n\n{BEGIN}\nold\n{END}\nAfter.\n", encoding="utf-8")
    write(matched[0], tmp_path)
    assert any("old" in line for line in check(tmp_path, MARGINS))
    update(tmp_path, MARGINS)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# Mine\n")
    assert text.endswith(f"{END}\nAfter.\n")
    assert "old" not in text
    assert check(tmp_path, MARGINS) == []
    before = text, (tmp_path / "leaderboard.json").read_bytes()
    update(tmp_path, MARGINS)
    assert (
        (tmp_path / "README.md").read_text(encoding="utf-8"),
        (tmp_path / "leaderboard.json").read_bytes(),
    ) == before
    write(matched[1], tmp_path)
    assert any(line.startswith("+| self_flow") for line in check(tmp_path, MARGINS))
    (tmp_path / "README.md").write_text("no markers", encoding="utf-8")
    with pytest.raises(SuiteError, match=r"README\.md: needs the lines"):
        update(tmp_path, MARGINS)


def test_a_project_s_readme_has_a_line_for_each_recipe_with_both_methods(tmp_path: Path) -> None:
    results, readme = tmp_path / "results", tmp_path / "README.md"
    results.mkdir()
    readme.write_text(f"Before.\n{FAMILIES_BEGIN}\n{FAMILIES_END}\nAfter.\n", encoding="utf-8")
    for one in (
        *(
            record(label, seed, recipe="sana", kid=4.0 + 0.1 * seed)
            for label in ("vanilla", "self_flow")
            for seed in range(3)
        ),
        record("vanilla", recipe="wan", kid=6.0),
        record("self_flow", recipe="wan", kid=5.4),
        record("vanilla", recipe="flux"),
    ):
        write(one, results)
    assert any("sana" in line for line in check(results, MARGINS))
    update(results, MARGINS)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("Before.\n")
    assert text.endswith(f"{FAMILIES_END}\nAfter.\n")
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| `")}
    assert set(rows) == {"`sana`", "`wan`"}
    sana, wan = ([cell.strip() for cell in rows[name].strip("|").split("|")] for name in ("`sana`", "`wan`"))
    assert sana[1:] == [
        "3",
        "1.65, 0.550, 0.550",
        "0 %, identical",
        "5.20, 4.10, 4.10",
        "0 %, identical",
        "1.22×",
        "loss and KID",
    ]
    assert wan[1:] == ["1", "1.65, 0.550, 0.550", "0 %", "5.20, 6.00, 5.40", "-10.0 %", "1.22×", "loss"]
    assert check(results, MARGINS) == []


def test_an_empty_folder_gets_a_board_that_says_so_and_damage_is_named(tmp_path: Path) -> None:
    update(tmp_path, MARGINS)
    assert "No records yet." in (tmp_path / "README.md").read_text(encoding="utf-8")
    path = write(record(), tmp_path)
    path.write_bytes(path.read_bytes()[:500])
    update(tmp_path, MARGINS)
    assert (
        "Damaged and not counted: records/sana/micro/sana-micro-vanilla-s0.json" in (tmp_path / "README.md").read_text()
    )


def test_records_made_elsewhere_are_indexed_with_the_board_in_the_order_they_were_made(tmp_path: Path) -> None:
    for seed, day in ((0, 3), (1, 1), (2, 2)):
        made = record(seed=seed, created=f"2026-01-0{day}T00:00:00Z")
        path = record_path(made, tmp_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(record_text(made), encoding="utf-8")
    assert any("index.jsonl" in line for line in check(tmp_path, MARGINS))
    update(tmp_path, MARGINS)
    assert [one.run_id[-2:] for one in read_index(tmp_path).entries] == ["s1", "s2", "s0"]
    assert check(tmp_path, MARGINS) == []
    invalidate(record(seed=2).run_id, "the disk was full", "its log", tmp_path)
    update(tmp_path, MARGINS)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "sana-micro-vanilla-s2. Reason: the disk was full. Evidence: its log." in text
    assert "Index: 4 lines" in text
    (tmp_path / "index.jsonl").write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(DamagedFileError, match="line 1 is no line of an index"):
        update(tmp_path, MARGINS)


def test_two_processes_finishing_at_once_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from selfflow_bench.results.record import Record\n"
        "from selfflow_bench.results.record_files import write\n"
        "from selfflow_bench.results.leaderboard_files import update\n"
        "root = Path(sys.argv[1])\n"
        "for line in sys.stdin:\n"
        "    write(Record.model_validate_json(line), root); update(root, {})\n"
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
    assert check(tmp_path, {}) == []
    data = json.loads((tmp_path / "leaderboard.json").read_text(encoding="utf-8"))
    assert [arm["seeds"] for arm in data["tables"][0]["arms"]] == [list(range(6))] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        "index.jsonl",
        "leaderboard.json",
        "records",
    ]
    index = read_index(tmp_path)
    assert (len(index.hashes), index.problems) == (12, ())


def test_a_folder_held_by_another_process_is_given_up_at_the_deadline_and_freed_by_its_death(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from selfflow_bench.atomic_files import folder_lock\n"
        "with folder_lock(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(600)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BusyError, match=r"another process has been writing for 0\.1 s"):
        update(tmp_path, MARGINS, deadline_s=0.1)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with folder_lock(tmp_path, deadline_s=5):
        pass


def test_what_nothing_pins_is_open_and_ranks_nowhere() -> None:
    """The same run would be other weights or other data tomorrow."""
    loose = record("self_flow", 0, tier="reference", run_id="loose", unpinned=("checkpoint.revision",))
    pinned = record("vanilla", 0, tier="reference")
    board = build(reading(pinned, loose), MARGINS)
    assert [arm.label for table in board.tables for arm in table.arms] == ["vanilla"]
    assert [(one.run_id, one.overrides) for one in board.open] == [("loose", {"checkpoint.revision": "unpinned"})]
    assert "checkpoint.revision = unpinned" in markdown(board)
