"""`job_spec`: every mistake at once, named by key, value and what is allowed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llamaforge.errors import SpecError
from llamaforge.spec.job import GROUPS, JobSpec
from llamaforge.spec.options import options
from llamaforge.spec.parse import job_spec, suggestion


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "x"}\n')
    return path


def spec(rows: Path | str, /, **values: Any) -> JobSpec:
    return job_spec({"model": "tiny", "dataset": str(rows), **values}, source="command line")


def mistakes(rows: Path | str, **values: Any) -> str:
    with pytest.raises(SpecError) as caught:
        spec(rows, **values)
    assert caught.value.exit_code == 2
    assert "--help-all" in caught.value.hint
    return caught.value.message


def test_every_option_has_group_text_and_kind() -> None:
    for option in options().values():
        assert option.group in GROUPS
        assert option.text
        assert option.allowed
    assert list(options()) == [field.name for field in msgspec.structs.fields(JobSpec)]


def test_defaults_come_from_the_declaration(rows: Path) -> None:
    assert spec(rows) == JobSpec(model="tiny", dataset=str(rows))


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("epochs", "3", 3),
        ("epochs", " 3 ", 3),
        ("seed", "1e3", 1000),
        ("max-length", "4_096", 4096),
        ("learning_rate", "2e-4", 2e-4),
        ("learning_rate", 1e-3, 1e-3),
        ("warmup", 0, 0.0),
        ("max_steps", "none", None),
        ("max_steps", None, None),
        ("rslora", "yes", True),
        ("rslora", "Off", False),
        ("rslora", True, True),
        ("method", "lora", "lora"),
        ("lora_targets", "q_proj, v_proj", ("q_proj", "v_proj")),
        ("lora_targets", ["q_proj", "v_proj"], ("q_proj", "v_proj")),
        ("sample_prompts", "Hello, world", ("Hello, world",)),
        ("sample_prompts", ("a, b", "c"), ("a, b", "c")),
        ("fields", "instruction=a, output=b", {"instruction": "a", "output": "b"}),
        ("fields", {"instruction": "q"}, {"instruction": "q"}),
        ("heldout", 0.05, "0.05"),
        ("name", 7, "7"),
    ],
)  # fmt: skip
def test_texts_and_plain_values_are_converted(
    rows: Path, key: str, text: Any, value: object
) -> None:
    assert getattr(spec(rows, **{key: text}), key.replace("-", "_")) == value


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("epochs", "three", "epochs: 'three' is not a whole number of at least 1"),
        ("epochs", "0", "epochs: '0' is not a whole number of at least 1"),
        ("epochs", 1.5, "epochs: 1.5 is not a whole number"),
        ("epochs", "1.5", "epochs: '1.5' is not a whole number"),
        ("epochs", True, "epochs: True is not a whole number"),
        ("epochs", [1], "epochs: [1] is not a whole number"),
        ("epochs", "none", "epochs: 'none' is not a whole number"),
        ("lora_r", 5000, "lora_r: 5000 is not a whole number from 1 to 4096"),
        ("warmup", "1", "warmup: '1' is not a number from 0 to below 1"),
        ("weight_decay", "inf", "weight_decay: 'inf' is not a number of at least 0"),
        ("learning_rate", "nan", "learning_rate: 'nan' is not a number above 0"),
        ("learning_rate", "-1", "learning_rate: '-1' is not a number above 0"),
        ("method", "qlora", "method: 'qlora' is not one of lora, full"),
        ("rslora", "maybe", "rslora: 'maybe' is not true or false"),
        ("rslora", 2, "rslora: 2 is not true or false"),
        ("model", "", "model: '' is not a text"),
        ("name", "a b", "name: 'a b' is not a name of at most 64 letters"),
        ("name", "../x", "name: '../x' is not a name"),
        ("fields", "instruction", "fields: 'instruction' is not a mapping such as key=value"),
        ("fields", "a=", "fields: 'a=' is not a mapping"),
        ("seed", 10**40, "is not a whole number from 0"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    rows: Path, key: str, value: Any, told: str
) -> None:
    assert told in mistakes(rows, **{key: value})


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        job_spec({"epcohs": 3, "lora-r": "x", "model": "tiny"}, source="job.yaml")
    lines = caught.value.message.splitlines()
    assert lines[0] == "job.yaml: 3 mistakes"
    assert "epcohs: no such option; did you mean epochs?" in lines[1]
    assert "lora_r: 'x'" in lines[2]
    assert "dataset: is missing" in lines[3]


def test_origins_name_the_line_or_the_flag(rows: Path) -> None:
    values = {"model": "tiny", "dataset": str(rows), "epochs": "x"}
    with pytest.raises(SpecError) as caught:
        job_spec(values, source="job.yaml", origins={"epochs": "job.yaml:3: epochs"})
    assert caught.value.message.startswith("job.yaml:3: epochs: 'x' is not")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("batchsize", "batch_size"),
        ("learning-rat", "learning_rate"),
        ("lr", "learning_rate"),
        ("per_device_train_batch_size", "batch_size"),
        ("num-train-epochs", "epochs"),
        ("xyzzy", None),
    ],
)
def test_unknown_keys_get_a_suggestion(written: str, meant: str | None) -> None:
    assert suggestion(written) == meant


def test_the_same_option_spelt_twice_is_refused(rows: Path) -> None:
    assert "batch_size: is given twice" in mistakes(rows, **{"batch_size": 1, "batch-size": 2})


class TestWhatOptionsMeanTogether:
    def test_missing_dataset_suggests_a_sibling(self, rows: Path) -> None:
        told = mistakes(rows.parent / "row.jsonl")
        assert "no file" in told
        assert f"did you mean {rows}?" in told

    def test_missing_dataset_lists_the_folder(self, rows: Path) -> None:
        assert "holds rows.jsonl" in mistakes(rows.parent / "completely-different.csv")

    def test_dataset_in_a_missing_folder(self, rows: Path) -> None:
        assert "there is no folder" in mistakes(rows.parent / "no" / "rows.jsonl")

    def test_dataset_that_is_a_folder(self, rows: Path) -> None:
        assert "is a folder; it holds rows.jsonl" in mistakes(rows.parent)

    @pytest.mark.parametrize("value", ["0", "0.6", "-0.1", "1"])
    def test_heldout_fraction_out_of_range(self, rows: Path, value: str) -> None:
        assert f"heldout: {value} is neither a fraction above 0 to 0.5" in mistakes(
            rows, heldout=value
        )

    def test_heldout_percent(self, rows: Path) -> None:
        assert "write 0.05" in mistakes(rows, heldout="5%")

    def test_heldout_file(self, rows: Path) -> None:
        assert spec(rows, heldout=str(rows)).heldout == str(rows)
        assert "heldout: no file" in mistakes(rows, heldout="nothing-here.jsonl")

    def test_learning_rate_that_lost_its_sign(self, rows: Path) -> None:
        assert "20000 would destroy the model; 2e-4 is usual" in mistakes(rows, learning_rate="2e4")

    def test_lora_options_with_full(self, rows: Path) -> None:
        told = mistakes(rows, method="full", merge=True, lora_r=16, lora_alpha=16.0)
        assert "merge: only with method lora" in told
        assert "lora_r: only with method lora" in told
        assert "lora_alpha" not in told, "the default changes nothing, so it is no mistake"

    def test_eval_steps_without_anything_to_evaluate(self, rows: Path) -> None:
        assert "nothing to evaluate" in mistakes(rows, eval_steps=5)
        assert spec(rows, eval_steps=5, heldout="0.1").eval_steps == 5

    def test_missing_local_model_and_template(self, rows: Path) -> None:
        told = mistakes(rows, model=str(rows.parent / "nope"), chat_template="nope.jinja")
        assert "model: no folder" in told
        assert "chat_template: no file" in told

    def test_revision_of_a_local_model(self, rows: Path) -> None:
        assert "only a hub model has revisions" in mistakes(rows, revision="main")

    def test_folders_that_are_files(self, rows: Path) -> None:
        assert "is a file, not a folder" in mistakes(rows, output_dir=str(rows))

    def test_a_row_longer_than_a_slice_is_allowed(self, rows: Path) -> None:
        assert spec(rows, max_length=4096, slice_tokens=512).max_length == 4096


def _written(option_name: str) -> st.SearchStrategy[Any]:
    """Right values of an option, as a program would give them."""
    option = options()[option_name]
    top = 10_000 if option.most is None else int(option.most)
    if option.kind == "integer":
        return st.integers(int(option.least or 0), top)
    if option.kind == "number":
        return st.floats(1e-12, 0.4)
    if option.kind == "flag":
        return st.booleans()
    return st.sampled_from(option.choices)


_SIMPLE = [o.name for o in options().values() if o.kind in ("integer", "number", "flag", "choice")]


@given(data=st.data(), name=st.sampled_from(_SIMPLE))
def test_a_value_written_as_text_means_the_same(data: st.DataObject, name: str) -> None:
    value = data.draw(_written(name))
    extra = {"heldout": "0.1"} if name == "eval_steps" else {}
    typed, written = (spec(__file__, **{name: v}, **extra) for v in (value, str(value)))
    assert typed == written
    assert getattr(typed, name) == value


@example(key="rows", value=None)
@given(key=st.text(max_size=30), value=st.none() | st.text() | st.floats() | st.integers())
def test_any_key_gives_a_spec_or_a_spec_error(key: str, value: Any) -> None:
    with suppress(SpecError):
        made = spec(__file__, **{key: value})
        assert msgspec.convert(msgspec.to_builtins(made), JobSpec) == made


@given(value=st.none() | st.text() | st.floats() | st.integers(), name=st.sampled_from(_SIMPLE))
def test_any_value_gives_a_spec_or_a_spec_error(value: Any, name: str) -> None:
    with suppress(SpecError):
        made = spec(__file__, **{name: value})
        assert msgspec.convert(msgspec.to_builtins(made), JobSpec) == made
