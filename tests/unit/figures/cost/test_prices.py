"""The table of prices: what ships is whole and dated, and what a user writes wrong is told on one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.errors import BadInput
from lab.figures.cost.prices import SHIPPED, Prices, read_prices


@pytest.fixture(scope="module")
def shipped() -> Prices:
    return read_prices(None)


def test_every_number_that_ships_has_its_source_its_date_and_what_it_was_checked_by(shipped: Prices) -> None:
    found = dict(shipped.each())
    assert len(found) >= 10
    for name, price in found.items():
        assert price.source.startswith("https://"), name
        assert price.date.year >= 2026, name
        assert len(price.checked) > 20, name
    assert shipped.dates() is not None


def test_what_ships_is_of_the_order_that_everybody_knows(shipped: Prices) -> None:
    """A slip of a power of ten or of a unit would be the whole answer."""
    function, container = shipped.functions[0], shipped.containers[0]
    assert function.per_million_requests.amount == pytest.approx(0.2)
    assert function.per_gigabyte_second.amount == pytest.approx(1.66667e-5)
    assert function.gigabyte_bytes == container.gigabyte_bytes == 2**30
    assert container.per_vcpu_hour.amount == pytest.approx(0.04, rel=0.05)
    assert container.per_gigabyte_hour.amount == pytest.approx(0.0044, rel=0.05)
    assert all(vm.per_hour.amount / vm.vcpus < 0.06 for vm in shipped.vms)
    assert shipped.machine is None  # nobody's machine is the user's


def test_a_user_may_print_it_change_it_and_give_it_back(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        SHIPPED.read_text().replace('currency = "USD"', 'currency = "EUR"').replace("amount = 0.20", "amount = 1")
    )
    read = read_prices(mine)
    assert read.currency == "EUR"
    assert read.functions[0].per_million_requests.amount == 1


_WHOLE = """
currency = "USD"
[[vms]]
name = "Small"
drivers = ["libvirt"]
vcpus = 1
memory_gib = 1
per_hour = { amount = 0.01, source = "https://example.org", date = 2026-01-02 }
"""


@pytest.mark.parametrize(
    "before,after,told",
    [
        ("amount = 0.01", "amount = -1", "vms, entry 1, per_hour, amount: input should be greater than or equal to 0"),
        ("amount = 0.01", "amount = nan", "per_hour, amount: input should be a finite number"),
        ("amount = 0.01", 'amount = "0.01"', "per_hour, amount: input should be a valid number"),
        ("amount = 0.01, ", "", "per_hour, amount: it is missing"),
        ("date = 2026-01-02", 'date = "yesterday"', "per_hour, date: input should be a valid date"),
        (", date = 2026-01-02", "", "per_hour, date: it is missing"),
        ('source = "https://example.org"', 'source = ""', "per_hour, source"),
        ('currency = "USD"', "", "currency: it is missing"),
        ('currency = "USD"', 'currency = "dollars"', "currency"),
        ("vcpus = 1", "vcpus = 0", "vcpus: input should be greater than 0"),
        ("vcpus = 1", "vcpus = 1\nvcpu = 1", "vms, entry 1, vcpu: there is no such field"),
        ('drivers = ["libvirt"]', "drivers = []", "drivers"),
        ('drivers = ["libvirt"]', 'drivers = "libvirt"', "drivers: input should be a valid list"),
        ("[[vms]]", "[vms]", "vms: input should be a valid list"),
        ("[[vms]]", "[[vm]]", "vm: there is no such field"),
        ("memory_gib = 1", "memory_gib =", "cannot be read as a table of prices"),
    ],
)
def test_what_is_wrong_is_told_on_one_line_with_its_place(before: str, after: str, told: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(_WHOLE)
    read_prices(mine)
    assert before in _WHOLE
    mine.write_text(_WHOLE.replace(before, after))
    with pytest.raises(BadInput, match=re.escape(told)) as caught:
        read_prices(mine)
    assert str(mine) in caught.value.brief
    assert "\n" not in caught.value.brief
    assert "--print-prices" in caught.value.resolution


def test_a_name_twice_would_leave_it_open_which_price_is_meant(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(_WHOLE + _WHOLE.partition("\n[[vms]]")[2].join(["[[vms]]", ""]))
    with pytest.raises(BadInput, match="'Small' is named twice"):
        read_prices(mine)


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("a = 1\nb = 2\nc = 3\nd = 4\n")
    with pytest.raises(BadInput, match="and 2 more"):
        read_prices(mine)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_what_cannot_be_read_is_told_with_its_name(content: bytes | None, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    if content is not None:
        mine.write_bytes(content)
    with pytest.raises(BadInput, match=re.escape(str(mine))):
        read_prices(mine)
