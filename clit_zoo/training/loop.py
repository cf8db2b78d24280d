"""The training loop: L1 at drawn positions, and a state that survives being killed."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import ClitZooError, ConfigError
from ..evaluation import Results
from ..imaging import Picture, write
from ..model import SuperResolver
from .card import Training, training_card
from .cascade import stages_of
from .checkpoint import load_checkpoint, save_checkpoint
from .history import Entry, enter, told
from .log import Log
from .optim import OPTIMIZERS, Average
from .pace import Pace
from .patches import Batch
from .photographs import Photographs
from .prefetch import Prefetcher
from .processes import Processes
from .recipe import Recipe
from .signals import StopSignal
from .state import BEST, check_losses, check_weights, collect, take_over
from .validation import Validation, as_row, mean_psnr, skipped_row

CHECKPOINT = "checkpoint.pt"
FINAL, SAMPLES = "model", "samples"
ASK_EVERY = 10
"""Steps between two questions to the other processes whether to stop: each costs a message."""

Describe = Callable[["Run"], Training]


class Run:
    """One training run in a folder. Started again, it goes on where it stopped.

    Everything random in step t comes from (seed, t), so the seed and the step are the random state, the
    position in the data and the position in the schedule; the checkpoint holds them with the weights, the
    average, the optimizer's state, the losses not yet logged and the best figures.

    Args:
        model: with its starting weights; moved to the processes' device.
        recipe: what is done.
        photographs: the pictures.
        folder: of the run: log.jsonl, checkpoint.pt, best/, samples/, and model/ at the end.
        processes: of which this is one; itself alone where left out.
        validation: what to measure; nothing where left out, and then there is no best/.
        describe: what the model cards say of the run.
        save_every, log_every: steps. threads: that draw patches.
        tensorboard, progress: whether to write TensorBoard's files, and draw a bar.

    Attributes:
        step: steps done.
        seconds: spent on them, over all starts.
        pace: speed since the last start.

    Raises:
        ClitZooError: the checkpoint is damaged or another model's; a setting does not fit.
    """

    def __init__(
        self,
        model: SuperResolver,
        recipe: Recipe,
        photographs: Photographs,
        folder: str | Path,
        *,
        processes: Processes | None = None,
        validation: Validation | None = None,
        describe: Describe | None = None,
        save_every: int = 500,
        log_every: int = 50,
        threads: int = 1,
        tensorboard: bool = True,
        progress: bool = True,
    ):
        self.processes = processes or Processes(model.device)
        self.recipe, self.photographs, self.validation = recipe, photographs, validation
        self.describe = describe or _describe
        self.folder, self.checkpoint = Path(folder), Path(folder) / CHECKPOINT
        self.save_every, self.log_every, self.threads = save_every, log_every, threads
        self.tensorboard, self.progress = tensorboard, progress
        self.parts = recipe.share_of(self.processes.rank, self.processes.count)
        self.model = model.to(self.processes.device)
        model.check_backend()
        if recipe.channels_last:
            self.model.to(memory_format=torch.channels_last)
        recipe.freeze(self.model)
        _training_mode(self.model)
        if recipe.compile:  # the encoder's shapes never change; the decoder's time is in few large operations
            cast(nn.Module, self.model.encoder).compile()
        self.drawing = recipe.draw(stages_of(model.decoder))
        self.processes.share(self.model.parameters())
        self.optimizer = OPTIMIZERS[recipe.optimizer](self.model, recipe.lr)
        self.average = Average(self.model, recipe.ema)
        self.step, self.seconds = 0, 0.0
        self.pace = Pace()
        self.ramp_from: int | None = None
        self.losses: list[Tensor] = []
        self.best: dict[str, Any] = {}
        self.changed: list[str] = []
        self.stopped_by: int | None = None
        self.history: list[Entry] = []
        self._measured: tuple[int, Results] | None = None
        if min(save_every, log_every) < 1:
            raise ConfigError("save_every and log_every are numbers of steps from 1")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ClitZooError(f"{folder} cannot be made ({error.strerror or error})") from error
        if self.checkpoint.exists():
            self.restore(load_checkpoint(self.checkpoint))
        # what a card refuses, a licence that is none, shows now and not when all is done
        training_card(model.config, recipe, told(self))

    def train(self, minutes: float | None = None) -> bool:
        """Run the steps that are left; True when all are done, be it in a run that was once longer.

        Stops early, with the state saved, after ``minutes`` or on SIGTERM or the first Ctrl-C.

        Raises:
            ClitZooError: the loss or a weight is no longer a number, nothing can be validated any more, a
                file cannot be written, or the processes stand at different steps. The last checkpoint stays.
        """
        if not self.processes.same(self.step):
            raise ClitZooError(
                "the processes see different checkpoints: give all the same --out on a shared disk"
            )
        main, steps = self.processes.main, self.recipe.steps
        if self.step < steps:
            enter(self)
        log = Log(self.folder, self.step, self.tensorboard) if main else None
        if log is not None:
            self._log_start(log)
        deadline = time.perf_counter() + (60 * minutes if minutes is not None else math.inf)
        shown = main and self.progress
        bar = tqdm(total=steps, initial=self.step, unit="step", mininterval=2, disable=not shown)
        batches = Prefetcher(self._draw, self.step, steps, self.threads)
        self.pace = Pace()
        window = Pace()
        try:
            with StopSignal() as signal:
                while self.step < steps:
                    begin = time.perf_counter()
                    self.losses.append(self._update(batches.take()))
                    self.step += 1
                    bar.update()
                    last = self.step == steps
                    to_log = self.step % self.log_every == 0 or last
                    loss = self._mean_loss() if to_log else 0.0  # waits for the device
                    spent = time.perf_counter() - begin
                    self.seconds += spent
                    for pace in (self.pace, window):
                        pace.add(spent, batches.waited)
                    if to_log:
                        bar.set_postfix(loss=f"{loss:.4f}")
                        if log is not None:
                            log.row(self.step, **self._figures(loss, window))
                        window = Pace()
                    validates = self.validation and (self.step % self.validation.every == 0 or last)
                    if validates:
                        self.save()  # a validation that fails or is killed must not cost steps
                        self._validate(log)
                    stops = self._stops(signal.number is not None or time.perf_counter() > deadline)
                    if stops or validates or self.step % self.save_every == 0 or last:
                        self.save()
                    if stops:
                        self.stopped_by = signal.number
                        break
        finally:
            batches.close()
            bar.close()
            if log is not None:
                log.close()
        return self.step >= steps

    def finish(self) -> Path:
        """Write the averaged weights to ``folder``/model, which ``from_pretrained`` takes; return it."""
        if self.processes.main:
            with self._averaged():
                if self.validation and (self._measured is None or self._measured[0] != self.step):
                    self._measured = self.step, self.validation.measure(self.model)
                self._write_model(FINAL, self._measured[1] if self._measured else None)
        self.processes.wait()
        return self.folder / FINAL

    def state(self) -> dict[str, Any]:
        """Everything that is needed to go on."""
        return collect(self)

    def save(self) -> None:
        """Write the state, unless the weights have gone bad; the old one stays until that is done.

        Raises:
            ClitZooError: a loss or a weight is not finite, or the file cannot be written.
        """
        check_losses(self)
        check_weights(self)
        if self.processes.main:
            save_checkpoint(self.checkpoint, self.state())
        self.processes.wait()

    def restore(self, saved: dict[str, Any]) -> None:
        """Take over ``state``'s result.

        Raises:
            ConfigError: it is another model's or started from something else, or the recipe's optimizer or
                frozen parts differ.
            ClitZooError: it is incomplete.
        """
        try:
            take_over(self, saved)
        except ClitZooError:
            raise
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:100]
            raise ClitZooError(
                f"the state of {self.folder} does not fit this run ({type(error).__name__}: {reason}): move "
                "it away to start anew"
            ) from error

    def _draw(self, step: int) -> list[Batch]:
        parts = [self.drawing.batch(self.photographs, step, part) for part in self.parts]
        return [part.pinned() for part in parts] if self.processes.device.type == "cuda" else parts

    def _update(self, parts: list[Batch]) -> Tensor:
        """One optimizer step; returns the loss, not yet waited for."""
        recipe, device = self.recipe, self.processes.device
        torch.manual_seed(_torch_seed(recipe.seed, self.step, self.processes.rank))
        self.optimizer.set_lr(self._lr_at(self.step))
        for p in self.model.parameters():
            p.grad = None
        total = torch.zeros((), device=device)
        for part in parts:
            batch = part.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16):
                predicted = self.model.decode(self.model.encode(batch.image), batch.where)
            loss = (predicted.float() - batch.target).abs().mean() / len(parts)
            loss.backward()
            total += loss.detach()
        total = self.processes.average(total, self.model.parameters())
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.optimizer.step()
        self.average.update(self.model, self.step)
        return total

    def _lr_at(self, step: int) -> float:
        """The recipe's learning rate, less while an optimizer that has lost its state finds it again."""
        ramp = 1.0 if self.ramp_from is None else min(1.0, (step - self.ramp_from + 1) / 50)
        return self.recipe.lr_at(step) * ramp

    def _mean_loss(self) -> float:
        check_losses(self)
        losses, self.losses = self.losses, []
        return sum(map(float, losses)) / len(losses)

    def _stops(self, asked: bool) -> bool:
        """Whether to stop here: what all processes agree on."""
        if self.processes.count == 1:
            return asked
        return self.step % ASK_EVERY == 0 and self.processes.any(asked)

    def _figures(self, loss: float, pace: Pace) -> dict[str, float]:
        return {
            "loss": round(loss, 6),
            "lr": self._lr_at(self.step - 1),
            "steps_per_s": round(pace.speed, 4),
            "patches_per_s": round(pace.speed * self.recipe.batch, 2),
            "data_share": round(pace.waiting, 4),
        }

    def _log_start(self, log: Log) -> None:
        log.row(
            self.step,
            event="start",
            model=self.model.config.name,
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            recipe=asdict(self.recipe),
            changed=self.changed,
            device=device_name(self.processes.device),
            processes=self.processes.count,
            pictures=len(self.photographs.images),
            skipped=self.photographs.skipped,
        )
        if log.missing:
            tqdm.write(log.missing)
        if self.recipe.degrade and self.step == 0:
            write_picture(self.folder / SAMPLES / "degraded.png", self.drawing.sheet(self.photographs))

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model as it will be used: averaged weights, evaluation mode, nothing compiled for a size."""
        with self.average.applied(self.model), torch.compiler.set_stance("force_eager"):
            self.model.eval()
            try:
                yield
            finally:
                _training_mode(self.model)

    def _validate(self, log: Log | None) -> None:
        """Measure the averaged weights and keep them if they are the best so far."""
        validation = self.validation
        if self.processes.main and validation is not None:
            with self._averaged():
                begin = time.perf_counter()
                results = validation.measure(self.model)
                self._measured = self.step, results
                score = mean_psnr(results)
                if log is not None:
                    seconds = round(time.perf_counter() - begin, 2)
                    log.row(self.step, val=as_row(results), val_seconds=seconds, **skipped_row(results))
                if not self.best or score > self.best["score"]:
                    self._write_model(BEST, results)
                    self.best = {"score": score, "step": self.step, "of": validation.what}
                pixels = validation.sample(self.model)
            if pixels is not None:
                write_picture(self.folder / SAMPLES / f"step_{self.step:07d}.png", pixels)
                if log is not None:
                    log.picture(self.step, "bicubic, model, original", pixels)
        self.processes.wait()

    def _write_model(self, where: str, results: Results | None) -> None:
        card = training_card(self.model.config, self.recipe, told(self), results)
        self.model.save_pretrained(self.folder / where, overwrite=True, card=card)


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, 3) uint8, whole or not at all.

    Raises:
        ClitZooError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClitZooError(f"{path.parent} cannot be made ({error.strerror or error})") from error
    color = torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    write(Picture(color), path)


def _training_mode(model: SuperResolver) -> None:
    """The parts that are trained in training mode; the others compute what they will compute in use.

    SwinIR's stochastic depth would be noise that a frozen encoder cannot learn from.
    """
    model.train()
    for part in model.modules():
        parameters = list(part.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            part.eval()


def device_name(device: torch.device) -> str:
    """A device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU ({threads} thread{'s' * (threads > 1)})" if device.type == "cpu" else device.type


def _describe(run: Run) -> Training:
    return Training(
        start="the weights given",
        data=f"{len(run.photographs.images)} pictures ({run.photographs.megapixels:.3g} megapixels)",
        steps=run.step,
        seconds=run.seconds,
        device=device_name(run.processes.device),
        processes=run.processes.count,
    )


def _torch_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, 2, step, rank)).generate_state(1)[0])
