"""How many suspects a year of nights without any change gives, by simulation: what `levels.OF_A_WINDOW` stands on.

    python tests/accept/nights_levels.py [--years N] [--seed N] [--part SHARE,SHARE]

Figures of nights are drawn directly (normal logarithms, so wide that the least size that matters hides nothing), for
one series, six and twenty, with a control that all share and without one. Counted are suspects that are news: a night
that says the same as the one before costs nothing more.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator

from lab.figures.nights import levels
from lab.figures.nights.judge import judge_each
from lab.figures.nights.night import Figure, Night
from lab.figures.nights.verdict import State

NIGHTS = 365
WIDE = 0.2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--years", type=int, default=20)
    parser.add_argument("--seed", type=int, default=20_261_130)
    parser.add_argument("--part", default=str(levels.OF_A_WINDOW))
    parser.add_argument("--series", default="1,6,20")
    parser.add_argument("--tails", action="store_true", help="nights of Student's t with 4 degrees of freedom")
    options = parser.parse_args()
    say(f"seed {options.seed}; stated: at most {levels.SUSPECTS_PER_YEAR:g} suspects a year")
    for part in map(float, options.part.split(",")):
        levels.OF_A_WINDOW = part
        for count in map(int, options.series.split(",")):
            for control in (True, False):
                begun = time.process_time()
                found = void = 0
                years = max(1, options.years * 6 // max(6, count))
                for year in range(years):
                    chance = random.Random(f"{options.seed} {count} {control} {year}")
                    for verdict in judge_each(made(chance, count, control, options.tails)):
                        found += sum(one.is_new and one.state is State.SUSPECT for one in verdict.series)
                        void += verdict.state is State.VOID
                say(
                    f"part {part:g}, {count} series, {'with' if control else 'without'} control: {found / years:.1f} "
                    f"suspects and {void / years:.1f} void nights a year ({years} years; "
                    f"{time.process_time() - begun:.0f} s of CPU)"
                )
    return 0


def made(chance: random.Random, count: int, control: bool, tails: bool) -> Iterator[Night]:
    for place in range(NIGHTS):
        common = chance.gauss(0, WIDE)
        logs = {"process": common} if control else {}
        logs |= {f"target-{one}": common + noise(chance, tails) for one in range(count)}
        yield Night(
            run=str(place),
            at=str(place),
            figures={(name, "boot_s", ()): figure(name, log) for name, log in logs.items()},
        )


def noise(chance: random.Random, tails: bool) -> float:
    one = chance.gauss(0, WIDE)
    return one / (chance.gammavariate(2, 1) / 2) ** 0.5 / 2**0.5 if tails else one


def figure(target: str, log: float) -> Figure:
    return Figure(
        target=target,
        label=target,
        metric="boot_s",
        name="boot_s",
        unit="s",
        dimensions={},
        n=10,
        log=log,
        error=0.0,
        can_alarm=True,
    )


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
