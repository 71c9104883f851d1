"""The algorithm of a job, top down: load, agree, train slice by slice, commit, save, finish."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from llamaforge.errors import IntegrityError
from llamaforge.spec import shares
from llamaforge.spec.job import Job
from llamaforge.spec.schedule import learning_rate
from llamaforge.train import outputs, roster, samples
from llamaforge.train.ballot import Ballot
from llamaforge.train.exact import digest, guarantee, threads
from llamaforge.train.exact.adamw import clipping
from llamaforge.train.exact.guarantee import Guarantee
from llamaforge.train.group import Group
from llamaforge.train.place import Folders, Place
from llamaforge.train.proof import make_proof
from llamaforge.train.report import Reporter
from llamaforge.train.rig import Rig, assemble
from llamaforge.train.rows import lint
from llamaforge.train.saving import Saver
from llamaforge.train.step import StepSum
from llamaforge.train.work import Work

COMPARE_EVERY = 50
"""Steps between comparisons of the ranks' weights."""


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
        self._heldout: float | None = None
        self._began = time.monotonic()

    # ── start ─────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Takes over a checkpoint where there is one, and says under which promise it runs."""
        rig, place = self.rig, self.place
        if self.folders.resume is not None:
            rig.state.read(self.folders.resume)
            self.cursor = rig.state.cursor
            rig.publish()
            last = max(past["generation"] for past in self.cursor.generations)
            self.generation = max(place.generation, last + 1)
            text = f"continues after step {self.cursor.step} of {self.job.total_steps}"
            self.reporter.note("resume", text, step=self.cursor.step)
        rig.feed.ahead(rig.planner.upcoming(self.cursor.step))
        self.nodes = roster.nodes(self.group, place.node)
        self.cursor.generations.append(
            {
                "generation": self.generation,
                "first_step": self.cursor.step + 1,
                "ranks": dict(Counter(self.nodes)),
                "started": round(time.time(), 3),
            }
        )
        self._say_how_it_runs()
        if self.cursor.step == 0:
            self._evaluate()
            self.cursor.heldout_before = self._heldout

    def _say_how_it_runs(self) -> None:
        work = self.rig.planner.step(min(self.cursor.step, self.job.total_steps - 1))
        canary = work.slices[0] if work.slices else None
        if canary is not None:
            rows = self.rig.planner.rows(canary)
            self.promise = guarantee.measure(self.group, self.rig.passes, rows, self.nodes)
            text = f"guarantee: {self.promise.promise.value}; {self.promise.why}"
            self.reporter.note("guarantee", text, promise=self.promise.promise.value)
        if not self.rig.passes.packed:
            self.reporter.note(
                "isolation", "this model mixes rows that share a slice; rows go through one by one"
            )
        if len(work.slices) < 2 * self.group.world_size and self.group.world_size > 1:
            self.reporter.note(
                "grain",
                f"slices per step: {len(work.slices)}, for {self.group.world_size} ranks; "
                "a larger batch_size shares the work better",
                slices=len(work.slices),
            )
        if self.cursor.step == 0 and self.place.rank == 0:
            for line in lint.of_feed(self.rig.feed).lines():
                self.reporter.note("lint", line)

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
            if not last and self.spec.eval_steps and step % self.spec.eval_steps == 0:
                self._evaluate()
            if self.place.rank == 0 and (leaving or last or self.saver.due(step)):
                self.saver.save(self.rig.state)
            if leaving and not last:
                return True
        return False

    def _one_step(self, stop: Callable[[], str | None]) -> bool:
        begin = time.monotonic()
        rig, step = self.rig, self.cursor.step
        work = rig.planner.step(step)
        shared = shares.assign([piece.tokens for piece in work.slices], self.speeds())
        digest_now = self._state_word() if step and step % COMPARE_EVERY == 0 else 0
        result = rig.runner.run(
            step,
            slices=len(work.slices),
            mine=[work.slices[index] for index in shared[self.place.rank]],
            rows=rig.planner.rows,
            maxima=rig.state.maxima,
            word=lambda: Ballot(stop=stop() is not None, state=digest_now),
        )
        self._same_weights(result)
        rate = self._commit(work, result)
        self.speeds.update(
            [vote.tokens for vote in result.ballots], [vote.nanoseconds for vote in result.ballots]
        )
        self._report(result, shared, rate, time.monotonic() - begin)
        return any(vote.stop for vote in result.ballots)

    def _commit(self, work: Work, result: StepSum) -> float:
        """Applies the sum: from here on the step counts. Returns the learning rate."""
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
        """63 bits of the weights' digest."""
        return int.from_bytes(digest.of_vector(self.rig.optimizer.master)[:8], "little") >> 1

    def _same_weights(self, result: StepSum) -> None:
        """Refuses to go on with ranks whose weights have parted."""
        words = [vote.state for vote in result.ballots]
        odd = [rank for rank, word in enumerate(words) if word != words[0]]
        if odd:
            who = ", ".join(f"rank {rank} on {self.nodes[rank]}" for rank in odd)
            raise IntegrityError(
                f"before step {self.cursor.step + 1} the weights of {who} differ from rank 0's",
                hint="continue from the last checkpoint with --auto-resume; if it happens again, "
                "test the memory of that machine",
            )

    # ── words ─────────────────────────────────────────────────────────────────────────────────

    def _report(
        self,
        result: StepSum,
        shared: list[tuple[int, ...]],
        rate: float,
        seconds: float,
    ) -> None:
        by_node: Counter[str] = Counter()
        for node, share in zip(self.nodes, shared, strict=True):
            by_node[node] += len(share)
        self.reporter.metric(
            {
                "step": self.cursor.step,
                "epoch": round(self.cursor.step / self.job.steps_per_epoch, 4),
                "loss": result.loss if result.trained else None,
                "tokens": result.trained,
                "total_tokens": result.tokens,
                "lr": rate,
                "grad_norm": result.norm,
                "seconds": round(seconds, 6),
                "tokens_per_second": round(result.tokens / seconds, 2),
                "shares": dict(by_node),
                "redone": result.redone,
                "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "generation": self.generation,
                "chain": self.cursor.chain,
            }
        )

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
                text = samples.answer(
                    self.rig.model, self.rig.encoder, prompt, most=self.spec.sample_tokens
                )
                said = f"step {step}: {prompt!r} -> {text!r}"
                self.reporter.note("sample", said, step=step, prompt=prompt, answer=text)

    # ── finish ────────────────────────────────────────────────────────────────────────────────

    def finish(self, stopped: bool) -> Outcome:
        """Writes artifacts and gives the proof."""
        if not stopped:
            self._evaluate()
        proof = make_proof(
            self.job,
            self.rig.state,
            self.promise,
            heldout=None if stopped else self._heldout,
            seconds=time.monotonic() - self._began,
        )
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
