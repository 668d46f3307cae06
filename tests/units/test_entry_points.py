"""Units of other packages, found through the entry-point group ``veloflow.units``."""

from __future__ import annotations

import importlib.metadata

import pytest

import veloflow.units


def test_a_unit_of_another_package_is_imported_like_ours(monkeypatch) -> None:
    point = importlib.metadata.EntryPoint("Counter", "collections:Counter", "veloflow.units")

    def entry_points(*, group: str, name: str):
        return [point] if (group, name) == ("veloflow.units", "Counter") else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    from collections import Counter

    assert veloflow.units.Counter is Counter
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = veloflow.units.Nothing
