"""What each family of features brings: leave one out, and see what the test split loses.

``python -m benchmarks.feature_families.run --config examples/ebnerd/config.yaml --families
benchmarks/feature_families/ebnerd.yaml --set logs.root=FOLDER``; see README.md beside this file.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from ruamel.yaml import YAML
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from components.log_example_gen.build import build_examples, read_logs
from models.metrics.columns import TaskColumns
from models.metrics.estimation import Resampled, resample
from models.spec.errors import ConfigError
from models.spec.feature import Feature
from models.spec.keys import key_feature
from models.spec.ranking import RankingSpec
from models.spec.task import Output
from pipeline.load import load_config
from pipeline.plan import make_dataset

MAX_CATEGORIES = 200
"""More frequent values of a string are categories; the others are one. scikit-learn takes 255."""


@dataclass(frozen=True)
class Splits:
    """Features and keys of the rows to learn from and of the rows to measure on.

    Attributes:
        learn: Rows of the train and validation splits.
        test: Rows of the test split.
    """

    learn: pl.DataFrame
    test: pl.DataFrame


@dataclass(frozen=True)
class Measurement:
    """Models that lack some features.

    Attributes:
        num_features: Number of features left.
        metrics: Resampled metrics by output name.
    """

    num_features: int
    metrics: dict[str, Resampled]


def assigned_families(
    features: Sequence[Feature], patterns: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Sorts features into families.

    Args:
        features: Every request feature.
        patterns: Shell patterns of feature names, by family.

    Returns:
        Feature names by family.

    Raises:
        ConfigError: A feature belongs to no family or to two, or a family has none.
    """
    families: dict[str, list[str]] = {family: [] for family in patterns}
    for feature in features:
        found = [
            family
            for family, globs in patterns.items()
            if any(fnmatch.fnmatchcase(feature.name, glob) for glob in globs)
        ]
        if len(found) != 1:
            raise ConfigError(
                f"feature {feature.name} belongs to {' and '.join(found) or 'no family'}",
                constraint="every request feature in exactly one family",
                remedy="edit the patterns of the families",
            )
        families[found[0]].append(feature.name)
    empty = sorted(family for family, names in families.items() if not names)
    if empty:
        raise ConfigError(
            f"no feature belongs to {', '.join(empty)}",
            constraint="at least one feature a family",
            remedy="edit the patterns of the families, or remove the family",
        )
    return families


class Bench:
    """Trains gradient boosting with and without families, and compares on the same test rows.

    The features are exactly those that the pipeline's examples carry, with its splits: train and
    validation are learnt from, test is measured on. scikit-learn's gradient boosting stands in for
    the networks: it needs no encodings, no tuning and seconds instead of minutes, so that what
    differs between two rows of the table is the features.

    Args:
        ranking: Features and tasks.
        splits: The rows.
        num_models: Models whose predictions are averaged, with seeds 0, 1, ...; one model alone
            moves by as much as a small family.
        num_replicates: Resamples of the users.
    """

    def __init__(
        self, ranking: RankingSpec, splits: Splits, num_models: int, num_replicates: int
    ) -> None:
        """Keeps what is compared on."""
        self._ranking = ranking
        self._splits = splits
        self._num_models = num_models
        self._num_replicates = num_replicates
        self._group = _codes(splits.test, ranking.group_column)
        self._cluster = _codes(splits.test, ranking.user)
        self._columns = {
            feature.name: _as_numbers(feature, splits) for feature in ranking.request_features
        }

    @property
    def outputs(self) -> list[Output]:
        """What is measured: outputs that are a task of their own."""
        tasks = self._ranking.tasks
        return [o for o in self._ranking.outputs if tasks[o.task].conditioned_on is None]

    def metrics(self, output: Output) -> list[str]:
        """AUC, and GAUC of tasks that all rows have; Spearman's correlation of numbers."""
        if output.kind != "binary":
            return ["spearman"]
        return ["auc"] if self._ranking.tasks[output.task].mask else ["auc", "gauc"]

    def without(self, dropped: Sequence[str]) -> Measurement:
        """Measures models that lack some features."""
        names = [name for name in self._columns if name not in dropped]
        learn = np.stack([self._columns[name][0] for name in names], axis=1)
        test = np.stack([self._columns[name][1] for name in names], axis=1)
        strings = {f.name for f in self._ranking.request_features if f.dtype == "string"}
        categorical = np.array([name in strings for name in names])
        return Measurement(
            len(names), {o.name: self._measured(o, learn, test, categorical) for o in self.outputs}
        )

    def _measured(
        self,
        output: Output,
        learn: NDArray[np.float64],
        test: NDArray[np.float64],
        categorical: NDArray[np.bool_],
    ) -> Resampled:
        applies = _column(self._splits.learn, output.weight_key) > 0
        labels = _column(self._splits.learn, output.label_key)[applies]
        predictions = np.zeros(len(test))
        for seed in range(self._num_models):
            options = {
                "learning_rate": 0.05,
                "max_iter": 300,
                "min_samples_leaf": min(100, max(20, len(labels) // 500)),
                "l2_regularization": 5.0,
                "early_stopping": True,
                "validation_fraction": 0.15,
                "categorical_features": categorical,
                "random_state": seed,
            }
            if output.kind == "binary":
                model = HistGradientBoostingClassifier(**options).fit(learn[applies], labels)
                predictions += model.predict_proba(test)[:, 1]
            else:
                model = HistGradientBoostingRegressor(**options)
                model.fit(learn[applies], np.log1p(labels))
                predictions += model.predict(test)
        return resample(
            self.metrics(output),
            TaskColumns(
                _column(self._splits.test, output.label_key),
                predictions / self._num_models,
                _column(self._splits.test, output.weight_key),
                self._group,
                self._cluster,
            ),
            num_replicates=self._num_replicates,
            seed=0,
        )


def table(bench: Bench, families: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines of the Markdown table: all features, then what changes without each family."""
    cells = [(output.name, metric) for output in bench.outputs for metric in bench.metrics(output)]
    whole = bench.without([])
    rows = {"(nothing)": (whole.num_features, [whole.metrics[o].intervals()[m] for o, m in cells])}
    for family, names in families.items():
        measured = bench.without(names)
        less = {o: measured.metrics[o].less(whole.metrics[o]) for o, _ in cells}
        rows[family] = (measured.num_features, [less[o][m] for o, m in cells])
    lines = [
        "| without | features left | " + " | ".join(f"{o} {m}" for o, m in cells) + " |",
        "|---" * (len(cells) + 2) + "|",
    ]
    for i, (name, (left, intervals)) in enumerate(rows.items()):
        sign = "+" if i else ""
        texts = [f"{v.value:{sign}.4f} [{v.low:.4f}, {v.high:.4f}]" for v in intervals]
        lines.append(f"| {name} | {left} | " + " | ".join(texts) + " |")
    return lines


def _column(rows: pl.DataFrame, name: str) -> NDArray[np.float64]:
    return np.asarray(rows[name], np.float64)


def _codes(rows: pl.DataFrame, column: str) -> NDArray[np.int64]:
    return np.asarray(rows[key_feature(column)].rank("dense"), np.int64)


def _as_numbers(feature: Feature, splits: Splits) -> list[NDArray[np.float64]]:
    """A feature of both splits as numbers: NaN missing, strings by how frequent they are."""
    both = [splits.learn[feature.name], splits.test[feature.name]]
    if feature.dtype == "float":
        return [np.asarray(values.fill_null(np.nan), np.float64) for values in both]
    counts = both[0].drop_nulls().value_counts(sort=True)[feature.name].to_list()
    codes = {value: float(i) for i, value in enumerate(counts[:MAX_CATEGORIES])} | {None: np.nan}
    return [
        np.array([codes.get(value, MAX_CATEGORIES) for value in values.to_list()])
        for values in both
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--families", type=Path, required=True, help="patterns by family, YAML")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="Markdown file; standard output if absent")
    parser.add_argument("--models", type=int, default=3, help="models averaged (default 3)")
    parser.add_argument("--replicates", type=int, default=200, help="resamples of the users")
    options = parser.parse_args(arguments)
    config = load_config(options.config, options.set)
    dataset = make_dataset(config, date=None)
    built = build_examples(dataset, read_logs(dataset))
    splits = Splits(
        pl.concat([built.examples["train"], built.examples["validation"]]), built.examples["test"]
    )
    ranking = config.ranking
    patterns = YAML(typ="safe").load(options.families)
    families = assigned_families(ranking.request_features, patterns)
    bench = Bench(ranking, splits, options.models, options.replicates)
    users = splits.test[key_feature(ranking.user)].n_unique()
    lines = [
        f"Rows: {splits.learn.height} to learn from, {splits.test.height} to test on "
        f"({users} users). {options.models} models averaged; intervals: 95 % of "
        f"{options.replicates} resamples of the users, differences paired.",
        "",
        *table(bench, families),
    ]
    text = "\n".join(lines) + "\n"
    if options.out is None:
        print(text, end="")
    else:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
