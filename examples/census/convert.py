"""Turns the UCI Census-Income (KDD) files into one log that `config.yaml` reads.

    python examples/census/convert.py --data FOLDER --out FOLDER

FOLDER holds census-income.data.bz2 (199,523 rows, train) and census-income.test.gz (99,762 rows).
polyrank splits by time, so rows get days: the train file is the first day; the test file, cut in
two at random, makes the second (validation) and the third (test), as in Ma et al. (KDD 2018).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = (
    "age", "class_of_worker", "industry_code", "occupation_code", "education", "wage_per_hour",
    "enrolled_in_education", "marital_status", "industry", "occupation", "race", "hispanic_origin",
    "sex", "labor_union", "reason_for_unemployment", "employment_status", "capital_gains",
    "capital_losses", "dividends", "tax_filer_status", "previous_region", "previous_state",
    "household_status", "household_summary", "instance_weight", "migration_msa",
    "migration_region", "migration_within_region", "same_house_last_year",
    "migration_from_sunbelt", "num_persons_employer", "family_members_under_18",
    "father_country", "mother_country", "birth_country", "citizenship", "own_business",
    "veterans_questionnaire", "veterans_benefits", "weeks_worked", "year", "income",
)  # fmt: skip
COLLEGE = ("Associates", "Bachelors", "Masters", "Prof school", "Doctorate")
"""Beginnings of the degrees that count as "at least college"."""
FIRST_DAY_MS = 1_577_836_800_000
DAY_MS = 86_400_000


def read(path: Path) -> pd.DataFrame:
    """Reads one file: 42 columns, text but for the numbers.

    Args:
        path: A compressed, comma-separated file without a header.
    """
    return pd.read_csv(path, header=None, names=COLUMNS, skipinitialspace=True, dtype=str)


def convert(data: Path, out: Path, seed: int = 0) -> dict[str, int]:
    """Writes `out/people.parquet`.

    Args:
        data: Folder of the two files.
        out: Folder to write.
        seed: Seed of the random halves of the test file.

    Returns:
        Number of rows by day.
    """
    train = read(data / "census-income.data.bz2")
    rest = read(data / "census-income.test.gz")
    order = np.random.default_rng(seed).permutation(len(rest))
    half = len(rest) // 2
    days = {
        "train": train,
        "validation": rest.iloc[np.sort(order[:half])],
        "test": rest.iloc[np.sort(order[half:])],
    }
    frames = []
    for number, (day, rows) in enumerate(days.items()):
        # The last row ends its day, so that windows of a day hold just the rows of one.
        within = np.linspace(0, DAY_MS - 1, len(rows)).astype(np.int64)
        times = FIRST_DAY_MS + number * DAY_MS + within
        people = [f"{day}{i}" for i in range(len(rows))]
        frames.append(rows.assign(time_ms=times, person_id=people))
    table = pd.concat(frames, ignore_index=True)
    table["is_college"] = table["education"].str.startswith(COLLEGE).astype(int)
    table["is_never_married"] = (table["marital_status"] == "Never married").astype(int)
    table["is_over_50k"] = table["income"].str.startswith("50000+").astype(int)
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), out / "people.parquet")
    return {day: len(rows) for day, rows in days.items()}


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the two files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the halves of the test file")
    options = parser.parse_args()
    for day, count in convert(options.data, options.out, options.seed).items():
        print(f"{day}: {count} rows")


if __name__ == "__main__":
    main()
