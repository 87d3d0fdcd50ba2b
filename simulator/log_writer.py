"""Writes rows as Parquet, CSV or JSON Lines into daily folders."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from simulator.config import SimulationConfig
from simulator.faults import NUM_GHOST_ITEMS, FaultyRows
from simulator.identifiers import numbered_names, request_ids
from simulator.population import CATEGORIES, COUNTRIES, DEVICES, SEGMENTS, SURFACES, World
from simulator.rows import NULL_TIME, Rows, taken

UNREADABLE_TEXT = "not-a-time"
_JSON_CHUNK_ROWS = 100_000


@dataclasses.dataclass(frozen=True)
class LogWriter:
    """Turns codes into strings and rows into files.

    Attributes:
        config: Names the days, the format and the seed of request ids.
        out_dir: Folder of the streams.
        vocabularies: Strings of every coded column, in the order of their codes.
    """

    config: SimulationConfig
    out_dir: Path
    vocabularies: dict[str, pa.StringArray]

    @classmethod
    def for_world(cls, world: World, out_dir: Path) -> LogWriter:
        """Names everything in a world.

        Args:
            world: Its users, items and creators get ids.
            out_dir: Folder of the streams.
        """
        vocabularies = {
            "user_id": numbered_names("u", len(world.users.segment)),
            "item_id": numbered_names("i", len(world.items.category) + NUM_GHOST_ITEMS),
            "item_creator": numbered_names("creator", world.items.num_creators),
            "device": pa.array(DEVICES),
            "country": pa.array(COUNTRIES),
            "surface": pa.array(SURFACES),
            "user_segment": pa.array(SEGMENTS),
            "item_category": pa.array(CATEGORIES),
        }
        return cls(world.config, out_dir, vocabularies)

    def write(self, stream: str, arrived: FaultyRows) -> None:
        """Writes one file for every folder the rows arrive in; a folder is written only once.

        Args:
            stream: Name of the stream.
            arrived: Rows in ascending order of folders.
        """
        (self.out_dir / stream).mkdir(parents=True, exist_ok=True)
        folders, starts = np.unique(arrived.folder, return_index=True)
        bounds = [*starts.tolist(), len(arrived.folder)]
        for folder, start, stop in zip(folders.tolist(), bounds, bounds[1:], strict=False):
            path = self.out_dir / stream / f"date={self.config.date(folder)}"
            path.mkdir()
            rows = taken(arrived.rows, np.arange(start, stop))
            self._write_file(self.table(rows), path / f"part-00000.{self.config.file_format}")

    def table(self, rows: Rows) -> pa.Table:
        """Replaces codes by strings, missing floats and times by nulls.

        Args:
            rows: Rows of any stream.
        """
        return pa.table({name: self._column(name, values) for name, values in rows.items()})

    def _column(self, name: str, values: NDArray[Any]) -> pa.Array:
        if name == "request_id":
            return request_ids(values, self.config.seed)
        if name in self.vocabularies:
            return self.vocabularies[name].take(pa.array(values, mask=values < 0))
        if name == "timestamp":
            return pa.array(values, mask=values == NULL_TIME)
        return pa.array(values, from_pandas=True)

    def _write_file(self, table: pa.Table, path: Path) -> None:
        if self.config.file_format == "parquet":
            # Ids that hardly repeat do not profit from a dictionary.
            dictionary = [name for name in table.column_names if name in self.vocabularies]
            pa.parquet.write_table(table, path, use_dictionary=dictionary)
            return
        time_text = table["timestamp"].cast(pa.string()).fill_null(UNREADABLE_TEXT)
        if self.config.file_format == "csv":
            position = table.column_names.index("timestamp")
            table = table.set_column(position, "timestamp", time_text)
            options = pa.csv.WriteOptions(quoting_style="none")
            pa.csv.write_csv(table, path, options)
            return
        with path.open("wb") as file:
            for start in range(0, table.num_rows, _JSON_CHUNK_ROWS):
                file.write(_json_lines(table.slice(start, _JSON_CHUNK_ROWS)))


def _json_lines(table: pa.Table) -> bytes:
    """Joins columns into one JSON object a line. Names and strings need no escapes here."""
    parts: list[pa.Array | str] = []
    for index, name in enumerate(table.column_names):
        parts.append(("{" if index == 0 else ",") + f'"{name}":')
        parts.append(_json_values(name, table[name].combine_chunks()))
    lines = pc.binary_join_element_wise(*parts, "}\n", "")
    return "".join(lines.to_pylist()).encode()


def _json_values(name: str, values: pa.Array) -> pa.Array:
    if name == "timestamp":
        return values.cast(pa.string()).fill_null(f'"{UNREADABLE_TEXT}"')
    text = values.cast(pa.string())
    if pa.types.is_string(values.type):
        text = pc.binary_join_element_wise('"', text, '"', "")
    return text.fill_null("null")
