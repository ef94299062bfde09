"""Progress as occasional lines in a log file and as a bar on a terminal."""

import io
import re

import pytest
from rich.console import Console

import apao.progress
from apao.progress import progress


@pytest.fixture
def shown(monkeypatch):
    """Replace the console by one that writes here, as a log file or as a terminal."""

    def replace(terminal: bool) -> io.StringIO:
        text = io.StringIO()
        console = Console(file=text, force_terminal=terminal, width=120, soft_wrap=True, markup=False, highlight=False)
        monkeypatch.setattr(apao.progress, "console", console)
        return text

    return replace


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test advances."""

    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(apao.progress, "time", clock)
    return clock


def test_lines_in_a_log(shown, clock):
    text = shown(terminal=False)
    with progress("training", total=1000, done=200) as advance:
        clock.now += 10
        advance(100, "loss 2")
        assert text.getvalue() == ""  # at most one line per 15 s
        clock.now += 10
        advance(100, "loss 1.5")
        # 200 of 1,000 were done before; 200 more in 20 s leave 60 s for the other 600.
        assert text.getvalue() == "training: 400 of 1,000, 60 s left loss 1.5\n"
        advance(100)
        clock.now += 60
        advance(500)
        clock.now += 60
        advance(24)  # the last batch of an epoch may be larger than what was left of it
    assert text.getvalue().splitlines()[1:] == [
        "training: 1,000 of 1,000, 0 s left",
        "training: 1,024 of 1,000, 0 s left",
    ]


@pytest.mark.parametrize("reached", [0, 2])
def test_nothing_to_do_or_a_total_that_is_not_known(shown, clock, reached):
    text = shown(terminal=False)
    with progress("fetching", total=0) as advance:
        clock.now += 20
        advance(reached)
    assert text.getvalue() == f"fetching: {reached}\n"


def test_a_bar_on_a_terminal(shown):
    text = shown(terminal=True)
    with progress("embed items [x]", total=40, done=10) as advance:
        advance(20, "almost")
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.getvalue())
    assert "embed items" in plain and "30/40" in plain and "almost" in plain


@pytest.mark.parametrize("terminal", [False, True])
def test_errors_pass_through(shown, terminal):
    shown(terminal)
    with pytest.raises(ZeroDivisionError), progress("dividing", total=1):
        raise ZeroDivisionError
