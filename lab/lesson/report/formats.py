"""A checked lesson as graders read it.

Sources: gradescope-autograders.readthedocs.io/en/latest/specs (results.json); the reporter of GitHub Classroom,
classroom-resources/autograding-grading-reporter, src/: it takes each runner's result in base64, adds up `score`, and
counts `pass`.
"""

from __future__ import annotations

from typing import Any

from lab.lesson.record import Progress, State, Step


def points(progress: Progress) -> dict[str, Any]:
    """What `lab lesson check --json` prints: the tests with their points, for whatever reads JSON."""
    return {
        "lesson": progress.lesson,
        "passed": _passed(progress),
        "points": progress.points,
        "max_points": progress.max_points,
        "tests": [
            {
                "name": step.id,
                "title": step.title,
                "state": step.state.value,
                "passed": step.state is State.PASSED,
                "points": step.points,
                "max_points": step.max_points,
                "expected": step.expected,
                "actual": step.actual,
                "mistakes": [mistake.value for mistake in step.mistakes],
                "runs": list(step.run_ids),
                "lost": step.lost,
                "checks": [check.model_dump(mode="json") for check in step.checks],
            }
            for step in progress.steps
        ],
    }


def gradescope(progress: Progress) -> dict[str, Any]:
    """Gradescope's results.json."""
    return {
        "score": progress.points,
        "output": f"{progress.lesson}: {progress.points:g} / {progress.max_points:g}",
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "extra_data": {"lab_version": progress.lab_version, "lesson_digest": progress.lesson_digest},
        "tests": [
            {
                "name": step.title,
                "name_format": "text",
                "number": str(number),
                "score": step.points,
                "max_score": step.max_points,
                "status": "passed" if step.state is State.PASSED else "failed",
                "output": _output(step),
                "output_format": "text",
                "tags": [mistake.value for mistake in step.mistakes],
                "visibility": "visible",
                "extra_data": {"state": step.state.value, "runs": list(step.run_ids)},
            }
            for number, step in enumerate(progress.steps, start=1)
        ],
    }


def classroom(progress: Progress) -> dict[str, Any]:
    """The result of a runner for GitHub Classroom's reporter, before base64."""
    error = any(step.state is State.ERROR for step in progress.steps)
    return {
        "version": 1,
        "status": "error" if error else "pass" if _passed(progress) else "fail",
        "max_score": progress.max_points,
        "tests": [
            {
                "name": step.title,
                "status": {State.PASSED: "pass", State.ERROR: "error"}.get(step.state, "fail"),
                "score": step.points,
                "message": _output(step),
                "line_no": 0,  # which it prints: there is none
            }
            for step in progress.steps
        ],
    }


def _passed(progress: Progress) -> bool:
    return all(step.state is State.PASSED for step in progress.steps)


def _output(step: Step) -> str:
    """Expected and actual of each check, a line each."""
    lines = [f"{step.state}{f' ({step.lost})' if step.lost else ''}"]
    for check in step.checks:
        told = f"expected: {check.expected}" if check.expected else ""
        told += f"; actual: {check.actual}" if check.actual else ""
        lines.append(
            f"{check.name}: {check.state}{f' [{check.mistake}]' if check.mistake else ''}; {told}".rstrip("; ")
        )
    return "\n".join(lines)
