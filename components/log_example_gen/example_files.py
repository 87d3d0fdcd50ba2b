"""Writes examples as gzipped TFRecords, each file appearing whole or not at all."""

from __future__ import annotations

import uuid

import polars as pl

from components.log_example_gen.example_encoder import encode_examples

FILE_FORMAT = "tfrecords_gzip"
_LEVEL = 1
"""Level 1 takes a quarter of the default's time for files a quarter larger."""


def split_folder(examples_uri: str, split: str) -> str:
    """Returns the folder of a split, as TFX expects it."""
    return f"{examples_uri}/Split-{split}"


def write_examples(
    examples_uri: str, split: str, shard: int, num_shards: int, frame: pl.DataFrame
) -> None:
    """Writes the examples of one split and shard.

    Args:
        examples_uri: Folder of the Examples artifact.
        split: Name of the split.
        shard: Number of the file.
        num_shards: Number of files.
        frame: Example columns.
    """
    import tensorflow as tf

    folder = split_folder(examples_uri, split)
    tf.io.gfile.makedirs(folder)
    name = f"data_tfrecord-{shard:05d}-of-{num_shards:05d}.gz"
    # Hidden names are no part of a file pattern; a retried bundle writes under another one.
    staged = f"{folder}/.{name}-{uuid.uuid4().hex}"
    options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=_LEVEL)
    with tf.io.TFRecordWriter(staged, options) as writer:
        for record in encode_examples(frame):
            writer.write(record)
    tf.io.gfile.rename(staged, f"{folder}/{name}", overwrite=True)
