"""The model of the serving benchmarks: an MMoE of eight id features, in plain TensorFlow."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from components.model_pusher.push import push as push_model
from serving.warmup import write_warmup

NUM_FEATURES = 8
NUM_IDS = 10_000
NUM_CANDIDATES = 100
_EMBEDDING, _EXPERTS, _WIDTH, _TASKS = 16, 4, 64, 2
_GENERATION_FILE = "generation.txt"


class Mmoe(tf.Module):
    """Ids to two probabilities; `generation` comes from an asset, so that versions are copies."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        random = np.random.default_rng(0)

        def weights(*shape: int) -> tf.Variable:
            return tf.Variable(random.normal(0, 0.1, shape).astype(np.float32))

        folder.mkdir(parents=True, exist_ok=True)
        vocabulary = folder / "ids.txt"
        vocabulary.write_text("".join(f"id-{number}\n" for number in range(NUM_IDS)))
        self.ids = tf.lookup.StaticVocabularyTable(
            tf.lookup.TextFileInitializer(
                str(vocabulary),
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            num_oov_buckets=1,
        )
        generation = folder / _GENERATION_FILE
        generation.write_text("generation\t0\n")
        self.generation = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(generation), tf.string, 0, tf.int64, 1, delimiter="\t"
            ),
            -1,
        )
        width = NUM_FEATURES * _EMBEDDING
        self.embeddings = [weights(NUM_IDS + 1, _EMBEDDING) for _ in range(NUM_FEATURES)]
        self.experts = weights(width, _EXPERTS * _WIDTH)
        self.gates = [weights(width, _EXPERTS) for _ in range(_TASKS)]
        self.towers = [weights(_WIDTH, 1) for _ in range(_TASKS)]

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, f"f{n}") for n in range(NUM_FEATURES)]
    )
    def predict(self, *features: tf.Tensor) -> dict[str, tf.Tensor]:
        """Scores candidates."""
        embedded = [
            tf.gather(table, self.ids.lookup(feature))
            for table, feature in zip(self.embeddings, features, strict=True)
        ]
        x = tf.concat(embedded, axis=1)
        experts = tf.reshape(tf.nn.relu(x @ self.experts), [-1, _EXPERTS, _WIDTH])
        outputs = {}
        for number, (gate, tower) in enumerate(zip(self.gates, self.towers, strict=True)):
            mixed = tf.einsum("be,bew->bw", tf.nn.softmax(x @ gate), experts)
            outputs[f"task{number}"] = tf.sigmoid(tf.squeeze(mixed @ tower, 1))
        generation = self.generation.lookup(tf.constant("generation"))
        outputs["generation"] = tf.fill([tf.shape(x)[0]], generation)
        return outputs


def write_model(folder: Path) -> Path:
    """Writes the model with its warm-up request; returns its directory, to be copied by `push`."""
    model = Mmoe(folder / "vocabulary")
    saved = folder / "saved"
    tf.saved_model.save(model, str(saved), signatures={"predict": model.predict})
    write_warmup(saved, {"predict": candidates(seed=1)})
    return saved


def push(saved: Path, base_path: Path, version: int) -> None:
    """Pushes a copy whose `generation` is its version, the next one, as ModelPusher does."""

    def set_generation(staged: Path) -> None:
        (staged / "assets" / _GENERATION_FILE).write_text(f"generation\t{version}\n")

    pushed = push_model(
        saved, base_path, run_id=f"run-{version}", provenance={}, complete=set_generation
    )
    assert pushed.version == version, pushed


def candidates(seed: int = 0) -> dict[str, np.ndarray]:
    """Makes the ids of one request's candidates."""
    random = np.random.default_rng(seed)
    return {
        f"f{n}": np.array(
            [f"id-{i}".encode() for i in random.integers(0, NUM_IDS, NUM_CANDIDATES)], object
        )
        for n in range(NUM_FEATURES)
    }
