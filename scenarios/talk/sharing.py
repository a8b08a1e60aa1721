"""What a caller and its callee share, by the probes of `surface`, in words."""

from __future__ import annotations

from collections.abc import Mapping

from lab.figures.evidence import Seen, tell
from lab.figures.series import SHARED
from lab.launch.session import Session
from lab.scenario import Bench
from scenarios.surface.inside import NAMESPACES, Host, Inside, look_at_itself


def tell_shared(bench: Bench, caller: Session, callee: Session, named: str) -> None:
    """Keep what both share as a fact; `named` is the callee's target where that is another."""
    host = Host.here()
    said = shared(look_at_itself(caller, host), look_at_itself(callee, host))
    tell(bench, Seen.INSIDE, f"{SHARED} with {named}" if named else SHARED, said)


def shared(one: Inside, other: Inside) -> str:
    """The kernel, and the kinds of namespaces that are the same for both; in words that are equal where that is."""
    kernels = [_told(side, "kernel").get("boot_id") for side in (one, other)]
    if not all(kernels):
        return "not told"
    if kernels[0] != kernels[1] and (one.own_kernel or other.own_kernel):
        return "no kernel: what is between them is the host's"
    links = [_told(side, "namespaces") for side in (one, other)]
    known = [kind for kind in NAMESPACES if all(link.get(kind) for link in links)]
    same = [kind for kind in known if links[0][kind] == links[1][kind]]
    if same == known:
        return "kernel, all namespaces"
    return f"kernel, namespaces {', '.join(same)}" if same else "kernel"


def own_port(session: Session, port: int) -> int:
    """Where the service of `session` listens within its own network: at its endpoint's port where that network is the
    host's, else at `port`."""
    boot = Host.here()
    inside = look_at_itself(session, boot)
    beside = not inside.own_kernel and "net" in (inside.shared() or ())
    endpoint = session.instance.endpoint if session.instance else None
    return endpoint.port if beside and endpoint is not None else port


def _told(side: Inside, name: str) -> Mapping[str, str]:
    told = side.found.get(name, {})
    return told if isinstance(told, Mapping) else {}
