"""Model families: rows packed into a slice train as each row alone does in plain transformers."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from jobs import make_job
from llamaforge.errors import ModelError, SpecError
from llamaforge.train import attention, model
from llamaforge.train.exact.layout import Layout
from llamaforge.train.isolation import rows_stay_apart
from llamaforge.train.rows.tokens import Tokens
from llamaforge.train.slice_pass import SlicePass
from models import make_model

KINDS = ["llama", "llama3", "qwen2", "qwen3", "mistral"]


def make_rows(lengths: tuple[int, ...] = (40, 3, 17)) -> list[Tokens]:
    chance = np.random.default_rng(5)
    rows = []
    for length in lengths:
        trained = chance.random(length) < 0.6
        trained[-1] = True
        ids = chance.integers(0, 256, length).astype(np.int32)
        rows.append(Tokens(ids=ids, trained=trained, truncated=False))
    return rows


def passes_of(network: torch.nn.Module) -> SlicePass:
    named = model.trained(network)
    return SlicePass(network, Layout(named), [parameter for _, parameter in named])


def reference(folder: Path, rows: list[Tokens]) -> tuple[float, dict[str, torch.Tensor]]:
    """Row by row through plain transformers, with its own loss, and the gradients."""
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    total = 0.0
    for row in rows:
        ids = torch.from_numpy(row.ids).long().unsqueeze(0)
        labels = torch.where(torch.from_numpy(row.trained), ids[0], -100).unsqueeze(0)
        count = int(row.trained[1:].sum())
        loss = network(input_ids=ids, labels=labels).loss * count
        loss.backward()
        total += loss.item()
    return total, {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_slice_is_its_rows(kind: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path, kind)
    rows = make_rows()
    expected, gradients = reference(folder, rows)
    network = model.make_trainable(model.load(folder, "fp32"), make_job(method="full").spec)
    passes = passes_of(network)
    assert rows_stay_apart(passes, 256)
    result = passes.train(rows, seed=(0, 0, 0))
    assert result.loss == pytest.approx(expected, rel=1e-5)
    assert result.trained == sum(int(row.trained[1:].sum()) for row in rows)
    for name, parameter in model.trained(network):
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_gradient_checkpointing_gives_the_same_bits(kind: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path, kind)
    seen = []
    for checkpointing in (False, True):
        spec = make_job(gradient_checkpointing=checkpointing, lora_dropout=0.2).spec
        network = model.make_trainable(model.load(folder, "bf16"), spec)
        passes = passes_of(network)
        with torch.no_grad():  # B starts at zero, and with it A's gradient
            for name, parameter in model.trained(network):
                if "lora_B" in name:
                    parameter.fill_(0.01)
        passes.train(make_rows(), seed=(3, 2, 1))
        seen.append(passes.gradient.clone())
    assert seen[0].abs().max() > 0
    assert torch.equal(*seen)


def test_dropout_depends_on_the_seed_and_nothing_else(tmp_path: Path) -> None:
    folder = make_model(tmp_path)
    network = model.make_trainable(model.load(folder, "fp32"), make_job(lora_dropout=0.5).spec)
    passes = passes_of(network)
    rows = make_rows()

    def gradient(seed: tuple[int, int, int]) -> torch.Tensor:
        passes.train(rows, seed=seed)
        return passes.gradient.clone()

    first, other = gradient((0, 4, 2)), gradient((0, 4, 3))
    passes.evaluate(rows)
    passes.train(make_rows((9, 9)), seed=(0, 1, 1))
    assert torch.equal(first, gradient((0, 4, 2)))
    assert not torch.equal(first, other)


def test_rows_that_leak_go_through_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that never hears where rows end mixes them; it is found out and still exact."""
    folder = make_model(tmp_path)
    rows = make_rows()
    expected, _ = reference(folder, rows)
    network = model.make_trainable(model.load(folder, "fp32"), make_job(method="full").spec)
    passes = passes_of(network)
    monkeypatch.setattr(attention, "row_lengths", lambda _: nullcontext())
    assert not rows_stay_apart(passes, 256)
    assert passes.train(rows, seed=(0, 0, 0)).loss != pytest.approx(expected, rel=1e-5)
    passes.packed = False
    assert passes.train(rows, seed=(0, 0, 0)).loss == pytest.approx(expected, rel=1e-5)


def test_lora_targets_that_do_not_exist_are_named(tmp_path: Path) -> None:
    network = model.load(make_model(tmp_path), "fp32")
    spec = make_job(lora_targets=("q_prj",)).spec
    with pytest.raises(SpecError, match="q_prj") as caught:
        model.make_trainable(network, spec)
    assert "q_proj" in caught.value.hint


def test_missing_weights_are_refused_not_made_up(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_model(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 tensors.*layers\.1\.mlp\.up_proj"):
        model.load(folder, "fp32")


def test_a_folder_without_a_decoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(ModelError, match="causal language model"):
        model.load(tmp_path, "fp32")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_largest_value_of_each_tensor_is_exact_and_nan_is_not_lost(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamaforge.train.slice_pass._PIECE", 7)
    network = torch.nn.ParameterList(torch.zeros(n, dtype=dtype) for n in (1, 7, 20, 3))
    named = list(network.named_parameters())
    passes = SlicePass(network, Layout(named), [parameter for _, parameter in named])
    generator = torch.Generator().manual_seed(0)
    passes.gradient.copy_(torch.randn(31, generator=generator))
    sizes = passes.gradient.split([1, 7, 20, 3])
    assert passes.maxima() == [part.abs().max().item() for part in sizes]
    for bad, seen in ((math.inf, math.inf), (-math.inf, math.inf), (math.nan, math.nan)):
        passes.gradient[27] = bad
        assert passes.maxima()[2] == pytest.approx(seen, nan_ok=True)
        assert all(map(math.isfinite, passes.maxima()[:2]))


def test_dropout_is_keyed_by_the_slice_and_not_by_what_came_before(tmp_path: Path) -> None:
    network = model.make_trainable(
        model.load(make_model(tmp_path / "model"), "fp32"),
        make_job(lora_dropout=0.5).spec,
    )
    passes, rows = passes_of(network), make_rows()
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data.fill_(0.01)  # while LoRA's B is zero, dropout changes nothing
    first = passes.train(rows, seed=(1, 2, 3)).loss
    assert passes.train(rows, seed=(1, 2, 4)).loss != first
    passes.evaluate(rows)
    assert passes.train(rows, seed=(1, 2, 3)).loss == first
