"""The tiny example model loads with plain transformers, fits its size, and its template is sound.

Run from the root of the repository: python -m pytest tests/examples/test_tiny_llama.py
"""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from examples.datasets.families import FAMILIES  # noqa: E402
from examples.models.pretraining.conversations import EQUAL_PRACTICE, WORDINGS, draw_example  # noqa: E402
from examples.models.pretraining.tokenizer import SPECIAL, TEMPLATE  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "models" / "tiny-llama"
MOST_BYTES = 16 * 1000 * 1000
ANY_TEXT = st.text(max_size=60)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Load the committed tokenizer as a user would."""
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> Any:
    """Load the committed model as a user would."""
    return transformers.AutoModelForCausalLM.from_pretrained(FOLDER)


def rendered(tokenizer: Any, messages: list[dict[str, str]], *, prompt: bool = False) -> str:
    """Render messages with the chat template."""
    text: str = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=prompt
    )
    return text


def test_folder_is_small_and_names_no_machine() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    for path in files:
        if path.suffix != ".safetensors":
            text = path.read_text(encoding="utf-8")
            assert not any(root in text for root in ("/work", "/home", "/tmp", "/root"))
    with (FOLDER / "model.safetensors").open("rb") as weights:
        header = json.loads(weights.read(int.from_bytes(weights.read(8), "little")))
    assert header.pop("__metadata__", {}).keys() <= {"format"}
    assert {tensor["dtype"] for tensor in header.values()} == {"BF16"}


def test_model_is_a_llama_that_answers(model: Any, tokenizer: Any) -> None:
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.config.max_position_embeddings >= 1024
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    prompt = rendered(tokenizer, [{"role": "user", "content": "capital: France"}], prompt=True)
    tokens = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        answer = model.generate(**tokens, max_new_tokens=30, do_sample=False)[0]
    text = tokenizer.decode(answer[tokens.input_ids.shape[1] :])
    assert "Paris" in text
    assert text.endswith("<|end|>")


def test_special_tokens_stand_for_themselves(tokenizer: Any) -> None:
    for token in SPECIAL:
        assert len(tokenizer(token, add_special_tokens=False).input_ids) == 1
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|begin|>", "<|end|>")
    assert tokenizer.pad_token == "<|pad|>"
    assert set(SPECIAL) == set(tokenizer.all_special_tokens)


@settings(max_examples=200, deadline=None)
@given(ANY_TEXT)
def test_any_text_comes_back(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_every_byte_has_a_token(tokenizer: Any) -> None:
    assert set(map(chr, range(33, 127))) <= set(tokenizer.get_vocab())
    text = "".join(map(chr, range(0x800))) + "\U0001f525\U0010ffff"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


@settings(max_examples=50, deadline=None)
@given(st.one_of(st.none(), ANY_TEXT), st.lists(st.tuples(ANY_TEXT, ANY_TEXT), max_size=3))
def test_a_prompt_is_a_prefix_of_the_answered_conversation(
    tokenizer: Any, system: str | None, turns: list[tuple[str, str]]
) -> None:
    messages = [{"role": "system", "content": system}] if system is not None else []
    for question, answer in turns:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    for count in range(1, len(messages)):
        longer = rendered(tokenizer, messages[: count + 1])
        assert longer.startswith(rendered(tokenizer, messages[:count], prompt=True))


def test_template_renders_turns_and_marks_what_the_assistant_says(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "4"},
    ]
    expected = "<|begin|><|system|>Be brief.<|user|>2 + 2?<|assistant|>4<|end|>"
    assert rendered(tokenizer, messages) == expected
    coded = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    marked = [t for t, m in zip(coded["input_ids"], coded["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(marked) == "4<|end|>"
    with pytest.raises(Exception, match="unknown role 'tool'"):
        rendered(tokenizer, [{"role": "tool", "content": "x"}])


def test_committed_template_is_its_source() -> None:
    assert (FOLDER / "chat_template.jinja").read_text("utf-8") == TEMPLATE.read_text("utf-8")


def test_pretraining_covers_every_family_in_other_wordings() -> None:
    assert set(WORDINGS) == set(FAMILIES)
    for name, family in FAMILIES.items():
        assert not set(WORDINGS[name]) & set(family.wordings)


def test_pretraining_rows_are_what_the_template_renders(tokenizer: Any) -> None:
    rng, seen = Random(1), 0
    for _ in range(200):
        text = "".join(
            piece.text for piece in draw_example(rng, EQUAL_PRACTICE, copying=0.1).pieces
        )
        if "<|user|>" not in text:
            continue
        messages = []
        for part in text.removeprefix("<|begin|>").replace("<|end|>", "").split("<|")[1:]:
            role, content = part.split("|>", 1)
            messages.append({"role": role, "content": content})
        assert rendered(tokenizer, messages) == text
        seen += 1
    assert seen > 150
