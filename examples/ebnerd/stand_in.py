"""Writes a stand-in for EB-NeRD's two weeks: simulated, with its columns, layout and size.

    python examples/ebnerd/stand_in.py --out FOLDER [--slates 50080] [--seed 0]

For measuring time and memory at full size without the data set. Articles appear all the time,
and fade within a day; readers prefer topics and differ in patience; a slate has one click. What a
model reaches on it says nothing about EB-NeRD itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

START = np.datetime64("2023-05-18T07:00:00", "us")
DAY_SECONDS = 86400
WEEK_DAYS = 7
TOPICS = 12
USERS = 1600
ARTICLES_PER_DAY = 250
HISTORY_DAYS = 21
HISTORY_CLICKS = 140
MEAN_SLATE = 11.64


class World:
    """Articles with a birth, a quality and a topic, and readers who prefer topics."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        last_day = 2 * WEEK_DAYS
        count = ARTICLES_PER_DAY * (HISTORY_DAYS + last_day)
        self.born = np.sort(generator.uniform(-HISTORY_DAYS, last_day, count)) * DAY_SECONDS
        self.quality = generator.normal(0, 1, count)
        self.topic = generator.integers(0, TOPICS, count)
        self.fade_seconds = DAY_SECONDS * generator.lognormal(-1.2, 0.6, count)
        self.taste = generator.normal(0, 0.8, (USERS, TOPICS))
        self.patience = generator.normal(0, 0.5, USERS)
        self.activity = generator.lognormal(0, 1, USERS)
        self.activity /= self.activity.sum()

    def heat(self, articles: np.ndarray, second: float) -> np.ndarray:
        """Log attractiveness of articles at a time: quality less what has faded."""
        age = second - self.born[articles]
        return np.asarray(self.quality[articles] - age / self.fade_seconds[articles])

    def alive(self, second: float) -> np.ndarray:
        """Articles born within the two days before a time."""
        first, last = np.searchsorted(self.born, [second - 2 * DAY_SECONDS, second])
        return np.arange(first, last)

    def choose(self, second: float, size: int) -> np.ndarray:
        """`size` different live articles, hotter ones more often."""
        live = self.alive(second)
        keys = 0.7 * self.heat(live, second) + self.generator.gumbel(size=len(live))
        return np.asarray(live[np.argsort(-keys)[:size]])


def _seconds(generator: np.random.Generator, count: int, first_day: float) -> np.ndarray:
    """Sorted seconds of a week with more traffic in the day than at night."""
    days = generator.uniform(first_day, first_day + WEEK_DAYS, count * 3)
    share = 0.55 + 0.45 * np.sin(2 * np.pi * (days - 0.1))
    kept = days[generator.uniform(size=len(days)) < share]
    return np.asarray(np.sort(generator.choice(kept, count))) * DAY_SECONDS


def _timestamps(seconds: np.ndarray) -> np.ndarray:
    return START + np.asarray(seconds).astype("timedelta64[s]")


def behaviors(world: World, slates: int, first_day: float, first_id: int) -> pa.Table:
    """Makes a week of slates, one row each, with EB-NeRD's columns."""
    generator = world.generator
    seconds = _seconds(generator, slates, first_day)
    users = generator.choice(USERS, slates, p=world.activity)
    sizes = np.clip(5 + generator.negative_binomial(1, 1 / (MEAN_SLATE - 4), slates), 5, 100)
    shown, clicked, read, scroll = [], [], [], []
    for second, user, size in zip(seconds, users, sizes, strict=True):
        articles = world.choose(second, size)
        utility = 0.9 * world.heat(articles, second) + world.taste[user, world.topic[articles]]
        pick = int(articles[np.argmax(utility + generator.gumbel(size=len(articles)))])
        interest = 0.6 * world.taste[user, world.topic[pick]] + 0.3 * world.quality[pick]
        interest += world.patience[user]
        seconds_read = float(np.round(generator.lognormal(2.4 + interest, 0.9)))
        shown.append(articles)
        clicked.append([pick])
        read.append(min(seconds_read, 1800.0))
        scroll.append(100.0 if seconds_read > 45 else min(99.0, 10 + seconds_read))
    ids = np.arange(first_id, first_id + slates)
    genders = [None if user % 7 else int(user % 2) for user in users]
    ages = [None if user % 9 else int(20 + user % 60) for user in users]
    return pa.table(
        {
            "impression_id": pa.array(ids, pa.uint32()),
            "article_id": pa.array([None] * slates, pa.int32()),
            "impression_time": pa.array(_timestamps(seconds), pa.timestamp("us")),
            "read_time": pa.array(generator.lognormal(3, 1, slates), pa.float32()),
            "scroll_percentage": pa.array([None] * slates, pa.float32()),
            "device_type": pa.array(1 + users % 3, pa.int8()),
            "article_ids_inview": pa.array(shown, pa.large_list(pa.int32())),
            "article_ids_clicked": pa.array(clicked, pa.large_list(pa.int32())),
            "user_id": pa.array(users, pa.uint32()),
            "is_sso_user": pa.array(users % 5 < 2, pa.bool_()),
            "gender": pa.array(genders, pa.int8()),
            "postcode": pa.array([None] * slates, pa.int8()),
            "age": pa.array(ages, pa.int8()),
            "is_subscriber": pa.array(users % 8 == 0, pa.bool_()),
            "session_id": pa.array(ids // 5, pa.uint32()),
            "next_read_time": pa.array(read, pa.float32()),
            "next_scroll_percentage": pa.array(scroll, pa.float32()),
        }
    )


def histories(world: World, first_day: float) -> pa.Table:
    """Makes each reader's clicks of the three weeks before a day, one row per reader."""
    generator = world.generator
    users, times, articles, read, scroll = [], [], [], [], []
    for user in range(USERS):
        count = 5 + int(generator.poisson(HISTORY_CLICKS * world.activity[user] * USERS))
        days = generator.uniform(first_day - HISTORY_DAYS + 2, first_day, count)
        seconds = np.sort(days) * DAY_SECONDS
        users.append(user)
        times.append(_timestamps(seconds))
        articles.append(np.array([world.choose(second, 1)[0] for second in seconds]))
        read.append(np.round(generator.lognormal(3.2, 1, count)))
        scroll.append(np.round(generator.uniform(10, 100, count)))
    return pa.table(
        {
            "user_id": pa.array(users, pa.uint32()),
            "impression_time_fixed": pa.array(times, pa.large_list(pa.timestamp("us"))),
            "scroll_percentage_fixed": pa.array(scroll, pa.large_list(pa.float32())),
            "article_id_fixed": pa.array(articles, pa.large_list(pa.int32())),
            "read_time_fixed": pa.array(read, pa.large_list(pa.float32())),
        }
    )


def write(out: Path, slates: int, seed: int) -> dict[str, int]:
    """Writes `out/train` and `out/validation`, a week each.

    Args:
        out: Folder to write.
        slates: Slates of both weeks together.
        seed: Of every draw.

    Returns:
        Shown articles by part.
    """
    world = World(np.random.default_rng(seed))
    counts = {}
    for part, first_day in (("train", 0.0), ("validation", float(WEEK_DAYS))):
        folder = out / part
        folder.mkdir(parents=True, exist_ok=True)
        rows = behaviors(world, slates // 2, first_day, 1 + int(first_day) * slates)
        pq.write_table(rows, folder / "behaviors.parquet")
        pq.write_table(histories(world, first_day), folder / "history.parquet")
        counts[part] = int(pc.sum(pc.list_value_length(rows["article_ids_inview"])).as_py())
    return counts


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--slates", type=int, default=50_080, help="of both weeks (50,080)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for part, count in write(options.out, options.slates, options.seed).items():
        print(f"{part}: {count} shown articles")


if __name__ == "__main__":
    main()
