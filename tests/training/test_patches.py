"""What a step's patches hold, and what they depend on."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_training import PATCH, tensors, tiny_model

from clit_zoo import geometry
from clit_zoo.geometry import Blocks, Coords, Raster, Where
from clit_zoo.training.patches import Batch, Draw
from clit_zoo.training.photographs import Photographs
from clit_zoo.training.recipe import Recipe
from clit_zoo.training.strategies import BLOCK


def draw(photographs: Photographs, step: int, samples=range(4), stages=1, **settings) -> Batch:
    return Draw(Recipe(steps=1, patch=PATCH, **settings), stages).batch(photographs, step, samples)


def coordinates(where: Where) -> torch.Tensor:
    """(B, N, 2), whatever the kind of positions."""
    if isinstance(where, Raster):
        return geometry.raster_coords(where.offset)
    return where.coords.flatten(1, -2)


@pytest.mark.parametrize(("queries", "stages"), [("stratified", 1), ("uniform", 1), ("stratified", 3)])
def test_a_sample_depends_on_seed_step_and_number_alone(photographs, queries, stages):
    whole = draw(photographs, 3, queries=queries, stages=stages)
    part = draw(photographs, 3, [2, 3], queries=queries, stages=stages)
    for a, b in zip(tensors(whole), tensors(part), strict=True):
        assert torch.equal(a[2:], b)
    for other in (
        draw(photographs, 6, queries=queries, stages=stages),
        draw(photographs, 3, queries=queries, stages=stages, seed=1),
    ):
        assert not torch.equal(whole.image, other.image)
    assert not torch.equal(whole.image[0], whole.image[1])


@pytest.mark.parametrize(
    ("queries", "stages", "kind"),
    [("stratified", 1, Raster), ("uniform", 1, Coords), ("stratified", 2, Blocks), ("uniform", 3, Coords)],
)
def test_targets_are_the_pixels_at_the_positions(photographs, monkeypatch, queries, stages, kind):
    """With a picture whose colour is its own position, a target says where it was read."""
    height, width = photographs.images[0].shape[1:]
    ramp = torch.stack(
        [
            torch.arange(height).view(-1, 1).expand(height, width),
            torch.arange(width).expand(height, width),
            torch.zeros(height, width),
        ]
    ).to(torch.uint8)
    monkeypatch.setattr(photographs, "draw", lambda rng, side: ramp)
    batch = draw(photographs, 0, range(8), queries=queries, stages=stages)
    assert isinstance(batch.where, kind) and len(batch.where.maps) == stages
    side = (2 / batch.where.cell[:, 0]).round()
    # low-resolution and high-resolution patch show the same thing: interpolating one gives the other
    coords = coordinates(batch.where).float()
    expected = F.grid_sample(
        batch.image, coords.flip(-1).unsqueeze(1), padding_mode="border", align_corners=False
    ).squeeze(2)
    away_from_borders = (coords.abs() < 0.6).all(-1)
    error = (expected.transpose(1, 2) - batch.target).abs().amax(-1)
    assert float(error[away_from_borders].max()) < 1.5 / 255
    # positions are centres of the output's pixels
    pixel = (coordinates(batch.where) + 1) / 2 * side.view(-1, 1, 1) - 0.5
    assert float((pixel - pixel.round()).abs().max()) < 1e-4


def test_stratified_positions_are_nearest_to_their_pixels(photographs):
    batch = draw(photographs, 0)
    assert batch.where.offset.shape == (4, 1, PATCH, PATCH, 2) and batch.target.shape == (4, PATCH**2, 3)
    assert float(batch.where.offset.abs().max()) <= 0.5
    index = geometry.points(coordinates(batch.where), (PATCH, PATCH)).index
    rows = index[0].view(PATCH, PATCH, 2)[..., 0]
    assert torch.equal(rows, torch.arange(PATCH).view(-1, 1).expand(-1, PATCH))


def test_uniform_positions_are_all_different(photographs):
    batch = draw(photographs, 0, queries="uniform")
    assert len(torch.unique(batch.where.coords[0], dim=0)) == PATCH**2


def test_blocks_cover_the_patch_evenly_and_stay_small(photographs):
    where = draw(photographs, 3, stages=3).where
    assert where.coords.shape == (4, (PATCH // BLOCK) ** 2, BLOCK**2, 2)
    side = where.maps[-1][0]
    index = where.on((side, side)).index.view(4, 4, BLOCK**2, 2)
    assert bool((index.amax(2) - index.amin(2) == BLOCK - 1).all())
    # one block in each quarter
    quarter = (index.float().mean(2) > side / 2).long()
    assert {tuple(q.tolist()) for q in quarter[0]} == {(0, 0), (0, 1), (1, 0), (1, 1)}


@pytest.mark.parametrize("decoder", ["clit", "liif"])
@pytest.mark.parametrize("kind", [Raster, Coords, Blocks])
def test_all_kinds_of_positions_ask_the_same_function(photographs, kind, decoder):
    model = tiny_model(3, decoder=decoder)
    queries, stages = ("uniform", 3) if kind is Coords else ("stratified", 1 if kind is Raster else 3)
    batch = draw(photographs, 0, [0, 1], queries=queries, stages=stages)
    where, encoded = batch.where, model.encode(batch.image)
    expected = model.decode(encoded, Coords(coordinates(where), where.cell, where.maps))
    torch.testing.assert_close(model.decode(encoded, where), expected, rtol=0, atol=1e-5)


def test_batches_move_as_a_whole(photographs):
    batch = draw(photographs, 0, stages=3)
    moved = batch.to(torch.device("meta"))
    assert all(t.is_meta for t in tensors(moved)) and len(tensors(moved)) == 4
    assert moved.where.maps == batch.where.maps and moved.where.span == batch.where.span


def test_factors_are_clipped_to_the_pictures(photographs):
    assert photographs.reach == 120
    products = []
    for step in range(0, 60, 3):
        batch = draw(photographs, step, [0], stages=3)
        products.append(round(2 / float(batch.where.cell[0, 0])))
        assert batch.where.maps[0] == (PATCH, PATCH) and list(batch.where.maps) == sorted(batch.where.maps)
    assert max(products) == 120  # 16 · 4³ would be 1,024
    scales = [float(2 / c / PATCH) for c in draw(photographs, 1, range(200), stages=3).where.cell[:, 0]]
    assert 1 <= min(scales) < 1.2 and 3.8 < max(scales) <= 4
    assert len(set(np.round(scales, 6))) > 30  # one stage: every patch has its own scale
