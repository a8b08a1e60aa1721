"""What nights were measured under: what must be equal, what may differ and is then told in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lab.store.record import Outcome, Run, TargetRecord

_HOST = {
    "cpu.model": "CPU",
    "cpu.microcode": "microcode",
    "cpu.threads_online": "CPU threads online",
    "cpu.smt_active": "SMT",
    "cpu.governors": "governor",
    "cpu.frequency_driver": "frequency driver",
    "cpu.frequency_max_hz": "highest frequency",
    "cpu.turbo_on": "turbo",
    "cpu.idle_driver": "idle driver",
    "memory.memory_total_bytes": "memory",
    "memory.swappiness": "swappiness",
    "memory.thp": "transparent huge pages",
    "memory.ksm_on": "KSM",
    "kernel.release": "kernel",
    "kernel.version": "kernel build",
    "kernel.cmdline": "kernel command line",
    "kernel.clocksource": "clock source",
    "cgroup.version": "cgroup",
    "virtualization.hypervisor_vendor": "hypervisor",
    "virtualization.dmi_product": "machine",
    "virtualization.bios_version": "BIOS",
    "virtualization.kvm_device_accessible": "KVM accessible",
    "system.distribution_name": "distribution",
    "system.python_version": "Python",
}
"""Facts of the host that move figures when they change, and what each is called."""
_MITIGATIONS = "kernel.mitigations"
_EQUAL_SPEC = ("cpus", "memory_bytes")
_SCENARIO = "scenario"
_MODES = ("cold",)


def conditions_of(
    run: Run, host: Mapping[str, Any], targets: Sequence[TargetRecord]
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """What must be equal between two nights, and what may differ, each by its name in words. What is not known is left
    out of both."""
    spec = dict(run.parameters.get("spec") or {})
    group = {"scenario": run.scenario}
    group |= {name.removesuffix("_bytes"): str(spec[name]) for name in _EQUAL_SPEC if spec.get(name) is not None}
    group |= {f"-p {name}": str(value) for name, value in dict(run.parameters.get(_SCENARIO) or {}).items()}
    group |= {name: "yes" for name in _MODES if run.parameters.get(name)}
    found = {words: _told(value) for path, words in _HOST.items() if (value := _at(host, path)) is not None}
    mitigations = _at(host, _MITIGATIONS)
    if isinstance(mitigations, Mapping):
        found |= {f"mitigation of {name}": _told(value) for name, value in mitigations.items() if value is not None}
    found["lab"] = run.lab_version
    if spec.get("image"):
        found["image"] = str(spec["image"])
    running = [one for one in targets if one.outcome is not Outcome.SKIPPED]
    found["company"] = ", ".join(sorted(one.target for one in running))
    for one in running:
        if told := " ".join(str(one.info[key]) for key in ("engine", "version") if one.info.get(key)):
            found[f"engine of {one.target}"] = told
        for key, value in (one.info.get("qualifiers") or {}).items():
            found[f"{key} of {one.target}"] = str(value)
        image = (one.info.get("facts") or {}).get("image")
        if isinstance(image, Mapping) and image.get("digest"):
            found[f"image of {one.target}"] = str(image["digest"]).removeprefix("sha256:")[:12]
    return group, found


def changes(before: Mapping[str, str], after: Mapping[str, str], *, target: str = "") -> list[str]:
    """What differs, in words: `kernel 6.1.0-21 → 6.1.0-25`. What only one of the nights knows is no change, but for a
    target that came or went. Of what belongs to a target, `target`'s alone where one is given."""
    told = []
    for name in {**before, **after}:
        first, second = before.get(name), after.get(name)
        if first is None or second is None or first == second:
            continue
        of = name.partition(" of ")[2]
        if target and of and name.partition(" of ")[0] != "mitigation" and of != target:
            continue
        told.append(_company(first, second) if name == "company" else f"{name} {first} → {second}")
    return told


def apart(mine: Mapping[str, str], others: Mapping[str, str]) -> list[str]:
    """In what two groups differ, in words."""
    return [
        f"{name} {others.get(name, 'not given')}, not {mine.get(name, 'given')}"
        for name in {**mine, **others}
        if mine.get(name) != others.get(name)
    ]


def _company(before: str, after: str) -> str:
    was, now = set(before.split(", ")), set(after.split(", "))
    came, gone = ", ".join(sorted(now - was)), ", ".join(sorted(was - now))
    return "company: " + " and ".join(filter(None, [came and f"{came} ran as well", gone and f"{gone} ran no more"]))


def _at(host: Mapping[str, Any], path: str) -> Any:
    found: Any = host
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
