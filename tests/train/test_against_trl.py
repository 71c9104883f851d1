"""The first step's loss against TRL's SFTTrainer: its own template, masks and normalisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_train_run import ROWS, run
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs import make_job
from models import make_model
from ranks import lay_out

trl = pytest.importorskip("trl", reason="TRL is not installed; it comes with the dev extra")


def trl_loss(bundle: Path, rows: list[dict[str, Any]], folder: Path) -> float:
    """Loss of one step over all rows, as TRL logs it."""
    from datasets import Dataset

    tokenizer = AutoTokenizer.from_pretrained(bundle / "model")
    tokenizer.pad_token = tokenizer.eos_token
    dataset = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": row["instruction"]}],
                "completion": [{"role": "assistant", "content": row["output"]}],
            }
            for row in rows
        ]
    )
    trainer = trl.SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(bundle / "model", dtype=torch.float32),
        args=trl.SFTConfig(
            output_dir=str(folder),
            per_device_train_batch_size=len(rows),
            max_steps=1,
            logging_steps=1,
            max_length=512,
            bf16=False,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=dataset,
        processing_class=tokenizer,
    )
    trainer.train()
    return float(next(line["loss"] for line in trainer.state.log_history if "loss" in line))


def test_the_first_loss_agrees_with_trl(tmp_path: Path) -> None:
    bundle = lay_out(tmp_path / "bundle", make_model(tmp_path / "model"), ROWS)
    job = make_job(
        rows=len(ROWS), rows_per_step=len(ROWS), precision="fp32", method="full", max_steps=1
    )
    _, kept = run(job, bundle, tmp_path)
    theirs = trl_loss(bundle, ROWS, tmp_path / "trl")
    assert kept.losses[0] == pytest.approx(theirs, abs=1e-4)
