"""What a driver says of itself: `info`, its name, its variants, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from contract_rig import Rig, one_line

from lab.driver import Info
from lab.errors import DriverError, LabError
from lab.features import Feature
from lab.launch.ticks import TICK
from lab.launch.waiter import reserve_port
from lab.spec import Endpoint, Restart

ISOLATIONS = ("none", "namespaces", "user-space kernel", "virtual machine")
LIMITS = ("memory", "swap", "cpus", "pids")


def test_it_says_what_the_engine_is_in_the_words_that_others_use(rig: Rig) -> None:
    info: Info = rig.info
    assert info.engine and info.version
    assert info.isolation.startswith(ISOLATIONS), f"docs/drivers.md has {ISOLATIONS}, and not '{info.isolation}'"
    assert all(isinstance(value, str) for value in info.qualifiers.values())


def test_its_facts_are_json_values(rig: Rig) -> None:
    told = {**rig.info.facts, **rig.info.qualifiers}
    assert json.loads(json.dumps(told, default=lambda value: f"no JSON: {value!r}")) == told


def test_its_facts_tell_of_each_limit_how_it_is_set_or_why_not(rig: Rig) -> None:
    told = rig.info.facts.get("limits", {})
    assert {limit for limit in LIMITS if told.get(limit)} == set(LIMITS)


def test_its_facts_name_both_restart_policies_where_it_restarts(rig: Rig) -> None:
    rig.needs(Feature.RESTART)
    told = rig.info.facts.get("restart", {})
    assert all(told.get(str(policy)) for policy in Restart)


def test_its_row_tells_the_tick_on_which_its_engine_acts(rig: Rig) -> None:
    ticks = Feature.TICKS in rig.info.features
    assert (rig.info.facts.get(TICK, 0) > 0) is ticks
    assert ("tick" in rig.info.qualifiers.get("clock", "")) is ticks


def test_it_bears_the_name_that_it_is_registered_by(rig: Rig) -> None:
    assert rig.driver.name == rig.target.driver
    assert rig.target.variant in rig.driver.variants()
    assert all(one and "\n" not in one for one in rig.driver.variants().values())


def test_an_unknown_variant_is_refused_by_name(rig: Rig) -> None:
    make = type(rig.driver)
    with pytest.raises(LabError) as raised:
        make("no-such-variant", rig.context).info()  # type: ignore[call-arg]  # a Protocol has no __init__
    assert "no-such-variant" in str(raised.value)


def test_an_image_that_it_cannot_have_is_refused_on_one_line_and_nothing_is_made(rig: Rig) -> None:
    impossible = replace(rig.spec, image="/nonexistent/image.tar", port=80)
    with pytest.raises(LabError) as raised:
        rig.driver.prepare(impossible)
    assert one_line(raised.value)
    spec = impossible.for_launch()
    with pytest.raises(LabError) as raised:
        rig.driver.launch(spec, Endpoint("127.0.0.1", reserve_port(None)), _Ignored())
    assert one_line(raised.value)
    assert not rig.driver.list_instances({"lab.launch": spec.labels["lab.launch"]})


class _Ignored:
    def __call__(self, *_: object, **__: object) -> None: ...
    def line(self, *_: object, **__: object) -> None: ...
    def failed(self, error: DriverError) -> None: ...
