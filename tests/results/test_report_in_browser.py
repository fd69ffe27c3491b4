"""The report in headless Chromium: it opens, reads, plays, leads where it says, and asks nobody for anything."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright
from report_factory import make_results, recipes

from selfflow_bench.places import default_places
from selfflow_bench.results.report.files import FILE, write

PHONE, DESKTOP = (390, 844), (1280, 900)
DEADLINE_MS = 60_000
# Text in drawings, which axe leaves out: its colour against the card it stands on.
CONTRAST = """() => {
  const light = (text) => { const [r, g, b] = text.match(/[0-9.]+/g).map(Number).map((value) => {
    const c = value / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  return [...document.querySelectorAll('.plot svg text')].map((text) => {
    const one = light(getComputedStyle(text).fill);
    const two = light(getComputedStyle(text.closest('.plot')).backgroundColor);
    return (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05); });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        missing = "no Chromium on this machine; on Debian: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    # Chromium refuses to run as root in its sandbox.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=options, timeout=DEADLINE_MS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of every kind of record and media."""
    root = tmp_path_factory.mktemp("report")
    results = make_results(root)
    write(results, recipes(results), results / FILE)
    return results / FILE


@pytest.fixture(params=["made", "committed"])
def report(request: pytest.FixtureRequest, made: Path) -> Path:
    return made if request.param == "made" else default_places().results / FILE


class Visit:
    """A page that is open, with everything it said and asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.set_default_timeout(DEADLINE_MS)
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    page = browser.new_page()
    yield Visit(page)
    page.context.close()


def opened(visit: Visit, report: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Page:
    visit.page.set_viewport_size({"width": size[0], "height": size[1]})
    visit.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    visit.page.goto(report.as_uri(), timeout=DEADLINE_MS)
    return visit.page


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_it_opens_quietly_asks_for_nothing_and_fits(visit: Visit, report: Path, size: tuple[int, int]) -> None:
    page = opened(visit, report, size)
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert visit.said == []
    assert [url for url in visit.asked if not url.startswith("data:")] == [report.as_uri()]
    assert page.evaluate("document.scripts.length") == 0


def test_links_and_anchors_lead_somewhere(visit: Visit, report: Path) -> None:
    page = opened(visit, report)
    links = page.eval_on_selector_all("a[href]", "(all) => all.map((one) => one.getAttribute('href'))")
    ids = page.eval_on_selector_all("[id]", "(all) => all.map((one) => one.id)")
    assert len(ids) == len(set(ids))
    inside = [link[1:] for link in links if link.startswith("#")]
    outside = [link for link in links if link.startswith("https://")]
    files = sorted(set(links) - {f"#{name}" for name in inside} - set(outside))
    assert set(inside) <= set(ids)
    assert len(files) > 20
    missing = [link for link in files if not (report.parent / unquote(urlsplit(link).path)).resolve().is_file()]
    assert missing == []


def test_pictures_are_drawn_clips_move_and_notes_can_be_heard(visit: Visit, made: Path) -> None:
    page = opened(visit, made)
    page.locator("summary", has_text="Play the clips of self_flow").click()
    assert page.get_by_alt_text("frames of clips of self_flow", exact=False).last.is_visible()
    widths = page.eval_on_selector_all(
        "img", "(all) => Promise.all(all.map((one) => one.decode().then(() => one.naturalWidth)))"
    )
    assert len(widths) == 10
    assert min(widths) > 100
    lengths = page.eval_on_selector_all(
        "audio",
        """(all) => Promise.all(all.map((one) => new Promise((done, failed) => {
             one.onloadedmetadata = () => done(one.duration);
             one.onerror = () => failed(one.error.message);
             one.load() })))""",
    )
    assert lengths == [pytest.approx(6 * 1.15, abs=0.3)] * 4
    moving = page.evaluate(
        """async () => { const one = [...document.images].find((image) => image.alt.endsWith('moving'));
             const decoder = new ImageDecoder({ data: await (await fetch(one.src)).arrayBuffer(), type: 'image/webp' });
             await decoder.tracks.ready; return decoder.tracks.selectedTrack.frameCount }"""
    )
    assert moving == 4


def test_it_folds_and_unfolds_without_javascript(browser: Browser, made: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(made.as_uri(), timeout=DEADLINE_MS)
    runs = page.get_by_text("sana-micro-self_flow-s1", exact=True)
    assert not runs.is_visible()
    page.locator("#sana-micro summary", has_text="Every run behind these numbers").click()
    assert runs.is_visible()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_drawings_have_contrast(visit: Visit, made: Path, scheme: str) -> None:
    page = opened(visit, made, PHONE, scheme)
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true })")
    ratios = page.evaluate(CONTRAST)
    assert len(ratios) > 100
    assert min(ratios) >= 4.5
    found = Axe().run(page, options={"resultTypes": ["violations"]})
    assert found.violations_count == 0, found.generate_report()


def test_dark_is_dark(visit: Visit, made: Path) -> None:
    colours = []
    for scheme in ("light", "dark"):
        page = opened(visit, made, DESKTOP, scheme)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    light, dark = (sum(int(part) for part in colour[4:-1].split(",")) for colour in colours)
    assert light > 700
    assert dark < 120
