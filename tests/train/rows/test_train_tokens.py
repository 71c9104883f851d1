from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

import tiny_tokenizers as tiny
from llamaforge.data.rows import Chat, Completion, Row, Text, Turn
from llamaforge.errors import DataError, ModelError, SpecError
from llamaforge.paths import shipped
from llamaforge.train.rows.template import Template
from llamaforge.train.rows.tokenizer import load_tokenizer
from llamaforge.train.rows.tokens import Encoder, Tokens, cache_key


def user(text: str) -> Turn:
    return Turn(role="user", content=text)


def assistant(text: str, trained: bool = True) -> Turn:
    return Turn(role="assistant", content=text, trained=trained)


def chat(*turns: Turn) -> Chat:
    return Chat(line=3, turns=turns)


TWO_TURNS = chat(user("Hello?"), assistant("Hi."), user("one plus one"), assistant("It is two."))


def encoder(tokenizer: PreTrainedTokenizerFast, **options) -> Encoder:
    return Encoder(tokenizer, **{"max_length": 500, **options})


def trained_parts(made: Encoder, tokens: Tokens) -> list[str]:
    """The text of every run of trained tokens."""
    parts, start = [], None
    for place, trained in enumerate([*tokens.trained.tolist(), False]):
        if trained and start is None:
            start = place
        elif not trained and start is not None:
            parts.append(made.text(tokens.ids[start:place]))
            start = None
    return parts


def whole(made: Encoder, tokens: Tokens) -> str:
    return made.text(tokens.ids)


FAMILIES = {
    "llama3": (tiny.llama3, ["Hi.<|eot_id|>", "It is two.<|eot_id|>"]),
    "llama3 base": (tiny.llama3_base, ["Hi.<|end_of_text|>", "It is two.<|end_of_text|>"]),
    "qwen": (tiny.qwen, ["Hi.<|im_end|>", "It is two.<|im_end|>"]),
    "mistral": (tiny.mistral, [" Hi.</s>", " It is two.</s>"]),
    "two kinds of end": (tiny.phi, ["Hi.<|end|>", "It is two.<|end|>"]),
    "no end in the template": (tiny.plain, ["Hi.</s>", " It is two.</s>"]),
    "no special tokens at all": (tiny.nothing, ["Hi.", "It is two."]),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_and_their_end_tokens_are_trained_and_nothing_else(family: str) -> None:
    make, wanted = FAMILIES[family]
    made = encoder(make())
    tokens = made.encode(TWO_TURNS)
    assert trained_parts(made, tokens) == wanted
    assert tokens.ended is (family != "no special tokens at all")
    assert not tokens.truncated
    assert not tokens.last_turn_only
    assert tokens.ids.dtype == np.int32
    assert tokens.trained.dtype == np.bool_


def test_the_default_template_is_as_documented() -> None:
    made = encoder(tiny.llama3_base())
    system = Turn(role="system", content="Brief.")
    tokens = made.encode(chat(system, user("Hello?"), assistant("Hi.")))
    assert whole(made, tokens) == (
        "<|begin_of_text|>Brief.\n\n### Instruction:\nHello?\n\n### Response:\nHi.<|end_of_text|>"
    )
    assert made.template.origin == "default"


def test_what_is_trained_follows_what_is_asked() -> None:
    """A model that is asked sees exactly the tokens before the first trained one."""
    for make, _ in FAMILIES.values():
        if make is tiny.plain:
            continue  # its prompt ends in a space, which may be one token with the first word
        made = encoder(make())
        tokens = made.encode(chat(user("Hello?"), assistant("good morning")))
        first = int(np.argmax(tokens.trained))
        prompt = made.prompt([user("Hello?")])
        assert tokens.ids[:first].tolist() == prompt.tolist()


def test_the_start_token_is_written_once() -> None:
    for make in (tiny.llama3, tiny.llama3_base, tiny.mistral):
        made = encoder(make())
        for row in (
            TWO_TURNS,
            Text(line=1, text="x"),
            Completion(line=1, prompt="a", completion="b"),
        ):
            assert made.encode(row).ids.tolist().count(made.begin) == 1


def test_templates_that_ask_for_the_date_get_a_fixed_one() -> None:
    made = encoder(tiny.llama3())
    assert "Today Date: 26 Jul 2024" in whole(made, made.encode(TWO_TURNS))


def test_text_after_the_last_end_token_is_left_out() -> None:
    made = encoder(tiny.qwen())
    tokens = made.encode(chat(user("Hello?"), assistant("Hi."), user("Bye")))
    assert whole(made, tokens).endswith("Hi.<|im_end|>")


def test_a_turn_with_weight_zero_is_read_but_not_trained() -> None:
    made = encoder(tiny.qwen())
    row = chat(user("a"), assistant("no", trained=False), user("b"), assistant("yes"))
    assert trained_parts(made, made.encode(row)) == ["yes<|im_end|>"]


def test_a_template_that_drops_thinking_trains_the_last_answer_and_says_so() -> None:
    made = encoder(tiny.qwen(tiny.THINKING))
    one, two = "<think>\nx\n</think>\nHi.", "<think>\ny\n</think>\nIt is two."
    tokens = made.encode(chat(user("Hello?"), assistant(one), user("1+1"), assistant(two)))
    assert trained_parts(made, tokens) == [two + "<|im_end|>"]
    assert tokens.last_turn_only
    single = made.encode(chat(user("Hello?"), assistant(one)))
    assert trained_parts(made, single) == [one + "<|im_end|>"]
    assert not single.last_turn_only


def test_a_generation_prompt_that_answers_lack_is_not_part_of_the_answer() -> None:
    """DeepSeek-R1's prompt ends in `<think>`, its rendered answers have none."""
    template = tiny.QWEN.replace("assistant\\n' }}{%- endif", "assistant\\n<think>\\n' }}{%- endif")
    made = encoder(tiny.qwen(template))
    tokens = made.encode(TWO_TURNS)
    assert trained_parts(made, tokens) == ["It is two.<|im_end|>"]
    assert tokens.last_turn_only


def test_an_answer_that_can_not_be_told_from_the_prompt_is_refused() -> None:
    template = (
        "{{ messages[-1].content | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    made = encoder(tiny.qwen(template))
    with pytest.raises(DataError, match=r"row 3 of the dataset: .* can't be told"):
        made.encode(chat(user("x"), assistant("y")))


def test_a_conversation_may_begin_with_an_answer() -> None:
    made = encoder(tiny.qwen())
    assert trained_parts(made, made.encode(chat(assistant("Hi.")))) == ["Hi.<|im_end|>"]


@pytest.mark.parametrize(
    "turns",
    [
        (Turn(role="system", content="s"), user("q"), assistant("a")),
        (user("q"), user("q"), assistant("a")),
        (assistant("a"),),
    ],
)
def test_what_a_template_refuses_is_named_by_line_in_its_own_words(turns) -> None:
    with pytest.raises(DataError, match="roles must alternate") as caught:
        encoder(tiny.mistral()).encode(chat(*turns))
    assert caught.value.message.startswith("row 3 of the dataset (")


def test_a_broken_template_is_the_job_s_mistake() -> None:
    made = encoder(tiny.qwen(), template="{% for %}")
    with pytest.raises(SpecError, match=r"chat template .option. is not valid: line 1"):
        made.encode(TWO_TURNS)


def test_a_given_template_wins() -> None:
    made = encoder(tiny.qwen(), template=tiny.PLAIN)
    assert made.template.origin == "option"
    assert whole(made, made.encode(TWO_TURNS)).startswith("user: Hello?")


def test_prompt_and_completion_are_spelled_apart() -> None:
    made = encoder(tiny.llama3_base())
    tokens = made.encode(Completion(line=1, prompt="It is t", completion="wo."))
    asked = made.plain_prompt("It is t")
    assert tokens.ids[: len(asked)].tolist() == asked.tolist()
    assert whole(made, tokens) == "<|begin_of_text|>It is two.<|end_of_text|>"
    assert trained_parts(made, tokens) == ["wo.<|end_of_text|>"]


def test_text_is_trained_from_its_first_word_to_the_end_token() -> None:
    made = encoder(tiny.llama3_base())
    assert trained_parts(made, made.encode(Text(line=1, text="Hello"))) == ["Hello<|end_of_text|>"]
    again = made.encode(Text(line=1, text="Hello<|end_of_text|>"))
    assert trained_parts(made, again) == ["Hello<|end_of_text|>"]
    assert again.ended


def test_the_first_token_is_never_a_target() -> None:
    made = encoder(tiny.nothing())
    tokens = made.encode(Text(line=1, text="Hello world"))
    assert not tokens.trained[0]
    assert tokens.trained[1:].all()


def test_no_start_token_where_the_tokenizer_adds_none() -> None:
    quiet = tiny.tokenizer(None, bos="<s>", eos="</s>", adds_bos=False)
    assert encoder(quiet).begin not in encoder(quiet).encode(Text(line=1, text="x")).ids


def test_all_trains_every_token_of_every_turn() -> None:
    made = encoder(tiny.qwen(), train_on="all")
    tokens = made.encode(chat(user("Hello?"), assistant("Hi.", trained=False), user("Bye")))
    assert tokens.trained[1:].all()
    assert whole(made, tokens).endswith("Bye<|im_end|>\n")
    assert tokens.ended


def test_all_adds_the_end_token_that_a_template_lacks() -> None:
    made = encoder(tiny.plain(), train_on="all")
    assert "Hi.</s>" in whole(made, made.encode(TWO_TURNS))


def test_cut_rows_get_no_false_end_token() -> None:
    made = encoder(tiny.llama3_base())
    full = made.encode(TWO_TURNS)
    for length in range(8, len(full.ids)):
        cut = encoder(tiny.llama3_base(), max_length=length).encode(TWO_TURNS)
        assert cut.truncated
        assert cut.cut == len(full.ids) - length
        assert cut.ids.tolist() == full.ids[:length].tolist()
        assert cut.trained.tolist() == full.trained[:length].tolist()
        assert cut.ended is bool(((cut.ids == made.end) & cut.trained).any())


@pytest.mark.parametrize("kind", ["chat", "text", "completion"])
def test_a_huge_row_is_the_start_of_itself(kind: str) -> None:
    text = "Hello world! What is one plus one? " * 4000
    small, large = encoder(tiny.llama3(), max_length=50), encoder(tiny.llama3(), max_length=200_000)
    row: Row = {
        "chat": chat(user("x"), assistant(text)),
        "text": Text(line=1, text=text),
        "completion": Completion(line=1, prompt=text, completion=text),
    }[kind]
    start, all_of_it = small.encode(row), large.encode(row)
    assert start.ids.tolist() == all_of_it.ids[:50].tolist()
    assert start.trained.tolist() == all_of_it.trained[:50].tolist()
    assert start.truncated
    assert not start.ended
    assert start.cut == pytest.approx(len(all_of_it.ids) - 50, rel=0.02)


words = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(st.lists(st.tuples(words, words), min_size=1, max_size=4), st.sampled_from(sorted(FAMILIES)))
def test_masks_hold_for_any_text(pairs: list[tuple[str, str]], family: str) -> None:
    made = encoder(FAMILIES[family][0](), max_length=100_000)
    turns = [turn for q, a in pairs for turn in (user(q), assistant(a))]
    tokens = made.encode(chat(*turns))
    assert len(tokens.ids) == len(tokens.trained)
    if made.end_ids:
        assert tokens.ids[-1] in made.end_ids
        assert tokens.trained[-1]
    if family == "qwen" and not any(mark in q + a for q, a in pairs for mark in ("<|",)):
        answers = [a + "<|im_end|>" for _, a in pairs]
        assert trained_parts(made, tokens) == answers


def test_multi_byte_characters_are_whole_in_the_mask() -> None:
    made = encoder(tiny.qwen())
    row = chat(user("日本?"), assistant("日本 🙂"))
    assert trained_parts(made, made.encode(row)) == ["日本 🙂<|im_end|>"]


def test_a_tokenizer_file_with_truncation_and_padding_does_not_matter() -> None:
    core = Tokenizer.from_str(tiny.qwen().backend_tokenizer.to_str())
    core.enable_truncation(4)
    core.enable_padding(length=300)
    odd = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", chat_template=tiny.QWEN
    )
    assert (
        encoder(odd).encode(TWO_TURNS).ids.tolist()
        == encoder(tiny.qwen()).encode(TWO_TURNS).ids.tolist()
    )


def test_a_slow_tokenizer_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="ByT5Tokenizer is a slow one"):
        Encoder(ByT5Tokenizer(), max_length=8)


def test_end_ids_hold_what_the_template_and_the_tokenizer_end_with() -> None:
    def named(tokenizer: PreTrainedTokenizerFast) -> list[str]:
        return tokenizer.convert_ids_to_tokens(encoder(tokenizer).end_ids)

    assert named(tiny.llama3()) == ["<|eot_id|>", "<|end_of_text|>"]
    assert named(tiny.mistral()) == ["</s>"]
    assert named(tiny.nothing()) == []


def test_templates_by_purpose_use_the_default_one() -> None:
    several = tiny.tokenizer(None, eos="<|im_end|>", special=("<|im_start|>",))
    both = PreTrainedTokenizerFast(
        tokenizer_object=several.backend_tokenizer,
        eos_token="<|im_end|>",
        chat_template={"tool_use": "x", "default": tiny.QWEN},
    )
    made = encoder(both)
    assert isinstance(made.template, Template)
    assert made.template.source == tiny.QWEN


def test_the_key_changes_with_whatever_changes_tokens(tmp_path: Path) -> None:
    tiny.qwen().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"1")
    same = {
        "data_digest": "d",
        "model": tmp_path,
        "template": None,
        "max_length": 8,
        "train_on": "all",
    }
    key = cache_key(**same)
    assert cache_key(**same) == key
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert cache_key(**same) == key
    for change in (
        {"data_digest": "e"},
        {"template": ""},
        {"max_length": 9},
        {"train_on": "completions"},
    ):
        assert cache_key(**{**same, **change}) != key
    (tmp_path / "chat_template.jinja").write_text("x")
    assert cache_key(**same) != key


def test_the_shipped_model_speaks_its_template() -> None:
    folder = shipped("tiny-llama")
    if folder is None or not (folder / "tokenizer.json").is_file():
        pytest.skip("examples/models/tiny-llama is not here")
    made = encoder(load_tokenizer(folder))
    tokens = made.encode(TWO_TURNS)
    assert made.template.origin == "model"
    assert trained_parts(made, tokens) == ["Hi.<|end|>", "It is two.<|end|>"]


def test_a_folder_without_a_tokenizer_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't be loaded") as caught:
        load_tokenizer(tmp_path)
    assert "tokenizer.json" in caught.value.hint
