"""The page as it is seen, in a real browser: a whole race, on a wall, on a phone, in the dark and by keyboard.

Pictures of it are written to build/screenshots, for people to look at.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import axe
import lab_command
import pytest
from browser import Browser, Tab, browser, program
from page_server import PageServer, page_server

PICTURES = Path(__file__).parents[3] / "build" / "screenshots"
EVIL = "<img src=x onerror=hacked=1><script>hacked=1</script>"
WALL, PHONE = (1920, 1080), (390, 844)

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium is here")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    environment = {**lab_command.make_environment(tmp_path_factory.mktemp("page")), "QUALIFIER": EVIL}
    with page_server(environment) as made:
        yield made


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = program()
    assert path is not None
    with browser(path) as made:
        yield made


@pytest.fixture(scope="module")
def raced(server: PageServer, chromium: Browser) -> str:
    """A run's id, after two people have watched it from its plan to its podium."""
    with chromium.tab() as other, chromium.tab() as tab:
        other.open(server.address)
        tab.look(*WALL)
        tab.open(server.address)
        tab.wait("document.querySelector('#status').textContent.startsWith('Nothing runs yet')")
        tab.picture(PICTURES / "wall-light-idle.png")
        tab.eval("document.querySelector('#ask details').open = true")
        tab.eval("for (const box of document.querySelectorAll('[name=target]')) box.checked = box.value === 'fake'")
        tab.eval("document.querySelector('[name=rounds]').value = 6; document.querySelector('#ask button').focus()")
        tab.key("Enter", "\r")
        tab.wait("document.activeElement.id === 'plan-title'")
        tab.picture(PICTURES / "wall-light-plan.png", whole=True)
        assert tab.eval("document.querySelector('#plan-typed').textContent") == "lab run boot --targets fake --rounds 6"
        tab.key("Tab")
        assert tab.eval("document.activeElement.id") == "start"
        tab.key("Enter", "\r")
        for viewer in (tab, other):
            viewer.wait("document.querySelector('#status').textContent.startsWith('The run is over')")
            viewer.wait("document.querySelectorAll('#places li').length === 1")
        seen = [one.eval("document.querySelector('#places').innerText") for one in (tab, other)]
        assert seen[0] == seen[1]
        assert "95 % interval" in seen[0] and f"fake ({EVIL})" in seen[0]
        _unharmed(tab, server)
        tab.picture(PICTURES / "wall-light-over.png")
        assert tab.eval("document.querySelector('#announced').textContent") == "The run is over"
        return str(tab.eval("document.querySelector('#told-report a').href")).partition("id=")[2]


def _unharmed(tab: Tab, server: PageServer) -> None:
    """Nothing of what others wrote ran, nothing was refused to the page, and it asked nobody but its server."""
    assert tab.eval("typeof hacked") == "undefined"
    assert tab.eval("document.images.length") == 0
    assert not tab.complaints
    foreign = [one for one in tab.requested if not one.startswith((server.origin, "about:", "data:", "blob:"))]
    assert not foreign and tab.eval("document.cookie") == ""


VIEWS = ("", "runs", "compare?a={run}&b={run}", "history", "doctor")
LOOKS = ((WALL, "dark"), (PHONE, "light"))


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.partition("?")[0] or "race")
def test_every_view_can_be_read_by_everybody(chromium: Browser, server: PageServer, raced: str, view: str) -> None:
    script = axe.script()
    name = view.partition("?")[0] or "race"
    with chromium.tab() as tab:
        tab.look(*WALL)
        tab.open(server.address + view.format(run=raced))
        if not view:
            tab.wait("document.querySelectorAll('#lanes li').length === 1")
        for size, scheme in LOOKS:
            tab.look(*size, scheme=scheme, mobile=size is PHONE, motion="reduce" if scheme == "dark" else "")
            tab.picture(PICTURES / f"{'phone' if size is PHONE else 'wall'}-{scheme}-{name}.png", whole=size is PHONE)
            wide = tab.eval("document.documentElement.scrollWidth")
            assert wide <= size[0], f"{wide} pixels wide"
            assert not (axe.grave(tab, script) if script else [])
        assert tab.eval("document.getAnimations().length") == 0
        assert tab.eval("document.title.length > 10 && document.querySelectorAll('h1').length === 1")
        tab.key("Tab")
        assert tab.eval("document.activeElement.className") == "skip"
        _unharmed(tab, server)
    if not script:
        pytest.skip("axe-core cannot be had here: all else was looked at")


def test_what_axe_looks_for_is_found(chromium: Browser, server: PageServer, raced: str) -> None:
    if not (script := axe.script()):
        pytest.skip("axe-core cannot be had here")
    with chromium.tab() as tab:
        tab.open(server.address)
        tab.eval(
            "document.querySelector('[name=rounds]').parentElement.replaceWith(document.querySelector('[name=rounds]'))"
        )
        assert [one["rule"] for one in axe.grave(tab, script)] == ["label"]


def test_a_report_draws_its_charts_and_reaches_nothing_of_the_page(
    chromium: Browser, server: PageServer, raced: str
) -> None:
    with chromium.tab() as tab:
        tab.look(*WALL)
        tab.open(f"{server.address}run?id={raced}")
        tab.picture(PICTURES / "wall-light-run.png")
        address = tab.eval("document.querySelector('iframe').src")
        assert server.address.split("/")[3] not in address
        _unharmed(tab, server)
        tab.open(address)
        tab.wait("document.querySelectorAll('.js-plotly-plot').length > 0")
        assert tab.eval("origin") == "null"
        assert tab.eval(f"fetch('{server.address}').then(() => 'had', () => 'refused')") == "refused"
        assert tab.eval("typeof hacked") == "undefined"


def test_the_page_says_so_when_its_server_has_gone(chromium: Browser, server: PageServer, raced: str) -> None:
    """The last of these tests: it ends what they share."""
    with chromium.tab() as tab:
        tab.open(server.address)
        tab.wait("document.querySelector('#status').textContent.startsWith('The run is over')")
        code, said = server.end()
        assert code == 0 and "Traceback" not in said
        tab.wait("document.querySelector('#status').textContent.startsWith('The lab does not answer')")
