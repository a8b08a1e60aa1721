"""What is said to a student of each common mistake."""

from __future__ import annotations

from collections.abc import Mapping

from lab.lesson.record import Mistake
from lab.lesson.words import Words

_TOLD: Mapping[Mistake, str] = {
    Mistake.NO_PREDICTION: "Predict first: who has seen the figure has nothing left to predict.",
    Mistake.PREDICTION_AFTER_RUN: "This run is older than your prediction. The prediction stays as it is; run it anew.",
    Mistake.NO_RUN: "There is no such run in the store yet.",
    Mistake.OTHER_HOST: "This run was measured on another machine. What counts is what you measured on yours.",
    Mistake.OTHER_TOOL: "This run was measured by another tool, whose figures have other ends.",
    Mistake.UNFINISHED_RUN: "This run did not come to its end: what it has by then is a selection of its rounds.",
    Mistake.MISSING_TARGET: "A target is missing: what was not measured in the same run cannot be compared with it.",
    Mistake.FAILED_LAUNCHES: "A target was given up after failed launches: `lab show` says why.",
    Mistake.TOO_FEW_ROUNDS: "Too few rounds: below six values there is no interval, and one value says nothing of the "
    "next.",
    Mistake.NO_WARM_UP: "Without warm-up the first round, in which caches are filled, is among the values.",
    Mistake.WRONG_END: "That has another end. The end here is the first complete answer to a request, and not the "
    "engine's word or an open port.",
    Mistake.UNEQUAL_TERMS: "That was measured on other terms than the lesson's.",
    Mistake.EDITED: "This does not agree with itself: it is not as the lab stored it.",
    Mistake.SINGLE_NUMBER: "A single number hides how far the next run may be from it: give both ends of the interval.",
    Mistake.NO_UNIT: "A number without its unit could be anything.",
    Mistake.WRONG_UNIT: "The unit is not the figure's.",
    Mistake.RANGE_AS_INTERVAL: "That is the range, from the least to the greatest value. The interval says where the "
    "median lies.",
    Mistake.OTHER_TARGETS_FIGURE: "That is another target's figure.",
    Mistake.AGAINST_OWN_INTERVAL: "Your own interval says otherwise.",
    Mistake.TCG_AS_KVM: "This virtual machine ran emulated (tcg). Nothing about virtual machines in general follows "
    "from it.",
    Mistake.WRONG_CHOICE: "Not all that you chose is so.",
    Mistake.MISSED_CHOICE: "That is not all of it.",
}


def told(mistake: Mistake, words: Words) -> str:
    """One or two sentences."""
    return words(_TOLD[mistake])


def all_told() -> Mapping[Mistake, str]:
    """Every mistake with its English sentence."""
    return _TOLD
