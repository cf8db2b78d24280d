"""The paper's tables as data: spot figures from each, and the ways to look them up."""

import pytest

from clit_zoo.evaluation import paper


@pytest.mark.parametrize(
    ("dataset", "scale", "model", "value"),
    [
        ("DIV2K", 2, "bicubic", 31.01),
        ("DIV2K", 30, "edsr-clit", 20.54),
        ("DIV2K_valid_HR", 12, "RDN-CLIT", 24.01),
        ("Set5", 8, "swinir-clit", 27.56),
        ("set14", 2, "rdn-clit", 34.21),
        ("BSDS100", 4, "swinir-lte", 27.86),
        ("DIV2K", 8, "edsr-lit", 25.48),
    ],
)
def test_figures(dataset, scale, model, value):
    assert paper.rows_of_model(model, dataset)[0].psnr[scale] == value


@pytest.mark.parametrize(
    ("dataset", "model"),
    [("Set5", "edsr-light-lit"), ("Set5", "bicubic"), ("my holiday", "bicubic"), ("Set5", "rdn")],
)
def test_what_the_paper_does_not_report_has_no_rows(dataset, model):
    assert paper.rows_of_model(model, dataset) == []


def test_a_scale_without_a_figure_is_left_out():
    (row,) = [row for row in paper.rows("DIV2K") if row.method == "EDSR-baseline"]
    assert list(row.psnr) == [2, 3, 4]


def test_every_row_is_whole_and_falls_with_the_scale():
    assert len(paper.ROWS) == 18 + 3 * 12 + 4
    for row in paper.ROWS:
        values = list(row.psnr.values())
        assert values == sorted(values, reverse=True), row
        assert list(row.psnr)[:3] == [2, 3, 4], row


def test_rows_are_narrowed():
    names = [row.method for row in paper.rows("Set5", encoder="rdn")]
    assert names[0] == "RDN"
    assert names[-1] == "RDN-CLIT"
    assert len(names) == 7
    assert [row.table for row in paper.rows("DIV2K", decoder="lit")] == [5, 5, 5, 5]
    assert {row.encoder for row in paper.rows("DIV2K", decoder="clit")} == {"edsr", "rdn", "swinir"}
    assert paper.rows("Urban100") == []
