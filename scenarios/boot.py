"""How long does a platform take from being asked to the first served request, and where does the time go?

| metric | start | end | unit |
|---|---|---|---|
| `boot_s` | `requested`: just before the first engine call of the launch | `ready`: the client holds the first complete answer of this launch | s |
| `phase_s` (`from`, `to`, `chain`) | the phase `from` | the next phase seen in the same chain, `to` | s |
| `login_s` | `requested` | `login`: the first command by SSH has answered, in a whole guest | s |
| `settled_s` | `requested` | `settled`: a whole guest's systemd says that its boot is finished | s |
| `lead_s` (`from`=`started`, `to`=`main`) | the engine says that it runs | first instruction of the service's `main`; negative where the service is ahead of its engine's word | s |
| `stop_s` | the lab asks the engine to stop the instance | the engine says that it has ended | s |
| `delete_s` | the lab asks the engine to remove it | removed, and a look at the host confirms it | s |
| `wait_cpu_s` | the waiter starts, just before `requested` | `ready`: CPU time of the lab's threads other than the one that launches | s |

The phases are those of docs/method.md, rule 1; each is an instant that the engine or the service showed. A phase that
was not seen is absent. A target without a network has no `ready`, and so no `boot_s`. Where the stop or the removal
fails, what was measured before it stays, and the launch is listed among the failed ones.

Of a whole guest (docs/guests-whole.md) the chain `service` has `userspace` too, the first line of its systemd. From there
two more chains begin, each beside the others: `login`, by `sshd`, and `settling`. What `systemd-analyze` says is kept
with the launch, as a fact.

With `--ready tcp` (`wait_method`=`tcp`) `ready` is the instant at which a connection stood that was still open 250 ms
later, or on which the service spoke first. Behind a forwarder, which takes connections by itself, that is one that was
taken inside as well (docs/method.md, rule 4).
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

from lab.features import Feature
from lab.launch.session import Session
from lab.scenario import Bench
from lab.spec import Ready
from lab.timeline import ENGINE_CHAIN, LOGIN_CHAIN, SERVICE_CHAIN, SETTLING_CHAIN, Clock, Phase

_CHAINS = ((ENGINE_CHAIN, "engine"), (SERVICE_CHAIN, "service"), (LOGIN_CHAIN, "login"), (SETTLING_CHAIN, "settling"))


class Boot:
    """From `requested` to `ready`, every phase between, and the way back."""

    name = "boot"
    question = "How long from the request to the first served answer, and where does the time go?"
    headline = "boot_s"
    requires: frozenset[Feature] = frozenset()

    def measure(self, bench: Bench) -> None:
        with bench.session() as session:
            _emit_boot(bench, session)
            session.require_alive()
            session.stop()
            session.delete()
            _emit_end(bench, session)


def _emit_boot(bench: Bench, session: Session) -> None:
    timeline = session.timeline
    apart = {"wait_method": session.wait_method} if session.spec.ready is Ready.TCP else {}
    if Phase.READY in timeline:
        seconds = timeline.duration_s(Phase.REQUESTED, Phase.READY)
        bench.emit("boot_s", seconds, "s", wait_method=session.wait_method)
    for end, metric in ((Phase.LOGIN, "login_s"), (Phase.SETTLED, "settled_s")):
        if end in timeline:
            bench.emit(metric, timeline.duration_s(Phase.REQUESTED, end), "s")
    for chain, name in _CHAINS:
        for start, end, seconds in timeline.steps(chain):
            told = {"from": start, "to": end, "chain": name} | (apart if end is Phase.READY else {})
            bench.emit("phase_s", seconds, "s", **told)
    if _on_host(session, Phase.STARTED) and _on_host(session, Phase.MAIN):
        lead_s = timeline.duration_s(Phase.STARTED, Phase.MAIN)
        bench.emit("lead_s", lead_s, "s", **{"from": Phase.STARTED, "to": Phase.MAIN})
    if session.answer is not None:
        bench.emit("wait_cpu_s", session.answer.wait_cpu_ns / 1e9, "s", **apart)


def _emit_end(bench: Bench, session: Session) -> None:
    bench.emit("stop_s", session.timeline.duration_s(Phase.STOP_REQUESTED, Phase.STOPPED), "s")
    bench.emit("delete_s", session.timeline.duration_s(Phase.STOPPED, Phase.DELETED), "s")


def _on_host(session: Session, phase: Phase) -> bool:
    return phase in session.timeline and session.timeline.mark(phase).clock is not Clock.GUEST
