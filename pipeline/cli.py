"""The commands. Heavy imports happen inside them, so that --help answers at once."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from models.spec.errors import ConfigError
from serving.server.command import add_server_options, server_arguments

_CONFIG_HELP = "the pipeline's YAML file"
_WORKDIR_HELP = "folder of runs, reports, metadata and pushed models"


def parser() -> argparse.ArgumentParser:
    """Builds the command-line parser."""
    root = argparse.ArgumentParser(
        prog="polyrank",
        description="From raw interaction logs to a gated, served multi-task ranking model.",
    )
    commands = root.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = _add(commands, "run", _run, "run a pipeline: train, gate, push")
    command.add_argument("--config", required=True, help=_CONFIG_HELP)
    command.add_argument("--workdir", required=True, help=_WORKDIR_HELP)
    command.add_argument("--date", help="last day (YYYY-MM-DD, UTC) the run may see")
    command.add_argument(
        "--erase", metavar="FILE", help="leave out the people in FILE, one raw id a line"
    )
    _add_set(command)
    command.add_argument("--quiet", action="store_true", help="no progress display")

    command = _add(commands, "validate", _validate, "check a config and the logs it names")
    command.add_argument("--config", required=True, help=_CONFIG_HELP)
    _add_set(command)
    command.add_argument("--no-logs", action="store_true", help="check the config alone")

    command = _add(commands, "schema", _schema, "print the JSON Schema of configs, for editors")

    command = _add(commands, "simulate", _simulate, "write event logs with known truth")
    command.add_argument("--out", required=True, help="folder to write (made if missing)")
    command.add_argument("--days", type=int, default=7, help="days of impressions (default 7)")
    command.add_argument(
        "--impressions", type=int, default=200_000, help="about how many (default 200000)"
    )
    command.add_argument("--seed", type=int, default=0, help="default 0")
    command.add_argument(
        "--position-belief", type=float, default=0.0,
        help="how strongly slates follow a logging ranker that is wrong (default 0: random order)",
    )  # fmt: skip
    command.add_argument(
        "--format", choices=("parquet", "csv", "jsonl"), default="parquet", help="file format"
    )
    for fault, default in (
        ("malformed", 0.001), ("duplicate", 0.002), ("late", 0.005), ("orphan", 0.002),
    ):  # fmt: skip
        command.add_argument(
            f"--{fault}-rate", type=float, default=default,
            help=f"share of {fault} rows (default {default})",
        )  # fmt: skip

    command = _add(commands, "serve", _serve, "serve what was pushed, over TF Serving's gRPC API")
    command.add_argument("--workdir", required=True, help=_WORKDIR_HELP)
    command.add_argument("--model", help="model name; the only one pushed if absent")
    add_server_options(command)
    command.set_defaults(port=8500)

    command = _add(commands, "rank", _rank, "ask a server to rank the candidates of one request")
    command.add_argument("--target", required=True, help="HOST:PORT of the server")
    command.add_argument("--model", required=True, help="model name")
    command.add_argument(
        "--request", required=True,
        help='JSON file: {"context": {feature: value}, "candidates": [{feature: value}, ...], '
        '"id": column that names a candidate (optional), '
        '"weights": {output: fusion weight} (optional), "pii": as in the request.json of a run '
        "(optional; raw values are hashed with the key in the environment)}",
    )  # fmt: skip
    command.add_argument("--top-k", type=int, help="print only the best K")
    command.add_argument("--timeout-seconds", type=float, default=5.0, help="deadline (default 5)")
    command.add_argument(
        "--snapshot", metavar="PATH",
        help="fill as-of features that the request lacks from runs/RUN_ID/features",
    )  # fmt: skip
    command.add_argument(
        "--max-feature-age", metavar="DURATION",
        help="refuse an older snapshot, e.g. 36h (default: say its age)",
    )  # fmt: skip
    command.add_argument(
        "--at", metavar="TIME", help="time of the request, ISO 8601 in UTC (default: now)"
    )
    command.add_argument("--tls", action="store_true", help="connect by TLS")
    for option, text in (
        ("ca-certificate", "PEM file of the authorities to trust; turns TLS on"),
        ("client-certificate", "PEM file of the client's certificate, for mutual TLS"),
        ("client-key", "PEM file of its key"),
        ("token-file", "file with the token to send"),
    ):
        command.add_argument(f"--{option}", type=Path, help=text)

    command = _add(commands, "deploy", _deploy, "write deployment files for TF Serving")
    actions = command.add_subparsers(title="actions", required=True, metavar="ACTION")
    text = "write docker, docker compose and Kubernetes files from the configuration"
    action = actions.add_parser("render", help=text, description=text)
    action.add_argument("--config", required=True, help=_CONFIG_HELP)
    action.add_argument("--out", required=True, help="folder to write (made if missing)")
    _add_set(action)

    command = _add(commands, "status", _status, "list the runs of a work directory")
    command.add_argument("--workdir", required=True, help=_WORKDIR_HELP)

    command = _add(commands, "trace", _trace, "show one request from raw rows to scores")
    command.add_argument("--workdir", required=True, help=_WORKDIR_HELP)
    command.add_argument("--request-id", required=True, help="value of the slate column (or key)")
    command.add_argument("--run", metavar="RUN_ID", help="the run; the newest if absent")
    command.add_argument("--logs", metavar="DIR", help="where the run's logs are now, if moved")
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")

    command = _add(commands, "demo", _demo, "simulate, run, push, serve and rank, in one go")
    command.add_argument("--workdir", default="build/demo", help=_WORKDIR_HELP)
    command.add_argument("--seed", type=int, default=0, help="seed of the simulated logs")
    command.add_argument("--impressions", type=int, default=200_000, help="about how many")
    return root


def _add(commands: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.set_defaults(command=function)
    return command


def _add_set(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="override a config value, e.g. --set training.epochs=3 (repeatable)",
    )  # fmt: skip


def _run(options: argparse.Namespace) -> int:
    from pipeline.load import load_config
    from pipeline.progress import Progress
    from pipeline.run import run
    from pipeline.workdir import Workdir

    config = load_config(options.config, options.set)
    workdir = Workdir.open(options.workdir, create=True)
    with Progress(enabled=not options.quiet) as progress:
        summary, finished = run(
            config, workdir, date=options.date,
            erase=Path(options.erase) if options.erase else None,
            on_plan=progress.plan, on_change=progress.change,
        )  # fmt: skip
    if finished:
        print(f"{summary['run_id']} was finished before ({summary['state']}): nothing to do")
    if newer := summary.get("superseded_by"):
        print(
            f"note: not pushed: version {newer['version']} is served, of the newer window up to "
            f"{newer['test_end']}; --set push.allow_older=true replaces it",
            file=sys.stderr,
        )
    for warning in summary["warnings"]:
        print(f"note: {warning}", file=sys.stderr)
    if summary["error"]:
        print(f"polyrank: {summary['error']}", file=sys.stderr)
    print(f"report: {workdir.report(summary['run_id'])}")
    print(workdir.summary(summary["run_id"]))
    return int(summary["exit_code"])


def _validate(options: argparse.Namespace) -> int:
    from pipeline.load import load_config
    from pipeline.validate import check_logs

    config = load_config(options.config, options.set)
    if options.no_logs:
        print(f"{options.config}: the configuration is valid")
        return 0
    for line in check_logs(config):
        print(line)
    print(f"{options.config}: configuration and logs are valid")
    return 0


def _schema(options: argparse.Namespace) -> int:
    from pipeline.config import Config

    print(json.dumps(Config.model_json_schema(), indent=1))
    return 0


def _simulate(options: argparse.Namespace) -> int:
    from simulator.simulate import SimulationConfig, simulate

    config = SimulationConfig(
        days=options.days,
        impressions=options.impressions,
        seed=options.seed,
        file_format=options.format,
        malformed_rate=options.malformed_rate,
        duplicate_rate=options.duplicate_rate,
        late_rate=options.late_rate,
        orphan_rate=options.orphan_rate,
        position_belief=options.position_belief,
    )
    simulate(config, Path(options.out))
    print(options.out)
    return 0


def _serve(options: argparse.Namespace) -> int:
    from pipeline.workdir import Workdir
    from serving.server.__main__ import run

    serving = Workdir.open(options.workdir).serving
    model = options.model or _only_model(serving)
    if not (serving / model).is_dir():
        raise ConfigError(
            f"no pushed model {model!r} in {serving}",
            constraint=f"one of: {', '.join(_pushed_models(serving)) or 'none'}",
            remedy="run a pipeline first, or name another --model",
        )
    # What lies here was pushed by ModelPusher, which never leaves the manifest out.
    arguments = [f"--model={model}={serving / model}", "--require-manifest"]
    return run([*arguments, *server_arguments(vars(options))])


def _pushed_models(serving: Path) -> list[str]:
    return sorted(p.name for p in serving.iterdir() if p.is_dir()) if serving.is_dir() else []


def _only_model(serving: Path) -> str:
    models = _pushed_models(serving)
    if len(models) != 1:
        raise ConfigError(
            f"{len(models)} models are pushed in {serving}: {', '.join(models) or 'none'}",
            remedy="name one with --model" if models else "run a pipeline first",
        )
    return models[0]


def _rank(options: argparse.Namespace) -> int:
    from pipeline.ranking_request import rank_file, snapshot_features
    from serving.credentials import Credentials

    features = None
    if options.snapshot is not None:
        features = snapshot_features(options.snapshot, options.max_feature_age, options.at)
    print(
        rank_file(
            options.target,
            options.model,
            Path(options.request),
            top_k=options.top_k,
            timeout_seconds=options.timeout_seconds,
            credentials=Credentials.from_files(
                tls=options.tls,
                root_certificates=options.ca_certificate,
                certificate_chain=options.client_certificate,
                private_key=options.client_key,
                token=options.token_file,
            ),
            features=features,
        )
    )
    return 0


def _deploy(options: argparse.Namespace) -> int:
    from pipeline.load import load_config
    from serving.deploy.render import render_deployment

    config = load_config(options.config, options.set)
    try:
        paths = render_deployment(config.model_name, config.deploy, Path(options.out))
    except OSError as error:
        raise ConfigError(
            f"cannot write the deployment files to {options.out}",
            received=error.strerror or str(error),
            remedy="give a writable folder with --out",
        ) from error
    for path in paths:
        print(path)
    return 0


def _status(options: argparse.Namespace) -> int:
    from pipeline.workdir import Workdir

    for summary in Workdir.open(options.workdir).summaries():
        pushed, newer = summary["pushed"], summary.get("superseded_by")
        first, last = summary["window"]["test"] or ("unknown", "unknown")
        print(
            f"{summary['run_id']}  {summary['state']:<9}  test {first[:10]} to {last[:10]}  "
            f"champion {summary['champion'] or 'none'}  "
            + (f"pushed {pushed['model']} {pushed['version']}" if pushed else "not pushed")
            + (f" (superseded by version {newer['version']})" if newer else "")
        )
    return 0


def _trace(options: argparse.Namespace) -> int:
    from pipeline.stored_run import StoredRun
    from pipeline.trace import render, trace
    from pipeline.workdir import Workdir

    root = Path(options.logs).expanduser().resolve() if options.logs else None
    stored = StoredRun.open(Workdir.open(options.workdir), options.run, root)
    found = trace(stored, options.request_id)
    print(json.dumps(found, indent=1, allow_nan=False) if options.json else render(found))
    return 0


def _demo(options: argparse.Namespace) -> int:
    from pipeline.demo import demo

    return demo(Path(options.workdir), seed=options.seed, impressions=options.impressions)
