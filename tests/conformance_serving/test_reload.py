"""HandleReloadConfigRequest: the ReloadConfig, label and model list cases of server_core_test."""

from __future__ import annotations

import grpc
import pytest
from target import AVAILABLE, INVALID, NOT_FOUND, PRECONDITION, wait_until

from serving.api import messages, services

RELOAD = services.HANDLE_RELOAD_CONFIG_REQUEST


def is_unloaded(target, name: str) -> bool:
    try:
        target.slope(name)
    except grpc.RpcError as error:
        assert error.code() is NOT_FOUND
        return True
    return False


def test_a_reload_waits_until_new_models_are_available(pushing, push) -> None:
    push(pushing.models / "added", 1, slope=5.0)
    response = pushing.reload(pushing.config("added"))
    assert response.status.error_code == 0
    assert pushing.slope("added") == 5.0  # at once
    assert pushing.slope("line") == 3.0


def test_a_reload_unloads_models_that_are_not_listed(pushing, push) -> None:
    push(pushing.models / "removed", 1)
    pushing.reload(pushing.config("removed"))
    pushing.reload()
    wait_until(lambda: is_unloaded(pushing, "removed"))
    pushing.reload(pushing.config("removed"))  # and takes them back
    assert pushing.slope("removed") == 3.0


def test_the_same_list_again_changes_nothing(pushing) -> None:
    before = pushing.states("line")
    pushing.reload()
    assert pushing.states("line") == before


def test_a_base_path_can_change(pushing, push) -> None:
    push(pushing.models / "here", 1, slope=5.0)
    push(pushing.models / "there", 2, slope=6.0)
    pushing.reload(pushing.config("moving", "here"))
    assert pushing.slope("moving") == 5.0
    pushing.reload(pushing.config("moving", "there"))
    wait_until(lambda: pushing.slope("moving") == 6.0)


def test_several_versions_and_labels(pushing, push) -> None:
    for version, slope in ((1, 5.0), (2, 6.0)):
        push(pushing.models / "labelled", version, slope=slope)
    both = {"specific": (1, 2)}
    pushing.reload(pushing.config("labelled", **both))
    wait_until(lambda: pushing.states("labelled") == {1: AVAILABLE, 2: AVAILABLE})
    labels = {"stable": 1, "canary": 2}
    pushing.reload(pushing.config("labelled", **both, labels=labels))
    assert pushing.slope("labelled") == 6.0  # the newest
    assert pushing.slope("labelled", version=1) == 5.0
    assert pushing.slope("labelled", label="stable") == 5.0
    assert pushing.slope("labelled", label="canary") == 6.0
    pushing.reload(pushing.config("labelled", **both, labels={"stable": 2}))
    assert pushing.slope("labelled", label="stable") == 6.0
    with pytest.raises(grpc.RpcError, match="Unrecognized servable version label: canary"):
        pushing.slope("labelled", label="canary")


def test_a_label_points_only_to_an_available_version(pushing, push) -> None:
    push(pushing.models / "mislabelled", 1)
    pushing.reload(pushing.config("mislabelled", labels={"stable": 1}))
    request = pushing.reload_request(pushing.config("mislabelled", labels={"stable": 9}))
    code, text = pushing.refusal(RELOAD, request, timeout=60)
    assert code is PRECONDITION
    assert "not currently available for inference" in text
    assert pushing.slope("mislabelled", label="stable") == 3.0


def test_a_version_policy_can_change(pushing, push) -> None:
    for version in (1, 2, 3):
        push(pushing.models / "policies", version)
    pushing.reload(pushing.config("policies"))
    wait_until(lambda: pushing.states("policies") == {3: AVAILABLE})
    pushing.reload(pushing.config("policies", latest=2))
    wait_until(lambda: pushing.states("policies") == {2: AVAILABLE, 3: AVAILABLE})
    pushing.reload(pushing.config("policies", all_versions=True))
    wait_until(lambda: set(pushing.states("policies").values()) == {AVAILABLE})
    assert set(pushing.states("policies")) == {1, 2, 3}
    pushing.reload(pushing.config("policies", specific=(2,)))

    def only_two() -> bool:
        states = pushing.states("policies")
        return [v for v, state in states.items() if state == AVAILABLE] == [2]

    wait_until(only_two)


def invalid_lists(target) -> dict[str, list[object]]:
    line = target.config("m", "line")

    def changed(**values: object) -> object:
        config = target.config("m", "line")
        for name, value in values.items():
            setattr(config, name, value)
        return config

    return {
        "twice": [line, line],
        "relative base path": [changed(base_path="models/line")],
        "unknown platform": [changed(model_platform="caffe")],
        "no platform": [changed(model_platform="")],
    }


@pytest.mark.parametrize(
    "fault", ["twice", "relative base path", "unknown platform", "no platform"]
)
def test_lists_that_are_not_valid(pushing, fault) -> None:
    request = pushing.reload_request(*invalid_lists(pushing)[fault])
    code, _ = pushing.refusal(RELOAD, request, timeout=60)
    # TF Serving answers FAILED_PRECONDITION for a platform that it has no loader for.
    assert code in ((INVALID, PRECONDITION) if "platform" in fault else (INVALID,))
    assert pushing.slope("line") == 3.0


def test_only_lists_of_models_are_accepted(pushing) -> None:
    code, text = pushing.refusal(RELOAD, messages.ReloadConfigRequest(), timeout=60)
    assert code is INVALID
    assert "Only ModelConfigList is currently supported" in text


# What follows differs from TF Serving on purpose: all or nothing, within allowed roots.


def test_a_reload_that_fails_changes_nothing(embedded, pushing, push) -> None:
    push(pushing.models / "kept", 1, slope=5.0)
    push(pushing.models / "whole", 1)
    (push(pushing.models / "broken", 1) / "saved_model.pb").write_bytes(b"\xff" * 100)
    pushing.reload(pushing.config("kept"))
    request = pushing.reload_request(pushing.config("whole"), pushing.config("broken"))
    code, text = pushing.refusal(RELOAD, request, timeout=60)
    assert code is grpc.StatusCode.UNKNOWN
    assert "1 model(s) did not become available" in text
    assert "broken" in text
    assert pushing.slope("kept") == 5.0  # although the list did not name it
    assert is_unloaded(pushing, "whole")
    assert is_unloaded(pushing, "broken")


def test_a_label_that_fails_changes_nothing(embedded, pushing, push) -> None:
    push(pushing.models / "fresh", 1)
    request = pushing.reload_request(pushing.config("fresh", labels={"stable": 2}))
    code, _ = pushing.refusal(RELOAD, request, timeout=60)
    assert code is PRECONDITION
    assert is_unloaded(pushing, "fresh")


def test_a_label_of_a_version_that_the_policy_drops_changes_nothing(
    embedded, pushing, push
) -> None:
    for version, slope in ((1, 5.0), (2, 6.0)):
        push(pushing.models / "dropped", version, slope=slope)
    both = pushing.config("dropped", specific=(1, 2))
    pushing.reload(both)
    wait_until(lambda: pushing.states("dropped") == {1: AVAILABLE, 2: AVAILABLE})
    labels = {"stable": 1, "canary": 2}
    pushing.reload(pushing.config("dropped", specific=(1, 2), labels=labels))
    for policy in ({"specific": (2,)}, {"latest": 1}):
        request = pushing.reload_request(pushing.config("dropped", **policy, labels=labels))
        code, text = pushing.refusal(RELOAD, request, timeout=60)
        assert code is PRECONDITION, policy
        assert "not currently available for inference" in text
        assert pushing.slope("dropped", label="stable") == 5.0


def test_an_absent_base_path_is_refused_at_once(embedded, pushing) -> None:
    code, text = pushing.refusal(
        RELOAD, pushing.reload_request(pushing.config("absent")), timeout=60
    )
    assert code is grpc.StatusCode.UNKNOWN
    assert "absent" in text


def test_base_paths_stay_in_the_allowed_roots(embedded, pushing, push, tmp_path) -> None:
    push(tmp_path / "outside", 1)
    (pushing.models / "link").symlink_to(tmp_path / "outside")
    outside = pushing.config("m")
    for path in (
        str(tmp_path / "outside"),
        str(pushing.models / ".." / ".." / tmp_path.parent.name / tmp_path.name / "outside"),
        str(pushing.models / "line" / ".." / "link"),
        "/",
    ):
        outside.base_path = path
        code, text = pushing.refusal(RELOAD, pushing.reload_request(outside), timeout=60)
        assert code is grpc.StatusCode.PERMISSION_DENIED, path
        assert "outside the directories" in text
