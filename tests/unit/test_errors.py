"""Mapping an SDK's exceptions to the lab's."""

from __future__ import annotations

import pytest

from lab.errors import BadInput, DriverError, LabError, chain_of, details_of, mapped, one_line


class SdkError(Exception):
    """What an SDK raises."""


def _is_sdk(error: BaseException) -> bool:
    return isinstance(error, SdkError)


def _told(error: BaseException) -> LabError:
    return DriverError(f"the engine says: {one_line(error)}", details=details_of(error))


def test_an_sdk_error_becomes_the_labs_and_keeps_where_it_came_from() -> None:
    with pytest.raises(DriverError, match="the engine says: no disk") as raised, mapped(_is_sdk, _told):
        raise SdkError("no\n  disk") from OSError("full")
    assert isinstance(raised.value.__cause__, SdkError)
    assert raised.value.details.splitlines() == ["SdkError: no", "  disk", "OSError: full"]


@pytest.mark.parametrize("error", [BadInput("the lab's own"), ZeroDivisionError("a mistake"), KeyboardInterrupt()])
def test_the_labs_own_errors_and_mistakes_pass_as_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, mapped(lambda _: isinstance(error, LabError), _told):
        raise error
    assert raised.value is error


def test_a_chain_has_causes_contexts_reasons_and_arguments_each_once() -> None:
    class Equal(Exception):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = Exception.__hash__

    argument, reason = Equal("argument"), Equal("reason")
    outer = SdkError("outer", argument)
    outer.reason = reason  # type: ignore[attr-defined]
    outer.__cause__ = outer.__context__ = ValueError("cause")
    argument.__cause__ = outer
    assert {id(one) for one in chain_of(outer)} == {id(outer), id(outer.__cause__), id(reason), id(argument)}
    assert len(chain_of(outer)) == 4


def test_an_error_without_words_is_told_by_its_name() -> None:
    assert one_line(TimeoutError()) == "TimeoutError"
