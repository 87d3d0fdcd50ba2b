"""Runs LogExampleGen alone in a process, for measurements: FOLDER [Beam arguments]."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import apache_beam as beam

from components.log_example_gen.executor import generate_examples
from components.log_example_gen.spec import DatasetSpec

if __name__ == "__main__":
    out = Path(sys.argv[1])
    spec = DatasetSpec.model_validate_json((out / "spec.json").read_text())
    arguments = ["--runner=FnApiRunner", *sys.argv[2:]]
    generate_examples(
        spec, str(out / "examples"), str(out / "accounts"), beam.Pipeline(argv=arguments)
    )
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    (out / "cpu.json").write_text(json.dumps(sum(u.ru_utime + u.ru_stime for u in used)))
