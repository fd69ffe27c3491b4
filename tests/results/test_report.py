"""The report says what the records say, the same each time, and drift of any kind is found without drawing."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from record_factory import record
from report_factory import FACTS, MARGINS, make_results, recipes

from selfflow_bench.errors import EXIT_INFRASTRUCTURE, EXIT_USAGE, DamagedFileError
from selfflow_bench.results.comparison import compare
from selfflow_bench.results.curve_points import flops_at, seconds_at
from selfflow_bench.results.record import Record
from selfflow_bench.results.record_files import write as write_record
from selfflow_bench.results.report.curves import Curves
from selfflow_bench.results.report.drawing import forest_svg, panel_svg
from selfflow_bench.results.report.files import check, write
from selfflow_bench.results.report.overview import overview


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    results = make_results(root)
    write(results, recipes(results), results / "report.html")
    return results


@pytest.fixture
def results(written: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    shutil.copytree(written.parent, tmp_path / "copy")
    return tmp_path / "copy" / "results"


def drift(results: Path) -> list[str]:
    return check(results, recipes(results), results / "report.html")


def curves(records: list[Record]) -> Curves:
    arms: dict[str, list[Record]] = {}
    for one in records:
        arms.setdefault(one.method.label, []).append(one)
    return Curves(arms, {label: index for index, label in enumerate(arms)})


def test_writing_again_gives_the_same_bytes_and_no_drift(results: Path) -> None:
    before = (results / "report.html").read_bytes()
    write(results, recipes(results), results / "report.html")
    assert (results / "report.html").read_bytes() == before
    assert drift(results) == []


def test_a_new_record_is_drift(results: Path) -> None:
    write_record(record("vanilla", 3, loss=0.6), results)
    lines = drift(results)
    assert any(line.startswith("+") and "sana-micro-vanilla-s3" in line for line in lines)
    assert any(re.match(r"[-+].*<!--drawn ", line) for line in lines), "its curves are other ones"


def test_an_edited_text_an_edited_drawing_and_other_samples_are_drift(results: Path) -> None:
    page = results / "report.html"
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("not run", "reproduced", 1), encoding="utf-8")
    assert any("reproduced" in line for line in drift(results))
    page.write_text(re.sub(r'(class="s1 seed" d="M)\d', r"\g<1>9", text, count=1), encoding="utf-8")
    assert re.fullmatch(r"report.html: the drawing [0-9a-f]{16} was edited", "\n".join(drift(results)))
    page.write_text(text, encoding="utf-8")
    shutil.copy(results / "figures/sana-micro/vanilla.png", results / "figures/sana-micro/self_flow.png")
    assert len(drift(results)) > 0
    page.unlink()
    assert len(drift(results)) > 100


def test_checking_draws_nothing(results: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; from report_factory import recipes\n"
        "from selfflow_bench.results.report.files import check; root = Path(sys.argv[1])\n"
        "assert check(root / 'results', recipes(root / 'results'), root / 'results/report.html') == []\n"
        "print(*sorted({'torch', 'matplotlib', 'PIL', 'soundfile'} & set(sys.modules)))\n"
    )
    line = [sys.executable, "-c", code, str(results.parent), str(Path(__file__).parent)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_command_writes_checks_and_exports(results: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "selfflow_bench", "--results", str(results), *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)

    stale = run("report", "--check")
    assert stale.returncode == EXIT_INFRASTRUCTURE, "the project has more recipes than the facts it was made with"
    assert "selfflow-bench report" in stale.stderr
    assert run("report").returncode == 0
    assert run("report", "--check").stdout == "The report is up to date.\n"
    exported = run("export", "sana-micro-self_flow-s1")
    assert exported.returncode == 0, exported.stderr
    assert "name: sana-micro-self_flow-s1" in exported.stdout
    wrong = run("export", "sana-wrong")
    assert wrong.returncode == EXIT_USAGE
    assert "the record is invalidated: its data was another" in wrong.stderr.replace("\n", " ")


def test_another_place_gets_links_that_lead_there(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "site" / "deep" / "index.html"
    write(results, recipes(results), page)
    links = re.findall(r'href="([^"#]*records/[^"]*\.json)"', page.read_text(encoding="utf-8"))
    assert len(set(links)) == 18
    assert all((page.parent / link).resolve().is_file() for link in links)


def test_what_does_not_count_is_shown_and_text_from_records_is_escaped(written: Path) -> None:
    text = (written / "report.html").read_text(encoding="utf-8")
    apart = text[text.index('id="apart"') :]
    for what in (
        "sana-micro-self_flow-s3",
        "sana-wrong",
        "its data was another",
        "torn.json",
        "training.samples = 640",
    ):
        assert what in apart
    assert "never ranked: 1." in apart
    assert "&lt;b&gt;&amp;hostile&lt;/b&gt;" in text
    assert "<b>" not in text
    assert "Not yet run:</strong> flux." in text
    assert "sampling failed" in text, "a missing metric says why"
    assert "</strong> in self_flow, seed 0: features collapsed: after 640 samples." in text


def test_each_mean_leads_to_the_records_it_is_made_of(written: Path) -> None:
    text = (written / "report.html").read_text(encoding="utf-8")
    section = text[text.index('id="sana-micro"') : text.index('id="wan-micro"')]
    row = re.search(r'<tr><th scope="row">self_flow</th>\s*<td>(.*?)</td>', section, re.DOTALL)
    assert row is not None
    assert re.findall(r'href="([^"]+)"', row[1]) == [
        f"records/sana/micro/sana-micro-self_flow-s{n}.json" for n in range(3)
    ]


def test_nothing_measured_is_a_page_too(tmp_path: Path) -> None:
    write(tmp_path / "results", recipes(tmp_path / "results"), tmp_path / "results/report.html")
    text = (tmp_path / "results/report.html").read_text(encoding="utf-8")
    assert "No matched runs of Self-Flow have been recorded yet." in text
    assert "The ledger is empty." in text


def test_a_claim_stands_beside_what_was_measured_of_its_method(written: Path) -> None:
    text = (written / "report.html").read_text(encoding="utf-8")
    row = text[text.index('id="claims"') :]
    assert "<strong>not run</strong>: needs a GPU" in row
    assert re.search(r'<a href="#glance">self_flow</a> in 3 small families; KID: .*not measured 1', row)


def test_a_damaged_ledger_is_named(results: Path) -> None:
    ledger = results / "claims.toml"
    ledger.write_text(ledger.read_text(encoding="utf-8").replace("steps_k", "steps"), encoding="utf-8")
    with pytest.raises(DamagedFileError, match=r"claims.toml: tables.0.claims.0.steps_k: Field required"):
        drift(results)


def test_curves_stand_against_samples_flops_and_time(matched: list[Record]) -> None:
    loss, training, kid = curves(matched).against_effort()
    assert [panel.horizontal for panel in training.panels] == [
        "samples seen (thousand)",
        "training FLOPs (TFLOP)",
        "training time (seconds)",
    ]
    by_samples, by_flops, by_time, relative = loss.panels
    assert [line.label for line in by_samples.lines] == ["vanilla", "self_flow"]
    vanilla, ours = (line.mean[-1] for line in by_flops.lines)
    assert vanilla[0] == pytest.approx(12_800 * 4e9 / 1e12)
    assert ours[0] / vanilla[0] == pytest.approx(1.22)
    assert by_time.lines[0].mean[-1][0] == pytest.approx(12_800 / 160)
    assert vanilla[1] == pytest.approx((0.5508 + 0.5506 + 0.5548) / 3)
    assert [line.label for line in relative.lines] == ["self_flow"], "vanilla is the zero line"
    assert relative.lines[0].mean[-1][1] == pytest.approx(2.18, abs=0.02)
    assert [len(line.mean) for line in kid.panels[0].lines] == [2, 2], "untrained weights and the end"


def test_no_count_and_no_clock_leave_those_axes_out(matched: list[Record]) -> None:
    bare = [record(one.method.label, one.seed.index, cost={}, curve=[]) for one in matched]
    loss, *others = curves(bare).against_effort()
    assert [panel.horizontal for panel in loss.panels] == ["samples seen (thousand)"] * 2
    assert [group.title for group in others] == ["KID"]
    assert (seconds_at(bare[0], 640), flops_at(bare[0], 640)) == (None, None)


def test_seconds_between_two_rows_are_on_the_line() -> None:
    made = record()
    assert seconds_at(made, 960) == pytest.approx(6.0)
    assert seconds_at(made, 320) == pytest.approx(2.0)
    assert seconds_at(made, 12_800) == pytest.approx(80.0)
    assert seconds_at(made, 12_801) is None


def test_drawings_are_small_and_take_their_colours_from_the_page(matched: list[Record]) -> None:
    groups = [*curves(matched).against_effort(), curves(matched).by_noise_level(), curves(matched).health()]
    drawn = [panel_svg(panel) for group in groups for panel in group.panels]
    drawn += [forest_svg(forest) for forest in overview([compare(matched, MARGINS)], FACTS).forests]
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"]
        assert not re.search(r"#[0-9a-fA-F]{3,6}|style=|id=|url\(", svg)
        assert len(svg) < 6000
    first = ElementTree.fromstring(drawn[0])
    classes = [element.get("class") for element in first]
    assert [classes.count(f"s{index} seed") for index in (0, 1)] == [3, 3]
    assert [classes.count(f"s{index} mean") for index in (0, 1)] == [1, 1]


def test_a_drawn_line_passes_where_its_points_are(matched: list[Record]) -> None:
    """Heights of the first panel's line are linear in its values."""
    panel = curves(matched).against_effort()[0].panels[0]
    root = ElementTree.fromstring(panel_svg(panel))
    path = next(element for element in root if element.get("class") == "s0 dot")
    found = [tuple(map(float, place.split())) for place in re.findall(r"M([\d.]+ [\d.]+)h0", path.get("d", ""))]
    values = [value for _, value in panel.lines[0].mean]
    assert len(found) == len(values)
    scale = (found[0][1] - found[-1][1]) / (values[0] - values[-1])
    assert scale < 0, "up is more"
    for (_, y), value in zip(found, values, strict=True):
        assert y == pytest.approx(found[0][1] + scale * (value - values[0]), abs=0.11)
