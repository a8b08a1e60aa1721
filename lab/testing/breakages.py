"""Drivers that keep all of the contract but one promise each: whoever tests drivers tests his tests by them."""

from __future__ import annotations

BREAKAGES: dict[str, type] = {}
