"""The contract's tests are tested: a driver that breaks one promise fails the test that is named for it here.

No engine is needed. Each breakage has a rig of its own; the same drivers unbroken pass all that concerns them, as the
targets `fake` and `model`.
"""

from __future__ import annotations

import importlib.util
import inspect
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from contract_rig import Rig
from rigs import make_rig, new_run_dir

from lab.service.build import build_service
from lab.spec import Target
from lab.testing import BREAKAGES, FakeDriver, mend

CAUGHT_BY = {
    "memory is not limited": "test_memory_is_limited_to_what_the_spec_says",
    "memory is limited to a size of the driver's own": "test_memory_is_limited_to_what_the_spec_says",
    "swap is allowed": "test_no_swap_is_allowed_on_top_of_memory",
    "CPUs are not limited": "test_cpus_are_limited_to_what_the_spec_says",
    "processes are not limited": "test_processes_are_limited_to_what_the_spec_says",
    "there is no scratch": "test_what_it_may_write_to_tmp_is_bounded_by_the_spec",
    "scratch is without bound": "test_what_it_may_write_to_tmp_is_bounded_by_the_spec",
    "the CPUs to be held to are ignored": "test_every_process_is_held_to_the_cpus_of_the_spec",
    "it is privileged": "test_it_has_no_more_capabilities_than_engines_leave_by_default",
    "no system call is filtered": "test_system_calls_are_filtered_unless_its_facts_say_that_they_are_not",
    "the host's disks are in its /dev": "test_no_disk_of_the_host_is_in_its_dev",
    "it may write the kernel's settings": "test_the_kernels_settings_are_not_its_to_write",
    "it has the host's PID namespace": "test_it_has_a_pid_namespace_and_mounts_of_its_own",
    "it is published on every address": "test_only_this_host_reaches_it",
    "a kernel of its own is claimed": "test_a_kernel_of_its_own_is_no_claim_alone",
    "the command is ignored": "test_the_command_of_the_spec_replaces_the_images_and_its_log_is_the_last_64_kib",
    "the environment is ignored": "test_the_environment_of_the_spec_is_the_services",
    "the restart policy is ignored": "test_with_the_best_restart_it_is_back_after_it_was_killed",
    "logs are empty": "test_its_log_has_what_it_wrote_so_far",
    "logs are without bound": "test_the_command_of_the_spec_replaces_the_images_and_its_log_is_the_last_64_kib",
    "its isolation is in words of its own": "test_it_says_what_the_engine_is_in_the_words_that_others_use",
    "its facts are no JSON": "test_its_facts_are_json_values",
    "it does not tell of its limits": "test_its_facts_tell_of_each_limit_how_it_is_set_or_why_not",
    "it does not name its restart policies": "test_its_facts_name_both_restart_policies_where_it_restarts",
    "a feature is claimed without its protocol": "test_each_feature_that_is_claimed_has_its_protocol",
    "a guest's features are claimed of a container": "test_a_guest_of_its_own_is_claimed_by_virtual_machines_alone",
    "its row does not tell its tick": "test_its_row_tells_the_tick_on_which_its_engine_acts",
    "its name is another's": "test_it_bears_the_name_that_it_is_registered_by",
    "any variant will do": "test_an_unknown_variant_is_refused_by_name",
    "exec runs something else": "test_exec_runs_what_was_asked_in_the_services_own_surroundings",
    "exec loses the exit code": "test_exec_gives_the_programs_exit_code",
    "exec mixes output and errors": "test_exec_keeps_output_and_errors_apart",
    "exec splits words": "test_exec_passes_each_word_on_as_it_is",
    "exec of nothing that can be run succeeds": "test_exec_of_what_cannot_be_run_is_an_error_on_one_line",
    "exec that does not end is passed off as done": "test_exec_of_what_does_not_end_in_time_is_an_error_soon_after",
    "stop does nothing": "test_stop_ends_the_service",
    "stop cannot be called again": "test_stop_may_be_called_again_and_on_what_is_gone",
    "delete leaves it with the engine": "test_delete_is_verified_gone",
    "the log of what is gone is an error": "test_the_log_of_what_is_gone_is_empty_or_what_was_kept_and_no_error",
    "delete cannot be called again": "test_delete_may_be_called_again",
    "what cannot be removed is told by another error": "test_errors_of_cleaning_up_are_told_as_such",
    "one is removed with another": (
        "test_two_live_side_by_side_and_one_that_was_not_stopped_is_removed_by_a_driver_that_found_it"
    ),
    "phases come in another order": "test_the_phases_of_each_chain_come_in_their_order",
    "a process outlives delete": "test_delete_is_verified_gone",
    "a failed launch leaves its container": "test_a_port_in_use_is_an_error_of_the_launch_and_leaves_nothing",
    "an error of the engine's comes through as it is": (
        "test_a_port_in_use_is_an_error_of_the_launch_and_leaves_nothing"
    ),
    "a taken port is told to nobody": "test_a_port_in_use_is_an_error_of_the_launch_and_leaves_nothing",
    "the launch's own label is not given": "test_a_driver_that_launched_nothing_finds_it_by_its_labels_alone",
    "a list is told whatever the labels": "test_no_other_is_told_to_bear_a_label",
    "only what it launched itself is listed": "test_a_driver_that_launched_nothing_finds_it_by_its_labels_alone",
    "with no labels given nothing is listed": "test_a_driver_that_launched_nothing_finds_it_by_its_labels_alone",
    "close removes what it listed of a run": "test_close_removes_nothing",
    "close cannot be called again": "test_close_may_be_called_again_and_a_closed_driver_be_replaced",
    "created is marked before the call": "test_what_is_created_or_started_is_there_when_it_is_marked",
    "started is marked before the call": "test_what_is_created_or_started_is_there_when_it_is_marked",
    "a phase is invented": "test_it_marks_no_phase_that_its_kind_of_engine_does_not_have",
    "a guest's phase is invented": "test_it_marks_no_phase_that_its_kind_of_engine_does_not_have",
    "the service's phases are marked by hand": (
        "test_it_marks_only_what_an_engine_can_show_and_from_where_it_can_know_it"
    ),
    "ready is marked by the driver": "test_it_marks_only_what_an_engine_can_show_and_from_where_it_can_know_it",
    "nothing of the engine is marked": "test_the_engine_says_at_least_once_that_it_runs",
    "lines are handed on twice": "test_the_services_lines_reach_the_lab_whole_and_once",
    "an end that was asked for is told as a failure": "test_an_end_that_was_asked_for_is_no_failure",
    "it marks after the instance is deleted": "test_nothing_is_marked_after_the_instance_is_deleted",
    "a helper is missing among the host's processes": (
        "test_every_process_that_came_with_the_instance_is_among_its_host_pids"
    ),
    "a helper has the service's role": "test_the_service_and_nothing_else_has_the_role_of_the_service",
    "nothing does the work": "test_host_pids_are_processes_of_this_host_and_one_of_them_does_the_work",
    "what it stores is not there": "test_what_it_stores_is_on_this_hosts_disks",
    "what a cold launch reads is not there": "test_what_a_cold_launch_reads_is_there_and_others_are_named",
    "the lab's own are named as others'": "test_what_others_run_is_not_the_labs",
    "an instance's processes are called the engine's": "test_the_engines_own_processes_are_no_instances",
    "no more replicas are made": "test_replicas_are_as_many_as_asked_for_and_an_update_replaces_them",
    "an update is ignored": "test_replicas_are_as_many_as_asked_for_and_an_update_replaces_them",
    "no replica's address is told": "test_replicas_are_as_many_as_asked_for_and_an_update_replaces_them",
    "the policy of updates is not told whole": "test_its_policy_of_updates_is_told_whole",
    "no network is claimed, and there is one": "test_an_address_is_had_by_those_that_claim_a_network_alone",
    "an image is loaded without labels": "test_an_image_in_the_engines_own_store_is_among_what_is_left",
    "an image bears the run's label alone": "test_each_thing_that_is_left_bears_the_labels_of_its_run_and_owner",
    "images are not among what is left": "test_an_image_in_the_engines_own_store_is_among_what_is_left",
    "prepare makes another image at each call": "test_prepare_may_be_called_again_and_makes_nothing_twice",
    "an image that there is not is accepted": (
        "test_an_image_that_it_cannot_have_is_refused_on_one_line_and_nothing_is_made"
    ),
    "an image that is left is not removed": "test_all_that_is_left_is_removed_and_a_second_removal_is_no_error",
    "an image cannot be removed again": "test_all_that_is_left_is_removed_and_a_second_removal_is_no_error",
    "a file of the launch stays": "test_no_file_of_a_launch_outlives_it",
    "a thread outlives close": "test_no_thread_outlives_close",
    "a connection outlives close": "test_no_descriptor_outlives_close",
    "a descriptor outlives close": "test_no_descriptor_outlives_close",
    "a cgroup stays": "test_its_cgroups_go_with_it",
    "a worker stays where all were to be ended": (
        "test_once_they_are_ended_there_is_no_worker_and_the_next_call_is_the_first_of_a_new_one"
    ),
    "no worker is named": "test_once_they_are_ended_there_is_no_worker_and_the_next_call_is_the_first_of_a_new_one",
    "a worker's name is used again": "test_a_worker_has_a_name_that_none_had_before",
    "each call starts a worker anew": "test_a_later_call_is_answered_by_the_worker_that_is_there",
    "what is shown is another worker's": "test_what_is_shown_of_a_call_is_of_its_new_worker_and_in_order",
    "a worker is initialized with its first call": ("test_one_that_is_initialized_before_any_call_has_answered_nobody"),
    "how long a worker is kept is not told": "test_its_facts_tell_how_long_an_idle_worker_is_kept",
    "asleep it goes on": "test_asleep_it_neither_answers_nor_runs",
    "it is put to sleep and does not wake": "test_it_can_be_put_to_sleep_and_woken_in_each_state_that_is_offered",
    "how it could sleep is not told": "test_each_state_of_sleep_is_told_with_a_reason_where_it_cannot_be",
    "why it cannot sleep so is told on two lines": "test_each_state_of_sleep_is_told_with_a_reason_where_it_cannot_be",
    "what it sleeps on is not there": "test_what_it_sleeps_on_is_on_this_hosts_disks",
    "a state that it does not offer is passed over": "test_a_state_that_is_not_offered_is_refused_on_one_line",
    "it is started anew where it was to be woken": (
        "test_it_is_the_same_where_its_memory_was_kept_and_new_where_it_was_not"
    ),
    "it is kept in memory where it was to be stopped": (
        "test_it_is_the_same_where_its_memory_was_kept_and_new_where_it_was_not"
    ),
    "one that sleeps cannot be removed": (
        "test_one_that_sleeps_is_found_and_removed_by_a_driver_that_did_not_put_it_there"
    ),
}

Check = Callable[[Rig], None]


@cache
def checks() -> dict[str, Check]:
    """Every test of the contract, by name; not those of whole guests, a distribution that no engine of tests plays."""
    found: dict[str, Check] = {}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if path not in (Path(__file__), Path(__file__).with_name("test_whole.py")):
            found |= _tests_of(path)
    return found


@pytest.mark.parametrize("name", CAUGHT_BY)
def test_a_broken_promise_is_told_by_the_test_that_is_named_for_it(name: str, broken: Callable[[str], Rig]) -> None:
    rig = broken(name)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        checks()[CAUGHT_BY[name]](rig)


def test_every_breakage_has_its_test_and_there_are_enough() -> None:
    assert set(CAUGHT_BY) == set(BREAKAGES)
    assert set(CAUGHT_BY.values()) <= set(checks())
    assert len(BREAKAGES) >= 40


def test_almost_every_test_of_the_contract_catches_something() -> None:
    assert set(checks()) - set(CAUGHT_BY.values()) <= UNBROKEN


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the service is built."""
    cache = tmp_path_factory.mktemp("built")
    build_service(cache)
    return cache


@pytest.fixture
def broken(tmp_path: Path, built: Path) -> Iterator[Callable[[str], Rig]]:
    """Makes the rig of a breakage by name, with an engine of its own; what it leaves is removed."""
    made: list[Rig] = []
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    run_dir = new_run_dir()

    def make(name: str) -> Rig:
        driver = BREAKAGES[name]
        target = Target("fake" if issubclass(driver, FakeDriver) else "model")
        rig = make_rig(target, driver, tmp_path, run_dir, timeout_s=2.0, settle_s=0.3)
        made.append(rig)
        return rig

    yield make
    for rig in made:
        rig.give_up()
    mend()
    run_dir.delete()


def _tests_of(path: Path) -> dict[str, Check]:
    module_spec = importlib.util.spec_from_file_location(f"contract_{path.stem}", path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    functions = inspect.getmembers(module, inspect.isfunction)
    return {name: one for name, one in functions if name.startswith("test_")}


UNBROKEN = {"test_a_cluster_tells_what_it_is", "test_it_answers_to_the_nonce_of_its_launch_alone"}
"""Those that no breakage is made for: one needs a cluster, and the other another service."""
