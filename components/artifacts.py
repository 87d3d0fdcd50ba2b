"""Artifact types that TFX does not have."""

from __future__ import annotations

from tfx.types.artifact import Artifact, Property, PropertyType


class LogAccounts(Artifact):
    """What became of every row read: `accounts.json`, dead letters and the as-of snapshot."""

    TYPE_NAME = "PolyrankLogAccounts"


class Predictions(Artifact):
    """Row-level predictions of one candidate: `predictions.parquet`."""

    TYPE_NAME = "PolyrankPredictions"


class Blessing(Artifact):
    """The verdict of a gate: `gate.json`; property `blessed` is 1 or 0."""

    TYPE_NAME = "PolyrankBlessing"
    PROPERTIES = {"blessed": Property(type=PropertyType.INT)}


class ChampionChoice(Artifact):
    """Which candidate was chosen and why: `champion.json`."""

    TYPE_NAME = "PolyrankChampionChoice"


class ReportData(Artifact):
    """Floors and paired comparisons for the report: `report.json`."""

    TYPE_NAME = "PolyrankReportData"
