"""Pushes the champion if, and only if, it is blessed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import path_utils

from components.champion.executor import FILE_NAME as CHAMPION_FILE
from components.model_pusher.export_gate import export_problems
from components.model_pusher.push import find_newer, push
from components.model_pusher.requests import synthetic_requests
from components.verdict import read_verdict
from models.spec.errors import Refused
from models.spec.ranking import RankingSpec
from serving.deploy.render import render_beside_versions
from serving.deploy.spec import Deploy
from serving.warmup import write_warmup

FILE_NAME = "pushed.json"
SUPERSEDED_FILE = "superseded.json"


class Executor(base_executor.BaseExecutor):
    """Pushes the champion into a TF Serving base path, atomically."""

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes; writes `pushed.json` with model, version and path.

        Where the served version comes from a newer window, nothing is pushed unless `allow_older`
        is true, and `superseded.json` says so: version, run and end of window of what is served.

        Raises:
            Refused: The champion is not blessed, or the servers could not load or hold it. Nothing
                is pushed then.
        """
        if not read_verdict(artifact_utils.get_single_uri(input_dict["blessing"])).passed:
            raise Refused("ModelPusher: no blessed champion, nothing is pushed")
        choice = json.loads(
            Path(artifact_utils.get_single_uri(input_dict["champion"]), CHAMPION_FILE).read_text()
        )
        champion = choice["champion"]
        ranking = RankingSpec.model_validate_json(exec_properties["ranking_json"])
        model_uri = artifact_utils.get_single_uri(input_dict[f"model_{champion}"])
        model_dir = Path(path_utils.serving_model_path(model_uri))
        problems = export_problems(
            model_dir, memory_bytes=json.loads(exec_properties["memory_bytes"])
        )
        if problems:
            raise Refused(f"ModelPusher refused {champion}: {'; '.join(problems)}")
        folder = Path(artifact_utils.get_single_uri(output_dict["pushed_model"]))
        folder.mkdir(parents=True, exist_ok=True)
        model_name = exec_properties["model_name"]
        serving_dir = Path(exec_properties["serving_dir"])
        run_id = exec_properties["run_id"]
        provenance = json.loads(exec_properties["provenance_json"])
        test_end = provenance["window"]["test_end"]
        newer = find_newer(serving_dir / model_name, run_id=run_id, test_end=test_end)
        if newer is not None and not json.loads(exec_properties["allow_older"]):
            (folder / SUPERSEDED_FILE).write_text(json.dumps(asdict(newer)))
            return
        requests = synthetic_requests(ranking)

        def add_warmup(staged: Path) -> None:
            write_warmup(staged, requests)

        pushed = push(
            model_dir,
            serving_dir / model_name,
            run_id=run_id,
            provenance={**provenance, "candidate": champion},
            complete=add_warmup,
        )
        deploy = Deploy.model_validate_json(exec_properties["deploy_json"])
        render_beside_versions(model_name, deploy, serving_dir / model_name)
        record = {"model": model_name, "version": pushed.version, "path": str(pushed.path)}
        (folder / FILE_NAME).write_text(json.dumps(record))
        artifact = artifact_utils.get_single_instance(output_dict["pushed_model"])
        artifact.set_string_custom_property("pushed_destination", str(pushed.path))
        artifact.set_string_custom_property("pushed_version", str(pushed.version))
