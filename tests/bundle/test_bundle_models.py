from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import COMMIT, FakeHub, fake_hub
from model_files import CONFIG, lay_out, model_files, sharded_files

from llamaforge import paths
from llamaforge.bundle.models import find_model
from llamaforge.errors import ModelError

NEEDED = (
    "chat_template.jinja",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)


def refusal(name: str | Path, revision: str | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        find_model(str(name), revision)
    return str(caught.value)


# ── folders ───────────────────────────────────────────────────────────────────────────────────


def test_a_folder_is_found_with_the_files_that_a_job_needs(tmp_path):
    found = find_model(str(lay_out(tmp_path / "my-llama", model_files())))
    assert found.name == "my-llama"
    assert found.folder == tmp_path / "my-llama"
    assert found.files == NEEDED
    assert found.config == CONFIG
    assert found.parameters == 64


def test_all_shards_and_their_index_belong_to_the_model(tmp_path):
    found = find_model(str(lay_out(tmp_path, sharded_files())))
    assert [name for name in found.files if "safetensors" in name] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    assert found.parameters == 64


def test_a_relative_folder_has_its_own_name(tmp_path, monkeypatch):
    monkeypatch.chdir(lay_out(tmp_path / "here", model_files()))
    assert find_model(".").name == "here"


def test_a_missing_shard_is_named(tmp_path):
    lay_out(tmp_path, sharded_files())
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    said = refusal(tmp_path)
    assert "lacks 1 of 2 weight files: model-00002-of-00002.safetensors" in said


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ("config.json", "has no config.json"),
        ("tokenizer.json", "has no tokenizer"),
    ],
)
def test_a_missing_file_is_named(tmp_path, without, said):
    lay_out(tmp_path, model_files())
    (tmp_path / without).unlink()
    assert said in refusal(tmp_path)


def test_pickled_weights_are_refused_with_the_command_that_converts_them(tmp_path):
    files = model_files()
    del files["model.safetensors"]
    said = refusal(lay_out(tmp_path / "old", files))
    assert "only as pickle (pytorch_model.bin)" in said
    assert "save_pretrained('\"'\"'old-safetensors'\"'\"')" in said


def test_no_weights_at_all_is_said(tmp_path):
    files = model_files()
    del files["model.safetensors"], files["pytorch_model.bin"]
    assert "has no weights: neither model.safetensors" in refusal(lay_out(tmp_path, files))


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_half_a_weight_file_is_noticed(tmp_path, keep):
    files = model_files()
    files["model.safetensors"] = files["model.safetensors"][:keep]
    assert "model.safetensors is damaged" in refusal(lay_out(tmp_path, files))


def test_a_weight_file_that_is_none_is_noticed(tmp_path):
    files = {**model_files(), "model.safetensors": b"\x04\0\0\0\0\0\0\0nope"}
    assert "its header is not safetensors" in refusal(lay_out(tmp_path, files))


def test_a_git_lfs_pointer_names_the_command_that_fetches_the_weights(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    said = refusal(lay_out(tmp_path, {**model_files(), "model.safetensors": pointer}))
    assert f"git -C {tmp_path} lfs pull" in said


def test_an_adapter_is_not_a_model(tmp_path):
    said = refusal(lay_out(tmp_path, {"adapter_config.json": b"{}"}))
    assert "is a LoRA adapter, not a model" in said


def test_a_folder_around_the_model_names_it(tmp_path):
    lay_out(tmp_path / "snapshots" / "abc", model_files())
    assert "; abc in it could be meant" in refusal(tmp_path / "snapshots")


def test_a_broken_configuration_is_named(tmp_path):
    said = refusal(lay_out(tmp_path, {**model_files(), "config.json": b"[]"}))
    assert "config.json is not a JSON object" in said


@pytest.mark.parametrize("shard", ["../model.safetensors", 5])
def test_an_index_cannot_reach_out_of_the_folder(tmp_path, shard):
    index = json.dumps({"weight_map": {"embed": shard}}).encode()
    files = {**sharded_files(), "model.safetensors.index.json": index}
    assert "lists no weight files" in refusal(lay_out(tmp_path, files))


def test_a_file_is_not_a_folder(tmp_path):
    path = lay_out(tmp_path, model_files()) / "model.safetensors"
    assert "is a file, not a model's folder" in refusal(path)


def test_a_mistyped_folder_is_answered_with_the_one_beside_it(tmp_path):
    (tmp_path / "my-llama").mkdir()
    said = refusal(tmp_path / "my-lama")
    assert f"did you mean the folder {tmp_path / 'my-llama'}?" in said


# ── shipped ───────────────────────────────────────────────────────────────────────────────────


def test_tiny_is_the_shipped_model(tmp_path, monkeypatch):
    folder = lay_out(tmp_path / "tiny-llama", model_files())
    monkeypatch.setattr(paths, "shipped", {"tiny-llama": folder}.get)
    assert find_model("tiny").folder == folder
    assert find_model("tiny").name == "tiny-llama"


def test_an_installation_without_the_shipped_model_says_so(monkeypatch):
    monkeypatch.setattr(paths, "shipped", lambda _: None)
    assert "does not carry the model 'tiny'" in refusal("tiny")


# ── the hub: in a process of its own, since huggingface_hub reads its settings when imported ────

PROGRAM = """
import json, sys
from llamaforge.bundle.models import find_model
from llamaforge.errors import ModelError
try:
    found = find_model(sys.argv[1], sys.argv[2] or None)
    print(json.dumps({"folder": str(found.folder), "files": found.files, "name": found.name}))
except ModelError as error:
    print(json.dumps({"error": str(error)}))
assert "torch" not in sys.modules
"""


def ask(home: Path, endpoint: str, name: str, revision: str = "", **environment: str):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    kept.update(HF_ENDPOINT=endpoint, HF_HOME=str(home), HF_HUB_DISABLE_PROGRESS_BARS="1")
    kept.update(HF_HUB_DISABLE_TELEMETRY="1", NO_PROXY="127.0.0.1", **environment)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, revision],
        env=kept,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def hub():
    with fake_hub() as server:
        server.models["owner/small"] = {**model_files(), "original/model.safetensors": b"twice"}
        yield server


def test_a_hub_model_is_downloaded_once_and_then_found_without_the_hub(hub: FakeHub, tmp_path):
    first = ask(tmp_path, hub.url, "owner/small")
    assert first["files"] == list(NEEDED)
    assert first["name"] == "small"
    fetched = [line for line in hub.asked if line.startswith("GET") and "/resolve/" in line]
    assert not any("README" in line or ".bin" in line or "original" in line for line in fetched)
    hub.asked.clear()
    assert ask(tmp_path, hub.url, "owner/small") == first
    assert hub.asked == []


def test_an_interrupted_download_is_completed(hub: FakeHub, tmp_path):
    first = ask(tmp_path, hub.url, "owner/small")
    (Path(first["folder"]) / "model.safetensors").unlink()
    assert ask(tmp_path, hub.url, "owner/small") == first
    assert (Path(first["folder"]) / "model.safetensors").is_file()


def unused_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_a_cache_made_by_other_tools_is_used_offline(tmp_path):
    repository = tmp_path / "hub" / "models--owner--small"
    lay_out(repository / "snapshots" / COMMIT, model_files())
    lay_out(repository / "refs", {"main": COMMIT.encode()})
    answer = ask(tmp_path, unused_endpoint(), "owner/small", HF_HUB_OFFLINE="1")
    assert answer["folder"] == str(repository / "snapshots" / COMMIT)


def test_an_incomplete_cache_offline_names_what_is_missing(tmp_path):
    repository = tmp_path / "hub" / "models--owner--small"
    files = sharded_files()
    del files["model-00001-of-00002.safetensors"]
    lay_out(repository / "snapshots" / COMMIT, files)
    lay_out(repository / "refs", {"main": COMMIT.encode()})
    answer = ask(tmp_path, unused_endpoint(), "owner/small", HF_HUB_OFFLINE="1")
    assert "lacks 1 of 2 weight files: model-00001-of-00002" in answer["error"]


@pytest.mark.parametrize("environment", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_without_internet_it_says_what_to_run_elsewhere_and_what_to_copy(tmp_path, environment):
    answer = ask(tmp_path, unused_endpoint(), "owner/small", "v1", **environment)
    assert "owner/small is not on this machine" in answer["error"]
    assert "`hf download owner/small --revision v1" in answer["error"]
    assert "copy the folder small here, and give --model ./small" in answer["error"]
    assert ("HF_HUB_OFFLINE is set" in answer["error"]) == bool(environment)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("only_files", [False, True])
def test_a_gated_model_names_the_licence_page_and_how_to_log_in(
    hub: FakeHub, tmp_path, status, only_files
):
    hub.models["meta/gated"] = model_files()
    hub.refusals["meta/gated"] = (status, "GatedRepo")
    hub.refuse_only_files = only_files
    said = ask(tmp_path, hub.url, "meta/gated")["error"]
    assert f"meta/gated is gated ({status})" in said
    assert f"accept it at {hub.url}/meta/gated" in said
    assert "hf auth login" in said


def test_a_token_without_the_right_is_told_the_same(hub: FakeHub, tmp_path):
    hub.refusals["meta/gated"] = (403, "")
    said = ask(tmp_path, hub.url, "meta/gated")["error"]
    assert "meta/gated" in said
    assert "hf auth login" in said


def test_an_unknown_name_could_be_a_folder_that_was_mistyped(hub: FakeHub, tmp_path):
    (tmp_path / "my-llama").mkdir()
    said = ask(tmp_path, hub.url, "my-lama")["error"]
    assert "there is no model 'my-lama'" in said
    assert "did you mean the folder my-llama?" in said
    assert "'tiny', the shipped model?" in ask(tmp_path, hub.url, "tinny")["error"]


def test_an_unknown_revision_is_named(hub: FakeHub, tmp_path):
    said = ask(tmp_path, hub.url, "owner/small", "v9")["error"]
    assert "owner/small has no revision 'v9'" in said


def test_a_hub_model_with_only_pickles_is_refused_before_they_are_fetched(hub: FakeHub, tmp_path):
    files = model_files()
    del files["model.safetensors"]
    hub.models["owner/old"] = files
    said = ask(tmp_path, hub.url, "owner/old")["error"]
    assert "owner/old has no safetensors weights" in said
    assert "from_pretrained(m" in said
    assert not any(".bin" in line for line in hub.asked)


def test_a_hub_that_fails_is_not_called_missing(hub: FakeHub, tmp_path):
    hub.refusals["owner/small"] = (500, "")
    said = ask(tmp_path, hub.url, "owner/small")["error"]
    assert "the hub answered 500 for owner/small" in said
