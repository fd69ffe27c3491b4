"""What stands on the terminal when a run ends, and how numbers are written."""

import io

import pytest
from record_factory import MARGINS, record
from rich.console import Console

from selfflow_bench.results.comparison import compare
from selfflow_bench.results.record import Record
from selfflow_bench.results.summary import print_summary
from selfflow_bench.results.wording import (
    flops,
    metric_kind,
    metric_title,
    number,
    percent,
    probability,
    seconds,
    share,
    signed,
)


def printed(records: list[Record], *, encoding: str = "utf-8", colours: bool = False) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    console = Console(file=stream, width=80, force_terminal=colours, color_system="standard" if colours else None)
    print_summary(compare(records, MARGINS), console)
    return raw.getvalue().decode(encoding)


def test_a_comparison_fits_80_columns_and_says_everything(matched: list[Record]) -> None:
    text = printed(matched)
    assert max(len(line) for line in text.splitlines()) <= 80
    for part in (
        "sana@1, micro",
        "0.5521",
        "0.5642",
        "+0.0121 (+2.2 %)",
        "+0.0111 to +0.0131",
        "worse",
        "inconclusive",
        "FLOPs:",
        "51.2 TFLOP",
        "Inconclusive: no difference shown.",
        "Margins: validation loss 1 %, KID 5 %, Fréchet distance 5 %",
    ):
        assert part in text
    for part in ("0.0011", "n = 512", "untrained 5.200", "3 seeds", "1.22×", "KID (efficientnet-lite0-block10-112)"):
        assert part in text
    assert "\x1b" not in text
    assert "\x1b[1;31m" in printed(matched, colours=True)


def test_one_seed_gets_no_verdict() -> None:
    text = printed([record("vanilla", 0), record("self_flow", 0, loss=0.1)])
    assert "better" not in text.replace("Lower is better", "")
    assert "same seed; n = 1: no verdict." in text


def test_every_method_has_its_table_and_vanilla_alone_its_own(matched: list[Record]) -> None:
    text = printed([*matched, record("self_flow.paper", 0), record("self_flow", 4, status="failed")])
    assert text.count("training") == 2
    assert "Failed runs: sana-micro-self_flow-s4" in text
    alone = printed([one for one in matched if one.method.label == "vanilla"])
    assert "verdict" not in alone
    assert "0.5521" in alone
    assert "recorded as open" in printed([record(overrides={"a": 1})])


def test_a_terminal_without_unicode_gets_plain_letters(matched: list[Record]) -> None:
    text = printed(matched, encoding="ascii")
    assert "+- 0.0024" in text
    assert "1.22x" in text
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (0.55208, "0.5521"), (12.3456, "12.35"), (1234.5, "1234"), (0.99996, "1.000"),
     (0.00012345, "0.0001234"), (1.23e-7, "1.230e-07"), (-0.0015, "-0.001500"), (2.5e7, "2.500e+07")],
)  # fmt: skip
def test_numbers_have_four_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_other_forms() -> None:
    assert [signed(0.0121), signed(-3.0), signed(None)] == ["+0.0121", "-3.00", "–"]
    assert [percent(2.23), percent(-0.061), percent(45.2), percent(None)] == ["+2.2 %", "-0.06 %", "+45 %", "–"]
    assert [seconds(95.2), seconds(750), seconds(11_520), seconds(None)] == ["95 s", "12.5 min", "3.2 h", "–"]
    assert metric_title("frechet/aisfx-512") == "Fréchet distance (aisfx-512)"
    assert [share(1.0), share(0.05 * 100), share(0.237), share(5.83), share(37.4)] == [
        "1 %", "5 %", "0.24 %", "5.8 %", "37 %",
    ]  # fmt: skip
    assert [flops(5.571e12), flops(7.2e8), flops(3e21), flops(None)] == ["5.57 TFLOP", "0.720 GFLOP", "3.00 ZFLOP", "–"]
    assert [probability(0.0213), probability(1e-9), probability(1.0)] == ["0.021", "< 0.0001", "1"]


def test_metrics_are_named_with_their_network_and_sampler() -> None:
    assert metric_title("validation_loss") == "validation loss"
    assert metric_title("kid/net") == "KID (net)"
    assert metric_title("frechet/net/4-step") == "Fréchet distance, 4-step (net)"
    assert metric_kind("kid/net/1-step") == "KID, 1-step"
