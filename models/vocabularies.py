"""All vocabularies of a preprocessing function in one pass over the data."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import apache_beam as beam
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam.experimental as tft_beam

Counts: TypeAlias = list[Counter[bytes]]

NO_VALUE = b"(no value)"


@dataclass(frozen=True)
class VocabularySettings:
    """One vocabulary.

    Attributes:
        file_name: Name of its file among the assets.
        max_size: Values kept, the most frequent first.
        min_count: Values seen less often are left out.
    """

    file_name: str
    max_size: int
    min_count: int


def vocabularies(
    columns: Mapping[str, tf.Tensor], settings: Mapping[str, VocabularySettings]
) -> dict[str, tf.Tensor]:
    """Counts the values of every column on the analysed data.

    `tft.vocabulary` runs a dozen Beam stages for each column; this runs as many for all of them,
    which saves more than half of the time of an analysis with eight vocabularies.

    Args:
        columns: Strings of any shape, by name.
        settings: The vocabulary of each of them.

    Returns:
        By name, the deferred vocabulary file for `tft.apply_vocabulary`: one value a line, the
        most frequent first, equally frequent ones in order of their bytes. Left out are empty
        values and those with a line break. A vocabulary without values has the one line
        `NO_VALUE`: no table is made from an empty file.
    """
    names = sorted(columns)
    if not names:
        return {}
    files = tft.experimental.ptransform_analyzer(
        inputs=[columns[name] for name in names],
        ptransform=_WriteVocabularies([settings[name] for name in names]),
        output_dtypes=[tf.string] * len(names),
        output_shapes=[[]] * len(names),
        # What the tables hold while the graph is traced; never looked up.
        output_asset_default_values=[NO_VALUE] * len(names),
        name="vocabularies",
    )
    return dict(zip(names, files, strict=True))


class _CountValues(beam.CombineFn):
    """Counts the values of each column over batches of columns."""

    def __init__(self, num_columns: int) -> None:
        self._num_columns = num_columns

    def create_accumulator(self) -> Counts:
        return [Counter() for _ in range(self._num_columns)]

    def add_input(self, mutable_accumulator: Counts, element: tuple[Any, ...]) -> Counts:
        for counter, values in zip(mutable_accumulator, element, strict=True):
            counter.update(values.ravel().tolist())
        return mutable_accumulator

    def merge_accumulators(self, accumulators: Iterable[Counts]) -> Counts:
        merged = self.create_accumulator()
        for accumulator in accumulators:
            for counter, other in zip(merged, accumulator, strict=True):
                counter.update(other)
        return merged

    def extract_output(self, accumulator: Counts) -> Counts:
        return accumulator


class _WriteVocabularies(tft_beam.PTransformAnalyzer):
    """From batches of columns to the paths of their vocabulary files, one output a column."""

    def __init__(self, settings: list[VocabularySettings]) -> None:
        super().__init__()
        self._settings = settings

    def expand(self, pcoll: beam.PCollection) -> tuple[beam.PCollection, ...]:
        tags = [settings.file_name for settings in self._settings]
        written = (
            pcoll
            | "Count" >> beam.CombineGlobally(_CountValues(len(tags)))
            | "Write"
            >> beam.FlatMap(_write, self._settings, self.base_temp_dir).with_outputs(*tags)
        )
        return tuple(written[tag] for tag in tags)


def _write(
    counts: Counts, settings: list[VocabularySettings], folder: str
) -> Iterator[beam.pvalue.TaggedOutput]:
    tf.io.gfile.makedirs(folder)
    for each, counter in zip(settings, counts, strict=True):
        path = os.path.join(folder, each.file_name)
        with tf.io.gfile.GFile(path, "wb") as file:
            file.write(b"\n".join(_kept(counter, each)) + b"\n")
        yield beam.pvalue.TaggedOutput(each.file_name, path)


def _kept(counter: Counter[bytes], settings: VocabularySettings) -> list[bytes]:
    values = [
        (-count, value)
        for value, count in counter.items()
        if count >= settings.min_count and value and b"\n" not in value and b"\r" not in value
    ]
    return [value for _, value in sorted(values)[: settings.max_size]] or [NO_VALUE]
