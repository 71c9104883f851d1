"""The algorithm of a job, top down: load, agree, train slice by slice, commit, save, finish."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from llamaforge.spec import shares
from llamaforge.spec.beat import Phase
from llamaforge.spec.job import Job
from llamaforge.spec.schedule import learning_rate
from llamaforge.train import agreement, beat, journal, outputs, roster, samples
from llamaforge.train.ballot import Ballot
from llamaforge.train.exact import digest, guarantee, threads
from llamaforge.train.exact.adamw import clipping
from llamaforge.train.exact.guarantee import Guarantee
from llamaforge.train.group import Group
from llamaforge.train.place import Folders, Place
from llamaforge.train.proof import make_proof
from llamaforge.train.report import Reporter
from llamaforge.train.rig import Rig, assemble
from llamaforge.train.saving import Saver
from llamaforge.train.step import StepSum
from llamaforge.train.work import Work


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a rank's part in a job ended."""

    proof: dict[str, Any]
    stopped: bool
    """True when it left early, after a checkpoint, because it was told to."""


def train(
    job: Job,
    *,
    place: Place,
    folders: Folders,
    group: Group,
    reporter: Reporter,
    stop: Callable[[], str | None],
) -> Outcome:
    """Trains one rank's share of a job from start to end.

    Args:
        job: what to train.
        place: who this rank is.
        folders: where its files are.
        group: the formed process group of this generation.
        reporter: where to say what happens; only rank 0's is heard.
        stop: asked at every step boundary; a reason to leave early, or None.

    Returns:
        The proof and whether the job was stopped early.

    Raises:
        LlamaForgeError: with a message for a person.
    """
    threads.use(job.threads)
    torch.use_deterministic_algorithms(True)
    beat.now(Phase.LOADS)
    rig = assemble(job, folders, group)
    try:
        run = Run(job, place, folders, group, reporter, rig)
        run.start()
        stopped = run.steps(stop)
        return run.finish(stopped)
    finally:
        rig.close()


class Run:
    """One rank's way through a job, from the state that it starts with to the artifacts."""

    def __init__(
        self,
        job: Job,
        place: Place,
        folders: Folders,
        group: Group,
        reporter: Reporter,
        rig: Rig,
    ) -> None:
        self.job, self.spec = job, job.spec
        self.place, self.folders, self.group = place, folders, group
        self.reporter, self.rig = reporter, rig
        self.cursor = rig.state.cursor
        self.speeds = shares.Speeds(group.world_size)
        self.saver = Saver(job, folders.checkpoints, reporter)
        self.generation = place.generation
        self.nodes: list[str] = []
        self.promise: Guarantee | None = None
        self._first_step = 0
        self._heldout: float | None = None
        self._began = time.monotonic()

    # ── start ─────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Takes over a checkpoint where there is one, and says under which promise it runs."""
        rig = self.rig
        self.nodes = roster.nodes(self.group, self.place.node)
        # Measured on the weights that every generation begins with, so that one generation's
        # machines can be held against another's.
        rows = rig.planner.canary()
        now = guarantee.measure(self.group, rig.passes, rows, self.nodes) if rows else None
        if self.folders.resume is not None:
            self._take_over(self.folders.resume)
        self._first_step = self.cursor.step
        rig.feed.ahead(rig.planner.upcoming(self.cursor.step))
        if now is not None:
            self.promise = guarantee.over_all(now, self.cursor.generations)
        self.cursor.generations.append(self._entry())
        self._progress = journal.progress(self.job, self.place, self.generation, self.nodes)
        self._say_progress(None)
        journal.say_how_it_runs(
            self.reporter,
            rig,
            promise=self.promise,
            ranks=self.group.world_size,
            slices=len(rig.planner.step(min(self.cursor.step, self.job.total_steps - 1)).slices),
        )
        if self.cursor.step == 0:
            if self.place.rank == 0:
                journal.say_lint(self.reporter, rig)
            self._evaluate()
            self.cursor.heldout_before = self._heldout

    def _take_over(self, checkpoint: Path) -> None:
        rig = self.rig
        rig.state.read(checkpoint)
        self.cursor = rig.state.cursor
        rig.publish()
        last = max(past["generation"] for past in self.cursor.generations)
        self.generation = max(self.generation, last + 1)
        text = f"continues after step {self.cursor.step} of {self.job.total_steps}"
        self.reporter.note("resume", text, step=self.cursor.step)

    def _entry(self) -> dict[str, Any]:
        """This generation, as checkpoints and the proof keep it."""
        promise = self.promise
        return {
            "generation": self.generation,
            "first_step": self.cursor.step + 1,
            "ranks": dict(Counter(self.nodes)),
            "started": round(time.time(), 3),
            "guarantee": promise.promise.value if promise else None,
            "why": promise.why if promise else None,
            "canary": promise.canary if promise else None,
        }

    # ── steps ─────────────────────────────────────────────────────────────────────────────────

    def steps(self, stop: Callable[[], str | None]) -> bool:
        """Commits step after step.

        Returns:
            True when it left before the last step because somebody was told to stop.
        """
        while self.cursor.step < self.job.total_steps:
            leaving = self._one_step(stop)
            step = self.cursor.step
            last = step == self.job.total_steps
            if self.place.rank == 0 and (leaving or last or self.saver.due(step)):
                self.saver.save(self.rig.state)
            if leaving and not last:
                return True  # without an evaluation: whoever said stop may not wait for it
            if not last and self.spec.eval_steps and step % self.spec.eval_steps == 0:
                self._evaluate()
        return False

    def _one_step(self, stop: Callable[[], str | None]) -> bool:
        begin = time.monotonic()
        beat.now(Phase.PLANS)
        rig, step = self.rig, self.cursor.step
        work = rig.planner.step(step)
        shared = shares.assign([piece.tokens for piece in work.slices], self.speeds())
        state = self._state_word() if agreement.due(step, first=self._first_step) else 0
        result = rig.runner.run(
            step,
            slices=len(work.slices),
            mine=[work.slices[index] for index in shared[self.place.rank]],
            rows=rig.planner.rows,
            maxima=rig.state.maxima,
            word=lambda: Ballot(stop=stop() is not None, state=state),
        )
        words = [vote.state for vote in result.ballots]
        agreement.check(words, self.nodes, what=f"before step {step + 1} the weights")
        rate = self._commit(work, result)
        self.speeds.update(
            [vote.tokens for vote in result.ballots], [vote.nanoseconds for vote in result.ballots]
        )
        seconds = time.monotonic() - begin
        self._say_progress(result.tokens / seconds)
        if self.place.rank == 0:
            line = journal.step_line(
                self.cursor,
                result,
                epoch=self.cursor.step / self.job.steps_per_epoch,
                rate=rate,
                seconds=seconds,
                nodes=self.nodes,
                shared=shared,
                generation=self.generation,
            )
            self.reporter.metric(line)
        return self._asked_to_leave([vote.stop for vote in result.ballots])

    def _asked_to_leave(self, votes: list[bool]) -> bool:
        """Whether a rank was told to leave; says on which node, as nobody else knows."""
        if any(votes) and self.cursor.step < self.job.total_steps:
            nodes = dict.fromkeys(n for n, stop in zip(self.nodes, votes, strict=True) if stop)
            text = f"told to leave: {', '.join(nodes)}; all stop after step {self.cursor.step}"
            self.reporter.note("leaving", text, nodes=list(nodes), step=self.cursor.step)
        return any(votes)

    def _say_progress(self, tokens_per_second: float | None) -> None:
        """Tells this rank's worker where the job is."""
        beat.committed(self.cursor.step)
        self._progress = msgspec.structs.replace(
            self._progress, step=self.cursor.step, tokens_per_second=tokens_per_second
        )
        self.reporter.progress(self._progress)

    def _commit(self, work: Work, result: StepSum) -> float:
        """Applies the sum: from here on the step counts. Returns the learning rate."""
        beat.now(Phase.UPDATES)
        rig, spec, job = self.rig, self.spec, self.job
        rate = learning_rate(
            work.step,
            total=job.total_steps,
            peak=job.learning_rate,
            kind=spec.schedule,
            warmup=spec.warmup,
        )
        if result.trained:
            factor = clipping(result.norm, spec.max_grad_norm)
            divisor = result.trained / factor
            rig.optimizer.step(rig.runner.total, result.scales, divisor=divisor, rate=rate)
            rig.publish()
            rig.state.remember(result.maxima)
        self.cursor.redone += result.redone
        self.cursor.commit(
            work.rows,
            tokens=result.tokens,
            generation=self.generation,
            what=f"{result.loss_fixed} {result.trained} {result.norm!r} {rate!r}",
        )
        return rate

    def _state_word(self) -> int:
        """63 bits of the weights' digest; one rank alone has nobody to compare with."""
        if self.group.world_size == 1:
            return 0
        return agreement.word(digest.of_vector(self.rig.optimizer.master))

    def _evaluate(self) -> None:
        """Held-out loss and samples, where asked for."""
        step = self.cursor.step
        if self.rig.held_out is not None:
            loss, seconds = self.rig.held_out.loss(self.group, self.rig.passes, self.speeds())
            self._heldout = loss
            line = {"step": step, "heldout_loss": loss, "seconds": round(seconds, 6)}
            self.reporter.metric(line)
        if self.place.rank == 0:
            for prompt in self.spec.sample_prompts:
                beat.now(Phase.SAMPLES)
                text = samples.answer(
                    self.rig.model, self.rig.encoder, prompt, most=self.spec.sample_tokens
                )
                said = f"step {step}: {prompt!r} -> {text!r}"
                self.reporter.note("sample", said, step=step, prompt=prompt, answer=text)

    # ── finish ────────────────────────────────────────────────────────────────────────────────

    def finish(self, stopped: bool) -> Outcome:
        """Compares the ranks' results, writes artifacts and gives the proof."""
        if not stopped:
            self._evaluate()
        beat.now(Phase.FINISHES)
        proof = make_proof(
            self.job,
            self.rig.state,
            self.promise,
            heldout=None if stopped else self._heldout,
            seconds=time.monotonic() - self._began,
        )
        both = (proof["weights_sha256"], proof["optimizer_sha256"])
        agreement.check_end(self.group, both, self.nodes)
        if self.place.rank == 0 and not stopped:
            rig = self.rig
            outputs.write(
                self.folders.artifacts,
                spec=self.spec,
                model=rig.model,
                tokenizer=rig.encoder.tokenizer,
                chat_template=rig.encoder.template.source,
                layout=rig.layout,
                master=rig.optimizer.master,
                parameters=rig.parameters,
            )
        self.group.barrier()
        return Outcome(proof=proof, stopped=stopped)
