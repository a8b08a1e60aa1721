"""Launch, list, stop, delete: each does what it says, again and again, and by a driver that launched nothing too."""

from __future__ import annotations

import contextlib
import socket
import time

from contract_rig import Heard, Recording, Rig, one_line, serves

from lab.errors import CleanupError, LaunchError
from lab.features import Feature
from lab.spec import Endpoint


def test_stop_ends_the_service(rig: Rig) -> None:
    life = rig.life
    assert "stop" not in life.errors, life.errors["stop"]
    assert not life.alive_after_stop
    assert not life.served_after_stop


def test_stop_may_be_called_again_and_on_what_is_gone(rig: Rig) -> None:
    again = {call: error for call, error in rig.life.errors.items() if call in ("stop again", "stop a deleted one")}
    assert not again


def test_delete_is_verified_gone(rig: Rig) -> None:
    life = rig.life
    assert "delete" not in life.errors, life.errors["delete"]
    assert not life.listed_after_delete
    assert not life.alive_after_delete


def test_delete_may_be_called_again(rig: Rig) -> None:
    assert "delete again" not in rig.life.errors


def test_the_log_of_what_is_gone_is_empty_or_what_was_kept_and_no_error(rig: Rig) -> None:
    assert "the log of a deleted one" not in rig.life.errors
    assert isinstance(rig.life.log_after_delete, bytes)


def test_its_cgroups_go_with_it(rig: Rig) -> None:
    assert not [path for path in rig.life.cgroups if path.exists()]


def test_a_driver_that_launched_nothing_finds_it_by_its_labels_alone(rig: Rig) -> None:
    served = rig.served
    labels = dict(served.session.spec.labels)
    with contextlib.closing(rig.fresh()) as fresh:
        found = fresh.list_instances({"lab.launch": labels["lab.launch"]})
        assert [one.id for one in found] == [served.instance.id]
        assert dict(found[0].labels) == labels
        assert served.instance.id in {one.id for one in fresh.list_instances({})}, "with no labels given, all are told"
        endpoint = found[0].endpoint
        assert endpoint in (served.instance.endpoint, None)


def test_no_other_is_told_to_bear_a_label(rig: Rig) -> None:
    _ = rig.served
    with contextlib.closing(rig.fresh()) as fresh:
        assert list(fresh.list_instances({"lab.run": "another"})) == []
        assert list(fresh.leftovers({"lab.run": "another"})) == []
        assert list(fresh.list_instances({**rig.run, "lab.launch": "another"})) == []


def test_two_live_side_by_side_and_one_that_was_not_stopped_is_removed_by_a_driver_that_found_it(rig: Rig) -> None:
    served = rig.served
    with rig.session() as second, contextlib.closing(rig.fresh()) as fresh:
        second.launch()
        assert second.instance is not None and second.instance.id != served.instance.id
        assert {one.id for one in rig.driver.list_instances(rig.run)} >= {served.instance.id, second.instance.id}
        found = fresh.list_instances({"lab.launch": second.spec.labels["lab.launch"]})
        assert [one.id for one in found] == [second.instance.id]
        assert isinstance(found[0].logs(), bytes)
        found[0].delete()
        assert list(fresh.list_instances({"lab.launch": second.spec.labels["lab.launch"]})) == []
        if second.instance.endpoint is not None:
            assert not serves(second.instance.endpoint)
    assert served.instance.id in {one.id for one in rig.driver.list_instances(rig.run)}
    if served.instance.endpoint is not None:
        assert serves(served.instance.endpoint)


def test_a_port_in_use_is_an_error_of_the_launch_and_leaves_nothing(rig: Rig) -> None:
    rig.needs(Feature.NETWORK)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = Endpoint("127.0.0.1", taken.getsockname()[1])
        heard, spec = Heard(), rig.spec.for_launch()
        files = set(rig.context.run_dir.rglob("*"))
        try:
            instance = rig.driver.launch(spec, endpoint, Recording(None, heard))
        except Exception as error:
            assert isinstance(error, LaunchError) and one_line(error), f"{type(error).__name__}: {error}"
        else:
            try:  # an engine that chooses the address by itself is not concerned; the service may tell by its end
                deadline = time.monotonic() + min(20.0, rig.timeout_s)
                while instance.endpoint == endpoint and not heard.failures and time.monotonic() < deadline:
                    time.sleep(0.02)
                assert instance.endpoint != endpoint or heard.failures, "nobody tells that it cannot listen"
                assert all(one_line(error) for error in heard.failures)
            finally:
                instance.delete()
        with contextlib.closing(rig.fresh()) as fresh:
            assert list(fresh.list_instances({"lab.launch": spec.labels["lab.launch"]})) == []
        assert not {path for path in set(rig.context.run_dir.rglob("*")) - files if path.exists()}


def test_close_removes_nothing(rig: Rig) -> None:
    served = rig.served
    fresh = rig.fresh()
    fresh.list_instances(rig.run)
    fresh.close()
    assert served.instance.id in {one.id for one in rig.driver.list_instances(rig.run)}
    if served.instance.endpoint is not None:
        assert serves(served.instance.endpoint)


def test_close_may_be_called_again_and_a_closed_driver_be_replaced(rig: Rig) -> None:
    assert not {call: error for call, error in rig.life.errors.items() if call.startswith("close")}
    with contextlib.closing(rig.fresh()) as another:
        assert another.info().engine == rig.info.engine


def test_errors_of_cleaning_up_are_told_as_such(rig: Rig) -> None:
    assert all(isinstance(error, CleanupError) for call, error in rig.life.errors.items() if call.startswith("delete"))
