"""The bare model call, a process of its own: bare.py MODEL_DIR.

It reads numbers of calls on stdin, a line each, and answers each with a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time

import mmoe_model
import numpy as np
import tensorflow as tf


def main(directory: str) -> None:
    """Calls the TF2 signature with tensors that are ready; nothing is converted or sent."""
    signature = tf.saved_model.load(directory).signatures["predict"]
    inputs = {name: tf.constant(ids) for name, ids in mmoe_model.candidates().items()}
    for _ in range(50):
        signature(**inputs)
    print("ready", flush=True)
    for line in sys.stdin:
        latencies = []
        cpu = time.process_time()
        for _ in range(int(line)):
            start = time.perf_counter()
            signature(**inputs)
            latencies.append(time.perf_counter() - start)
        cpu = time.process_time() - cpu
        found = {
            "p50_ms": 1e3 * float(np.median(latencies)), "cpu_ms": 1e3 * cpu / len(latencies)
        }  # fmt: skip
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
