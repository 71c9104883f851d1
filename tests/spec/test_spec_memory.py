from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.spec.job import JobSpec
from llamaforge.spec.memory import RUNTIME, WAITING, Shape, estimate

LLAMA_3_2_1B: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
LLAMA_2_7B: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
}


def spec(**options: Any) -> JobSpec:
    return JobSpec(model="m", dataset="d.jsonl", **options)


@pytest.mark.parametrize(
    ("config", "parameters"), [(LLAMA_3_2_1B, 1_235_814_400), (LLAMA_2_7B, 6_738_415_616)]
)
def test_parameters_are_those_that_the_models_are_published_with(config, parameters):
    shape = Shape.of(config)
    assert shape is not None
    assert shape.parameters == parameters


def test_adapters_are_counted_as_peft_counts_them():
    """peft prints 5,636,096 trainable parameters for r=8 on all linear layers of the 1B."""
    memory = estimate(LLAMA_3_2_1B, spec=spec(lora_r=8))
    assert memory.trained == 4 * 5_636_096
    assert memory.optimizer == 8 * 5_636_096
    assert memory.weights == 2 * (1_235_814_400 + 5_636_096)
    assert estimate(LLAMA_3_2_1B, spec=spec(lora_r=16)).trained == 2 * memory.trained
    only_queries = estimate(LLAMA_3_2_1B, spec=spec(lora_targets=("q_proj",)))
    assert only_queries.trained == 4 * 16 * 8 * (2048 + 2048)


def test_full_fine_tuning_trains_every_weight():
    memory = estimate(LLAMA_3_2_1B, spec=spec(method="full"))
    count = 1_235_814_400
    assert memory.weights == 2 * count
    assert memory.trained + memory.optimizer == 12 * count
    assert memory.gradients == (2 + 4 + 4) * count + WAITING
    assert memory.checkpoint == pytest.approx(12 * count, rel=0.01)


def test_slices_that_wait_for_a_scale_are_bounded_by_the_rows_of_a_step():
    one = estimate(LLAMA_3_2_1B, spec=spec(batch_size=1)).gradients
    two = estimate(LLAMA_3_2_1B, spec=spec(batch_size=2)).gradients
    assert two - one == 2 * 5_636_096


def test_files_know_better_than_the_formula_how_many_weights_there_are():
    assert estimate(LLAMA_3_2_1B, spec=spec(), parameters=7).weights < 2 * 10_000_000


def test_the_total_is_the_sum_and_holds_the_process_itself():
    memory = estimate(LLAMA_3_2_1B, spec=spec())
    parts = (memory.weights, memory.trained, memory.optimizer, memory.gradients)
    assert memory.total == sum(parts) + memory.activations + RUNTIME


configs = st.fixed_dictionaries(
    {
        "hidden_size": st.sampled_from([64, 512]),
        "intermediate_size": st.integers(64, 2048),
        "num_hidden_layers": st.integers(2, 40),
        "num_attention_heads": st.sampled_from([4, 8]),
        "vocab_size": st.integers(100, 100_000),
    }
)


@given(configs, st.sampled_from(["lora", "full"]), st.integers(8, 4096))
def test_what_people_turn_to_save_memory_saves_memory(config, method, tokens):
    def total(**options: Any) -> int:
        return estimate(
            config, spec=spec(method=method, **{"slice_tokens": tokens, **options})
        ).total

    here = total()
    assert total(gradient_checkpointing=True) < here
    assert total(precision="fp32") > here
    assert total(slice_tokens=8192) > here
    assert total(max_length=8192) > here
    if method == "full":
        lora = estimate(config, spec=spec(slice_tokens=tokens, lora_r=1))
        assert lora.checkpoint < estimate(config, spec=spec(method="full")).checkpoint


def test_a_row_longer_than_the_budget_is_a_slice_of_its_own():
    by_length = estimate(LLAMA_3_2_1B, spec=spec(max_length=2048, slice_tokens=64))
    by_budget = estimate(LLAMA_3_2_1B, spec=spec(max_length=64, slice_tokens=2048))
    assert by_length == by_budget


def test_other_families_call_the_sizes_otherwise():
    gpt2 = {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257}
    shape = Shape.of(gpt2)
    assert shape is not None
    assert (shape.hidden, shape.layers, shape.intermediate, shape.key) == (768, 12, 3072, 768)
    nested = Shape.of({"model_type": "x", "text_config": LLAMA_3_2_1B})
    assert nested == Shape.of(LLAMA_3_2_1B)


@pytest.mark.parametrize("config", [{}, {"hidden_size": "wide"}, {"hidden_size": 64}])
def test_an_unknown_kind_of_model_has_at_least_its_weights_counted(config):
    memory = estimate(config, spec=spec(method="full"), parameters=1000)
    assert not memory.whole
    assert memory.weights == 2000
    assert memory.activations == 0
    assert estimate(config, spec=spec(), parameters=1000).trained == 0
