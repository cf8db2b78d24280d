"""Training: what ``clit-zoo train`` does, for Python.

>>> from clit_zoo.training import Recipe, train
>>> train("edsr-light-lit", "photographs/", "run/", Recipe(steps=1000, batch=8))

One idea per file; in reading order:

    strategies.py    which scales a step trains
    losses.py        what it minimises
    optim.py         optimizers, schedules, the average of the weights
    cascade.py       stages of a CLIT decoder: added, copied, frozen
    recipe.py        every setting that changes the weights that come out
    photographs.py   the pictures, decoded once
    degrade.py       patches as people's pictures are: blurred, noisy, compressed
    drawings.py      made-up text and lines
    patches.py       patches and positions, drawn by (seed, step, sample)
    prefetch.py      drawn ahead in threads
    checkpoint.py    the file
    state.py         what is in it: everything that is needed to go on
    log.py           pace, log.jsonl, TensorBoard
    validation.py    measuring on the way
    card.py          what a model card says of a run
    processes.py     torchrun's processes; stopping on a signal
    run.py           the steps
    start.py         the model that a run starts from
    train.py         all of it, from a name and a folder

Everything random in step t comes from (seed, t), and in a patch from (seed, t, its number in the batch). So a
run that is killed goes on bit for bit, and several processes see what one would see. Draw nothing from a
global generator.
"""

from .photographs import Photographs
from .recipe import Recipe
from .run import Run
from .start import starting_model
from .train import train
from .validation import Validation

__all__ = ["Photographs", "Recipe", "Run", "Validation", "starting_model", "train"]
