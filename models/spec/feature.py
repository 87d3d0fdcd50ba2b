"""Features: how values enter the model, and the ones computed from logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from models.spec.strict import DurationMs, Names, Strict

SMALLEST_NUMBER = 2.0**-126
"""Slate relations take magnitudes below this, the subnormal float32, for 0."""


class VocabularyEncoding(Strict):
    """Embeds the frequent values; the rest share out-of-vocabulary buckets."""

    kind: Literal["vocabulary"] = "vocabulary"
    dimension: Annotated[int, Field(ge=1)] = Field(default=16, description="Embedding width.")
    max_size: Annotated[int, Field(ge=1)] = Field(
        default=100_000, description="Keep at most this many values, the most frequent first."
    )
    min_count: Annotated[int, Field(ge=1)] = Field(
        default=1, description="Values seen less often in the train split are out of vocabulary."
    )
    oov_buckets: Annotated[int, Field(ge=1)] = Field(
        default=1, description="Rows of the table shared by out-of-vocabulary values."
    )


class HashEncoding(Strict):
    """Embeds a hash of the value: no vocabulary, collisions possible."""

    kind: Literal["hash"]
    dimension: Annotated[int, Field(ge=1)] = Field(default=16, description="Embedding width.")
    buckets: Annotated[int, Field(ge=2)] = Field(description="Rows of the table.")


class QuantileEncoding(Strict):
    """Embeds the quantile bucket of a number; missing values have a bucket of their own."""

    kind: Literal["quantiles"]
    dimension: Annotated[int, Field(ge=1)] = Field(default=8, description="Embedding width.")
    buckets: Annotated[int, Field(ge=2)] = Field(
        default=20, description="Number of buckets, with equal counts on the train split."
    )


class NumericEncoding(Strict):
    """Feeds the number itself, with a missing-value indicator beside it.

    With `pieces` also its piecewise-linear code (Gorishniy 2022, "On Embeddings for Numerical
    Features in Tabular Deep Learning", eq. 1): for the interval [b, c) of two neighbouring
    quantiles one value, 0 below b, 1 from c on and (x - b) / (c - b) inside. A network then bends
    its response at the quantiles as a tree splits there, where the number alone takes many epochs.
    Differs from the paper: the outermost values are clipped rather than continued, since the number
    itself goes on; an interval without width (a value with many ties) says whether x is above it.
    """

    kind: Literal["numeric"] = "numeric"
    log: bool = Field(
        default=False, description="Apply sign(x) log(1 + |x|) first; for counts and durations."
    )
    standardize: bool = Field(
        default=True, description="Subtract the train mean, divide by the standard deviation."
    )
    pieces: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Intervals of the piecewise-linear code fed beside a scalar, with equal counts "
        "on the train split; 0: none.",
    )


class SharedEncoding(Strict):
    """Uses another feature's vocabulary and embedding table (a click history of item ids)."""

    kind: Literal["shared"]
    feature: str = Field(description="The feature whose table is used.")


Encoding = Annotated[
    VocabularyEncoding | HashEncoding | QuantileEncoding | NumericEncoding | SharedEncoding,
    Field(discriminator="kind"),
]


class AsOf(Strict):
    """A statistic of events strictly before the impression, as a feature store would know it.

    With `a = impression time - availability_lag`, the events used are those of the same entity
    with time in `[a - window, a)`: an event at exactly `a` is not before it. An event's time is
    its own timestamp; for `events: impressions` with a `where` or `value` that reads future
    columns, it is the impression's time plus the longest `known_after` (or join window) of these
    columns. Entity and value columns that a stream does not carry are taken from the impressions
    it joins. Ages and recencies are measured from the impression's time.
    """

    events: str = Field(description="An event stream, or `impressions` for exposures.")
    entity: Names = Field(
        description="Key column or columns of the statistic, e.g. item_id or [user_id, category]."
    )
    aggregate: Literal["count", "sum", "mean", "age", "recency", "last_values"] = Field(
        description="count; sum or mean of `value`; age (seconds since the entity's first event); "
        "recency (seconds since its last); last_values (the latest `length` values, newest first)."
    )
    window: DurationMs | None = Field(
        default=None, description="Look back this far; for ever if absent."
    )
    availability_lag: DurationMs = Field(
        default=0, description="How late an event becomes visible to a serving request."
    )
    value: str | None = Field(
        default=None, description="Column to aggregate; for sum, mean and last_values."
    )
    length: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Number of values kept; for last_values."
    )
    where: str | None = Field(
        default=None,
        description="DuckDB SQL condition over the events' columns, e.g. `clicked` or `value > 3`.",
    )

    @property
    def default(self) -> float | None:
        """The number that an entity without events has; None where that is a missing value."""
        return 0.0 if self.aggregate in ("count", "sum") else None


class Rate(Strict):
    """`(numerator + prior_rate * prior_strength) / (denominator + prior_strength)`."""

    numerator: str = Field(description="An as-of feature, e.g. clicks.")
    denominator: str = Field(description="An as-of feature, e.g. exposures.")
    prior_rate: float = Field(default=0.0, description="The rate of an entity never seen.")
    prior_strength: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="How many observations the prior is worth."
    )


SlateRelation = Literal["rank", "share", "ratio_to_max", "count"]


class SlateRelative(Strict):
    """A candidate's value relative to the other candidates of its slate.

    For values `v` of one slate of `n` candidates, missing values counting as absent:
    rank: the share of the n candidates whose value is strictly greater (a missing value is below
    every other one); share: `v / sum(v)`, 0 where the sum is 0 or v is missing; ratio_to_max:
    `v / max(v)`, 0 where the maximum is 0 or v is missing; count: how many candidates have a value
    (of a value that is never missing: the size of the slate). With one click a slate, how many
    candidates share it says more than most of what is known of one of them.
    """

    of: str = Field(description="A numeric feature or numeric request column.")
    relation: SlateRelation = Field(description="See above.")


class DerivedFeature(Strict):
    """A feature computed from the logs: exactly one of as_of, rate and slate."""

    as_of: AsOf | None = Field(default=None, description="Statistic of earlier events.")
    rate: Rate | None = Field(default=None, description="Smoothed ratio of two as-of features.")
    slate: SlateRelative | None = Field(
        default=None, description="Value relative to the other candidates of the request."
    )
    source: Literal["computed", "logged"] = Field(
        default="computed",
        description="computed by us, as-of; or logged: the request carried a column of this name.",
    )
    encoding: Encoding | None = Field(
        default=None,
        description="How it enters the model; standardized (log for counts) if absent.",
    )
    group: str = Field(default="main", description="Feature group.")
    feature: bool = Field(
        default=True,
        description="false: only an ingredient of other features, not an input of the model.",
    )
    description: str = Field(
        default="", description="A note for readers of the file; nothing else uses it."
    )


@dataclass(frozen=True)
class Feature:
    """An input of the model, resolved from a column or a derived feature.

    Attributes:
        name: Input name in tf.Examples, signatures and requests.
        dtype: ``string`` (categorical) or ``float``.
        length: Fixed length of a padded sequence, None for scalars.
        encoding: How it enters the model.
        group: Feature group.
        scope: ``context`` (one value a request) or ``candidate``.
        availability: ``request`` for everything served; ``decision`` exists in training only.
        origin: Where the value comes from.
        slate: The slate relation, for `origin` slate.
    """

    name: str
    dtype: Literal["string", "float"]
    length: int | None
    encoding: Encoding
    group: str
    scope: Literal["context", "candidate"]
    availability: Literal["request", "decision"]
    origin: Literal["column", "as_of", "rate", "slate"]
    slate: SlateRelative | None = None
