"""The published tables: spot figures from each, and the ways to look them up."""

import pytest

from clit_zoo.evaluation import published


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
        ("DIV2K", 12, "rdn-ultrasr", 23.93),
        ("Set5", 12, "rdn-itsrn", 24.86),
        ("B100", 12, "swinir-ciaosr", 23.68),
        ("DIV2K", 6, "edsr-msit", 26.94),
        ("Set14", 3, "rdn-msit", 30.70),
        ("urban100", 8, "swinir-meta-sr", 22.75),
        ("Manga109", 4, "rdn-lte", 31.30),
    ],
)
def test_figures(dataset, scale, model, value):
    assert published.rows_of_model(model, dataset)[0].psnr[scale] == value


@pytest.mark.parametrize(
    ("dataset", "model"),
    [("Set5", "edsr-light-lit"), ("Set5", "bicubic"), ("my holiday", "bicubic"), ("Set5", "rdn")],
)
def test_what_no_paper_reports_has_no_rows(dataset, model):
    assert published.rows_of_model(model, dataset) == []


def test_a_scale_without_a_figure_is_left_out():
    (row,) = [row for row in published.rows("DIV2K") if row.method == "EDSR-baseline"]
    assert list(row.psnr) == [2, 3, 4]


def test_every_row_is_whole_and_falls_with_the_scale():
    assert len(published.ROWS) == 18 + 4 + 10 + 4 + 2 + 3 * (12 + 4 + 1) + (1 + 12 + 1 + 1) + (11 + 1 + 1)
    for row in published.ROWS:
        values = list(row.psnr.values())
        assert values == sorted(values, reverse=True), row
        assert list(row.psnr)[:3] == [2, 3, 4], row


def test_rows_are_narrowed():
    names = [row.method for row in published.rows("Set5", encoder="rdn")]
    assert names[0] == "RDN"
    assert names[-4:] == ["RDN-CLIT", "RDN-ITSRN", "RDN-CiaoSR", "RDN-MSIT"]
    assert len(names) == 10
    assert [row.source for row in published.rows("DIV2K", decoder="lit")] == 4 * ["CLIT, Table 5"]
    assert {row.encoder for row in published.rows("DIV2K", decoder="clit")} == {"edsr", "rdn", "swinir"}
    assert len(published.rows("DIV2K", source="Thera, Table 1")) == 4
    assert published.rows("holiday") == []


@pytest.mark.parametrize(
    ("model", "dataset", "methods"),
    [
        ("rdn-clit", "Set5", ["RDN-CLIT"]),
        ("rdn-metasr", "Set5", ["RDN-Meta-SR"]),
        ("edsr-light-liif", "Set5", ["RDN-LIIF", "SwinIR-LIIF"]),
        ("edsr-light-clit", "Set5", ["RDN-CLIT", "SwinIR-CLIT"]),
        ("edsr-light-lit", "Set5", ["RDN-CLIT", "SwinIR-CLIT"]),
        ("mine", "DIV2K", ["Bicubic", "EDSR-baseline-CLIT", "RDN-CLIT", "SwinIR-CLIT"]),
        ("mine", "holiday", []),
    ],
)
def test_a_model_stands_beside_its_own_decoder(model, dataset, methods):
    assert [row.method for row in published.rows_beside(model, dataset)] == methods
