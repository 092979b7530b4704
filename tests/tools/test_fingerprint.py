"""tools/fingerprint.py finds what moved, and nothing where nothing did."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ENTRY = "fast_rcnn"
WEIGHT = "roi_heads.box_predictor.cls_score.weight"


@pytest.fixture(scope="module")
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("tools/fingerprint.py")


@pytest.fixture(scope="module")
def recorded(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("fingerprint") / "before.json"
    assert script.main(["record", str(file), "--only", ENTRY]) == 0
    return file


@pytest.fixture
def tamper(recorded: Path, tmp_path: Path) -> Callable[[Callable[[Any], Any]], list[str]]:
    """Write what an edit makes of the recording; returns the arguments that compare both."""

    def write(edit: Callable[[Any], Any]) -> list[str]:
        content = json.loads(recorded.read_text())
        edit(content)
        file = tmp_path / "after.json"
        file.write_text(json.dumps(content))
        return ["compare", str(recorded), str(file)]

    return write


def of_entry(content: Any) -> dict[str, str]:
    return content["entries"][ENTRY]["fingerprints"]


def details(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith(ENTRY)]


def test_second_recording_is_equal(
    script: ModuleType, recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again.json"
    torch.rand(3)  # generators elsewhere have no say
    assert script.main(["record", str(again), "--only", ENTRY]) == 0
    assert again.read_bytes() == recorded.read_bytes()
    assert script.main(["compare", str(recorded)]) == 0
    output = capsys.readouterr().out
    assert "equal" in output and not details(output)


def test_recording_covers_a_run(recorded: Path) -> None:
    content = json.loads(recorded.read_text())
    prints = of_entry(content)
    for name in (
        "step 4.loss_cls",
        "metrics.fast_rcnn/cls_accuracy",
        f"initial.{WEIGHT}",
        f"gradient.{WEIGHT}",
        f"state.{WEIGHT}",
        "output.0.instances.pred_boxes",
        "output.1.instances.scores",
        "raw.0.0.scores",
        "raw.1.1.pred_boxes",
    ):
        assert prints[name]
    assert prints[f"initial.{WEIGHT}"] != prints[f"state.{WEIGHT}"]
    losses = [float.fromhex(loss) for loss in content["entries"][ENTRY]["losses"]]
    assert len(losses) == 5 and len(set(losses)) == 5


def test_weight_that_moved_by_one_bit_is_found(
    script: ModuleType, recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = "roi_heads.box_head.fc1.weight"

    def build(cfg: Any, build_model: Callable[[Any], Any] = script.build_model) -> Any:
        model = build_model(cfg)
        first = model.get_parameter(hidden).data.view(-1)[:1]
        first.copy_(first.nextafter(torch.ones(1)))
        return model

    monkeypatch.setattr(script, "build_model", build)
    assert script.main(["compare", str(recorded)]) == 1
    found = details(capsys.readouterr().out)
    initial = [line for line in found if "initial." in line]
    assert initial == [f"{ENTRY}: initial.{hidden} differs"]
    assert f"{ENTRY}: state.{hidden} differs" in found


def test_tampered_digest_is_named(
    script: ModuleType, tamper: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    command = tamper(lambda content: of_entry(content).update({"output.0.instances.scores": "0" * 64}))
    assert script.main(command) == 1
    assert details(capsys.readouterr().out) == [f"{ENTRY}: output.0.instances.scores differs"]


def test_missing_and_new_tensors_are_named(
    script: ModuleType, tamper: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    def rename(content: Any) -> None:
        of_entry(content)["state.other"] = of_entry(content).pop(f"state.{WEIGHT}")

    assert script.main(tamper(rename)) == 1
    expected = [f"{ENTRY}: state.{WEIGHT} is missing", f"{ENTRY}: state.other is new"]
    assert details(capsys.readouterr().out) == expected


def test_order_of_the_state_counts(
    script: ModuleType, tamper: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    def move_to_the_end(content: Any) -> None:
        of_entry(content)[f"state.{WEIGHT}"] = of_entry(content).pop(f"state.{WEIGHT}")

    assert script.main(tamper(move_to_the_end)) == 1
    (line,) = details(capsys.readouterr().out)
    assert line.endswith(f"stands where state.{WEIGHT} stood")


def test_entry_that_was_not_recorded_is_no_agreement(
    script: ModuleType, tamper: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(tamper(lambda content: content["entries"].clear())) == 1
    assert details(capsys.readouterr().out) == [f"{ENTRY}: not recorded after"]
    assert script.main([*tamper(lambda content: None), "--only", "rpn"]) == 1


def test_other_environment_is_refused(
    script: ModuleType, tamper: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    command = tamper(lambda content: content["environment"].update(CPU="abacus"))
    assert script.main(command) == 2
    assert "and is abacus. Record both on one machine, or pass --force" in capsys.readouterr().err
    assert script.main([*command, "--force"]) == 0


def test_settings_of_torch_are_restored(script: ModuleType, recorded: Path) -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with script.reproducible():
        assert torch.are_deterministic_algorithms_enabled() and torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()


def test_digest_tells_types_shapes_and_signs_of_zero_apart(script: ModuleType) -> None:
    zeros = torch.zeros(2, 3)
    others = [zeros.T, zeros.double(), zeros.int(), -zeros]
    assert len({script.digest(tensor) for tensor in [zeros, *others]}) == 5
    assert script.digest(zeros[:, ::2]) == script.digest(zeros[:, :2])


def test_empty_output_is_no_fingerprint(script: ModuleType) -> None:
    with pytest.raises(AssertionError, match="without content"):
        script.describe_output({"scores": torch.zeros(0)})


def test_every_entry_has_a_config(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--list"]) == 0
    names = capsys.readouterr().out.split()
    assert {"panoptic_fpn_R2_101", "panoptic_fpn_R2_101_v1b", "export_mask_rcnn"} <= set(names)
    for name in names:
        assert script.make_cfg(script.ENTRIES[name]).MODEL.DEVICE == "cpu"
