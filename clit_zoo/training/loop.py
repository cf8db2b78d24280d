"""The training loop: L1 on drawn positions, checkpoints that survive, an average that is what gets saved."""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..model import SuperResolver
from .data import Batch, Photographs, draw_batch
from .optim import OPTIMIZERS, SCHEDULES, Average


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. The defaults are the paper's first stage (section 4.1), but for the schedule's length.

    Attributes:
        steps: optimizer steps in all; the schedule ends there.
        batch: patches a step; patch: their low-resolution side in pixels.
        scales: each patch's scale is uniform in this range.
        lr: top learning rate; warmup: steps to reach it (not with "halving").
        optimizer: "adam" or "muon"; schedule: "halving", "cosine" or "trapezoid".
        clip: largest gradient norm, 0 for none. ema: decay of the average that is saved.
        bf16: compute in bfloat16 under autocast. compile: compile the forward pass.
        seed: of weights, patches and positions.
    """

    steps: int
    batch: int = 32
    patch: int = 48
    scales: tuple[float, float] = (1.0, 4.0)
    lr: float = 1e-4
    warmup: int = 0
    optimizer: str = "adam"
    schedule: str = "halving"
    clip: float = 0.0
    ema: float = 0.999
    bf16: bool = False
    compile: bool = False
    seed: int = 0


class Run:
    """One training run in a folder: log.jsonl, checkpoint.pt. Started again, it goes on where it stopped."""

    def __init__(self, model: SuperResolver, recipe: Recipe, photographs: Photographs, folder: Path):
        self.model, self.recipe, self.photographs, self.folder = model, recipe, photographs, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.optimizer = OPTIMIZERS[recipe.optimizer](model, recipe.lr)
        self.average = Average(model, recipe.ema)
        self.step = 0
        self.checkpoint = folder / "checkpoint.pt"
        if self.checkpoint.exists():
            self._resume()
        query: Any = model.query_raster
        self.query = torch.compile(query) if recipe.compile else query

    def train(self, save_every: int = 200) -> None:
        """Run the steps that are left, saving the state every ``save_every`` of them and at the end."""
        recipe, device = self.recipe, self.model.device
        self.model.train()
        bar = tqdm(total=recipe.steps, initial=self.step, unit="step", mininterval=5)
        waited, since, started, losses = 0.0, self.step, time.perf_counter(), []
        while self.step < recipe.steps:
            begin = time.perf_counter()
            batch = draw_batch(
                self.photographs, seed=recipe.seed, step=self.step, rank=0,
                batch=recipe.batch, patch=recipe.patch, scales=recipe.scales,
            )  # fmt: skip
            waited += time.perf_counter() - begin
            losses.append(self._update(batch, device))
            self.step += 1
            bar.update()
            if self.step % 50 == 0 or self.step == recipe.steps:
                elapsed = time.perf_counter() - started
                row = {
                    "step": self.step,
                    "loss": round(sum(losses) / len(losses), 6),
                    "lr": recipe.lr * SCHEDULES[recipe.schedule](self.step, recipe.steps, recipe.warmup),
                    "steps_per_s": round((self.step - since) / elapsed, 4),
                    "data_share": round(waited / elapsed, 4),
                }
                self._log(row)
                bar.set_postfix(loss=row["loss"])
                waited, since, started, losses = 0.0, self.step, time.perf_counter(), []
            if self.step % save_every == 0 or self.step == recipe.steps:
                self.save()
        bar.close()

    def _update(self, batch: Batch, device: torch.device) -> float:
        recipe = self.recipe
        self.optimizer.set_lr(recipe.lr * SCHEDULES[recipe.schedule](self.step, recipe.steps, recipe.warmup))
        image, target, cell = (t.to(device) for t in (batch.image, batch.target, batch.cell))
        raster = batch.raster._replace(offset=batch.raster.offset.to(device))
        size = (recipe.patch, recipe.patch)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16):
            predicted = self.query(image, raster, cell, [size])
        loss = (predicted.float() - target).abs().mean()
        for p in self.model.parameters():
            p.grad = None
        loss.backward()
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.optimizer.step()
        self.average.update(self.model, self.step)
        return float(loss.detach())

    def averaged(self) -> dict[str, Tensor]:
        """The averaged weights, as a state dict."""
        return {**self.model.state_dict(), **self.average.shadow}

    def save(self) -> None:
        """Write the whole state, or leave the old one untouched."""
        state = {
            "recipe": asdict(self.recipe),
            "config": self.model.config.to_dict(),
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.shadow,
            "optimizer": self.optimizer.state_dict(),
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.checkpoint)

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.shadow = state["average"]
        self.step = state["step"]

    def _log(self, row: dict) -> None:
        with open(self.folder / "log.jsonl", "a") as log:
            log.write(json.dumps(row) + "\n")
