"""What a user requires of a run (`--require`): that a target is measured, and as it was before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lab.cli.options import requires
from lab.errors import with_remedy
from lab.figures import series
from lab.store.history import HistoricRun
from lab.store.record import Outcome, RunRecord, TargetRecord

_ACCEL, _KVM = "accel", "kvm"


def shortfalls(record: RunRecord, required: Sequence[str], earlier: Iterable[HistoricRun]) -> dict[str, str]:
    """By each required target that the run does not have as required, why, in one line. `earlier` are the runs of this
    host and scenario, the oldest first."""
    before = [run for run in earlier if run.run.id != record.run.id]
    measured = {sample.target for sample in record.samples if not sample.warmup}
    found = {}
    for target in record.targets:
        if any(requires(name, target.target) for name in required):
            lost = "" if _asked_for(record) else _lost_kvm(target, before)
            if why := _absent(target, target.target in measured) or lost:
                found[target.target] = why
    return found


def skipped(targets: Sequence[TargetRecord], required: Sequence[str]) -> dict[str, str]:
    """Those that are left out before anything ran."""
    return {
        target.target: _absent(target, measured=True)
        for target in targets
        if target.outcome is not Outcome.OK and any(requires(name, target.target) for name in required)
    }


def _absent(target: TargetRecord, measured: bool) -> str:
    if target.outcome is not Outcome.OK:
        return f"{target.outcome}: {with_remedy(target.reason, target.remedy)}"
    return "" if measured else "no launch of it was complete"


def _asked_for(record: RunRecord) -> bool:
    """Whether the user said by which means guests are to run, so that nothing of it is silent."""
    options = record.run.parameters.get("driver_options")
    return isinstance(options, Mapping) and _ACCEL in options


def _lost_kvm(target: TargetRecord, before: Sequence[HistoricRun]) -> str:
    """Where the target is emulated and the last run on this host that had it under KVM is not followed by one that was
    accepted as it is now. The run just before may have been emulated too: once is not silent, and the next is."""
    now = _accel(target)
    if now in ("", _KVM):
        return ""
    for run in reversed(before):
        then = next((_accel(one) for one in run.targets if one.target == target.target), "")
        if then == now and run.run.accepted_at is not None:
            return ""
        if then == _KVM:
            return (
                f"ran without KVM ({series.label(target)}), which run {run.run.id} had: see `lab doctor`, or give "
                f"-o {_ACCEL}={now} where that is meant"
            )
    return ""


def _accel(target: TargetRecord) -> str:
    return str((target.info.get("qualifiers") or {}).get(_ACCEL, ""))
