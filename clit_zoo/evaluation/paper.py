"""Tables 1, 2 and 5 of the CLIT paper, to print beside measured figures.

Chen et al., "Cascaded Local Implicit Transformer for Arbitrary-Scale Super-Resolution", CVPR 2023,
arXiv:2303.16513. All figures are PSNR in dB: of RGB on the DIV2K validation set, of luminance on the others.
The Urban100 block of Table 2 is not transcribed here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of one table, for one dataset."""

    table: int
    dataset: str
    method: str  # as the paper prints it
    encoder: str | None  # "edsr", "rdn", "swinir" as this library calls them; None for bicubic
    decoder: str | None  # "clit", "lit", "liif" …; None for bicubic and fixed-scale models
    psnr: dict[float, float]  # scale -> dB


DATASETS = ("DIV2K", "Set5", "Set14", "B100", "Urban100")

_ENCODERS = {"EDSR-baseline": "edsr", "RDN": "rdn", "SwinIR": "swinir"}

_TABLE_1 = """
                              2     3     4     6    12    18    24    30
Bicubic                   31.01 28.22 26.66 24.82 22.27 21.00 20.19 19.59
EDSR-baseline             34.55 30.90 28.94     -     -     -     -     -
EDSR-baseline-Meta-SR     34.64 30.93 28.92 26.61 23.55 22.03 21.06 20.37
EDSR-baseline-LIIF        34.67 30.96 29.00 26.75 23.71 22.17 21.18 20.48
EDSR-baseline-UltraSR     34.69 31.02 29.05 26.81 23.75 22.21 21.21 20.51
EDSR-baseline-IPE         34.72 31.01 29.04 26.79 23.75 22.21 21.22 20.51
EDSR-baseline-LTE         34.72 31.02 29.04 26.81 23.78 22.23 21.24 20.53
EDSR-baseline-CLIT        34.82 31.14 29.17 26.93 23.85 22.30 21.27 20.54
RDN-Meta-SR               35.00 31.27 29.25 26.88 23.73 22.18 21.17 20.47
RDN-LIIF                  34.99 31.26 29.27 26.99 23.89 22.34 21.31 20.59
RDN-UltraSR               35.00 31.30 29.32 27.03 23.73 22.36 21.33 20.61
RDN-IPE                   35.04 31.32 29.32 27.04 23.93 22.38 21.34 20.63
RDN-LTE                   35.04 31.32 29.33 27.04 23.95 22.40 21.36 20.64
RDN-CLIT                  35.10 31.38 29.40 27.12 24.01 22.45 21.38 20.64
SwinIR-Meta-SR            35.15 31.40 29.33 26.94 23.80 22.26 21.26 20.54
SwinIR-LIIF               35.17 31.46 29.46 27.15 24.02 22.43 21.40 20.67
SwinIR-LTE                35.24 31.50 29.51 27.20 24.09 22.50 21.47 20.73
SwinIR-CLIT               35.31 31.57 29.56 27.27 24.14 22.53 21.48 20.71
"""

_TABLE_2 = {
    "Set5": """
                              2     3     4     6     8
RDN                       38.24 34.71 32.47     -     -
RDN-Meta-SR               38.22 34.63 32.38 29.04 26.96
RDN-LIIF                  38.17 34.68 32.50 29.15 27.14
RDN-UltraSR               38.21 34.67 32.49 29.33 27.24
RDN-IPE                   38.11 34.68 32.51 29.25 27.22
RDN-LTE                   38.23 34.72 32.61 29.32 27.26
RDN-CLIT                  38.26 34.80 32.69 29.39 27.34
SwinIR                    38.35 34.89 32.72     -     -
SwinIR-Meta-SR            38.26 34.77 32.47 29.09 27.02
SwinIR-LIIF               38.28 34.87 32.73 29.46 27.36
SwinIR-LTE                38.33 34.89 32.81 29.50 27.35
SwinIR-CLIT               38.40 34.96 32.88 29.69 27.56
""",
    "Set14": """
                              2     3     4     6     8
RDN                       34.01 30.57 28.81     -     -
RDN-Meta-SR               33.98 30.54 28.78 26.51 24.97
RDN-LIIF                  33.97 30.53 28.80 26.64 25.15
RDN-UltraSR               33.97 30.59 28.86 26.69 25.25
RDN-IPE                   33.94 30.47 28.75 26.58 25.09
RDN-LTE                   34.09 30.58 28.88 26.71 25.16
RDN-CLIT                  34.21 30.66 28.98 26.83 25.35
SwinIR                    34.14 30.77 28.94     -     -
SwinIR-Meta-SR            34.14 30.66 28.85 26.58 25.09
SwinIR-LIIF               34.14 30.75 28.98 26.82 25.34
SwinIR-LTE                34.25 30.80 29.06 26.86 25.42
SwinIR-CLIT               34.31 30.85 29.09 26.97 25.47
""",
    "B100": """
                              2     3     4     6     8
RDN                       32.34 29.26 27.72     -     -
RDN-Meta-SR               32.33 29.26 27.71 25.90 24.83
RDN-LIIF                  32.32 29.26 27.74 25.98 24.91
RDN-UltraSR               32.35 29.29 27.77 26.01 24.96
RDN-IPE                   32.31 29.28 27.76 26.00 24.93
RDN-LTE                   32.36 29.30 27.77 26.01 24.95
RDN-CLIT                  32.39 29.34 27.82 26.07 25.00
SwinIR                    32.44 29.37 27.83     -     -
SwinIR-Meta-SR            32.39 29.31 27.75 25.94 24.86
SwinIR-LIIF               32.39 29.34 27.84 26.07 25.01
SwinIR-LTE                32.44 29.39 27.86 26.09 25.03
SwinIR-CLIT               32.49 29.43 27.92 26.15 25.08
""",
}

# One LIT on EDSR-baseline, trained in four ways. The first is the plain LIT of Tables 3 and 4 too.
_TABLE_5 = """
                              2     3     4     6     8    12
U(1,4)                    34.79 31.08 29.10 26.84 25.48 23.79
U(1,12)                   34.72 31.07 29.13 26.89 25.53 23.83
alternative               34.75 31.09 29.13 26.89 25.54 23.84
cumulative                34.78 31.11 29.15 26.90 25.53 23.83
"""


def _lines(text: str) -> list[tuple[str, dict[float, float]]]:
    head, *body = text.strip("\n").splitlines()
    scales = [float(s) for s in head.split()]
    split = [line.split() for line in body]
    return [(name, {s: float(v) for s, v in zip(scales, values) if v != "-"}) for name, *values in split]


def _parts(method: str) -> tuple[str | None, str | None]:
    """The encoder and decoder in a name such as RDN-Meta-SR."""
    for printed, encoder in _ENCODERS.items():
        if method == printed:
            return encoder, None
        if method.startswith(printed + "-"):
            return encoder, method.removeprefix(printed + "-").lower()
    return None, None


def _rows() -> tuple[Row, ...]:
    rows = [Row(1, "DIV2K", name, *_parts(name), psnr) for name, psnr in _lines(_TABLE_1)]
    for dataset, text in _TABLE_2.items():
        rows += [Row(2, dataset, name, *_parts(name), psnr) for name, psnr in _lines(text)]
    for strategy, psnr in _lines(_TABLE_5):
        rows.append(Row(5, "DIV2K", f"EDSR-baseline-LIT, {strategy}", "edsr", "lit", psnr))
    return tuple(rows)


ROWS = _rows()


def dataset_name(text: str) -> str | None:
    """The paper's name for a dataset in another usual spelling ("DIV2K_valid_HR", "bsds100"), else None."""
    key = "".join(c for c in text.lower() if c.isalnum())
    if key.startswith("div2k"):
        return "DIV2K"
    key = {"bsd100": "b100", "bsds100": "b100"}.get(key, key)
    return next((name for name in DATASETS if name.lower() == key), None)


def rows(
    dataset: str, *, encoder: str | None = None, decoder: str | None = None, table: int | None = None
) -> list[Row]:
    """The paper's rows for a dataset (any usual spelling), in its order, narrowed by what is given."""
    name = dataset_name(dataset)
    wanted = {"encoder": encoder, "decoder": decoder, "table": table}
    return [
        row
        for row in ROWS
        if row.dataset == name and all(v is None or getattr(row, key) == v for key, v in wanted.items())
    ]


def rows_of_model(model: str, dataset: str) -> list[Row]:
    """The rows that report this very model ("rdn-clit", "edsr-lit", "bicubic"); empty where there is none.

    ``edsr-lit`` has no row in Tables 1 and 2; Table 5's four ways of training it stand for it.
    """
    if model.lower() == "bicubic":
        return [row for row in rows(dataset) if row.method == "Bicubic"]
    encoder, _, decoder = model.lower().partition("-")
    return rows(dataset, encoder=encoder, decoder=decoder) if decoder else []
