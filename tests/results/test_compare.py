"""`compare A B` in each of its forms; what is not comparable is refused by its field."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from record_factory import MARGINS, record

from selfflow_bench.errors import SuiteError
from selfflow_bench.results.choosing import matchups
from selfflow_bench.results.comparison import Comparison, compare_sides
from selfflow_bench.results.leaderboard_markdown import comparison_markdown
from selfflow_bench.results.record import Record
from selfflow_bench.results.record_files import invalidate, write


def compared(results: Path, first: str, second: str) -> list[Comparison]:
    return [
        compare_sides(one.first, one.second, may_differ=one.may_differ, margins=MARGINS)
        for one in matchups(first, second, results, "micro")
    ]


@pytest.fixture
def results(tmp_path: Path, matched: list[Record]) -> Path:
    for one in matched:
        write(one, tmp_path / "results")
    return tmp_path / "results"


def test_the_command_prints_a_table_markdown_or_json(results: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "selfflow_bench", "--results", str(results), "compare", *words]
        return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)

    done = run("sana:vanilla", "sana:self_flow")
    assert done.returncode == 0, done.stderr
    assert "worse" in done.stdout
    assert "minus sana:vanilla, same seed; 3 seeds" in done.stdout
    text = run("sana:self_flow", "sana@1:vanilla", "--markdown").stdout
    assert "### sana:self_flow and sana@1:vanilla: sana@1, micro" in text
    assert "| sana@1:vanilla | validation loss | -0.0121 |" in text
    assert "better" in text
    [found] = json.loads(run("sana:vanilla", "sana:self_flow", "--json").stdout)["comparisons"]
    assert found["differences"][0]["paired"]["margin_percent"] == pytest.approx(1.0)
    refused = run("sana:vanilla", "wan:vanilla")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: ")


def test_two_records_by_run_id_or_file_get_no_verdict(results: Path) -> None:
    file = results / "records/sana/micro/sana-micro-self_flow-s0.json"
    [found] = compared(results, "sana-micro-vanilla-s0", str(file))
    assert {one.paired.verdict for one in found.differences} == {"n = 1: no verdict"}


def test_versions_are_compared_by_their_means_where_the_protocol_is_one(results: Path) -> None:
    for seed in range(3):
        write(record("vanilla", seed, version=2, run_id=f"new-{seed}", loss=0.51 + seed / 1000), results)
    [found] = compared(results, "sana@1", "sana@2")
    assert found.recipe == "sana@1, sana@2"
    loss = found.differences[0].paired
    assert (loss.by_seed, loss.verdict, loss.correlation) == (False, "better", None)
    assert found.equal == ()
    assert "no seeds are shared" in comparison_markdown(found)
    for seed in range(2):
        content = {"name": "image-micro", "version": 2, "digest": "cd" * 32}
        write(record("vanilla", seed, version=3, run_id=f"newest-{seed}", protocol=content), results)
    with pytest.raises(SuiteError, match=r"differ in protocol\.digest \(abab"):
        compared(results, "sana@1", "sana@3")


def test_two_checkouts_are_compared_method_by_method(results: Path, tmp_path: Path) -> None:
    """The same seeds by another state of the code; `results` itself and the folder above it both do."""
    other = tmp_path / "other"
    for seed in range(3):
        write(record("vanilla", seed, loss=0.6 + seed / 1000), other / "results")
    [found] = compared(results, str(results), str(other))
    assert found.differences[0].paired.verdict == "worse"
    assert [arm.label for arm in found.arms] == [f"{tmp_path.name}, sana:vanilla", "other, sana:vanilla"]
    settings = record("self_flow", 0).method.model_dump() | {"settings": {"mask_ratio": 0.5}}
    write(record("self_flow", 0, method=settings), other / "results")
    with pytest.raises(SuiteError, match=r"differ in method\.settings"):
        compared(results, str(results), str(other))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("sana:vanilla", "wan:vanilla"), "differ in recipe.name (sana and wan)"),
        (("sana-micro-vanilla-s0", "sana-smoke-vanilla-s0"), "differ in tier (micro and smoke)"),
        (("sana-micro-vanilla-s0", "sana-micro-self_flow-s1"), "differ in seed.index (0 and 1)"),
        (("sana-micro-vanilla-s0", "shorter"), "differ in overrides ({} and {"),
        (("sana:vanilla", "sana:repa"), "'sana:repa': there are no micro records of it. There are: sana@1:self_flow"),
        (("sana:vanilla", "sana:vanilla"), "is compared with itself"),
        (("nothing", "sana-micro-vanilla-s0"), "'nothing': no record under"),
        (("sana@1", "sana@9"), "'sana@9': there are no micro records of it"),
        (("sana-micro-vanilla-s2", "sana-micro-vanilla-s0"), "is invalidated (it swapped)"),
        (("sana-micro-vanilla-s0", "sana-micro-self_flow-s2"), "sana-micro-self_flow-s2.json: was"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_its_field(results: Path, words: tuple[str, str], says: str) -> None:
    write(record("vanilla", 0, recipe="wan"), results)
    write(record("vanilla", 0, tier="smoke"), results)
    write(record("vanilla", 0, run_id="shorter", overrides={"training.samples": 640}), results)
    invalidate("sana-micro-vanilla-s2", "it swapped", "its log", results)
    edited = results / "records/sana/micro/sana-micro-self_flow-s2.json"
    edited.write_text(edited.read_text().replace("12800", "12801"), encoding="utf-8")
    with pytest.raises(SuiteError) as caught:
        compared(results, *words)
    assert says in str(caught.value)
