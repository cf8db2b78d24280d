"""Published figures to print beside measured ones: PSNR in dB, from the tables in ``published.txt``.

CLIT: Chen et al., "Cascaded Local Implicit Transformer for Arbitrary-Scale Super-Resolution", CVPR 2023,
arXiv:2303.16513. CiaoSR: Cao et al., CVPR 2023. Thera: Becker et al., 2023, arXiv:2311.17643, which reports
CiaoSR and MSIT too. UltraSR: Xu et al., 2021.
"""

from dataclasses import dataclass
from importlib.resources import files

_ENCODERS = {"EDSR-baseline": "edsr", "RDN": "rdn", "SwinIR": "swinir"}


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        dataset: as the papers call it.
        source: where it is printed.
        method: as it is printed.
        encoder: "edsr", "rdn", "swinir" as this library calls them; None for bicubic.
        decoder: "clit", "lit", "liif", "metasr" …; None for bicubic and models of one scale.
        psnr: dB by scale.
    """

    dataset: str
    source: str
    method: str
    encoder: str | None
    decoder: str | None
    psnr: dict[float, float]


def _read(text: str) -> tuple[Row, ...]:
    found = []
    for line in text.splitlines():
        if "|" in line:
            dataset, source, scales = (part.strip() for part in line.split("|"))
        elif line and not line.startswith("#"):
            method, *figures = line.rsplit(maxsplit=len(scales.split()))
            pairs = zip(map(float, scales.split()), figures, strict=True)
            psnr = {scale: float(figure) for scale, figure in pairs if figure != "-"}
            found.append(Row(dataset, source, method, *_parts(method), psnr))
    return tuple(found)


def _parts(method: str) -> tuple[str | None, str | None]:
    """The encoder and decoder in a name such as "RDN-Meta-SR" or "EDSR-baseline-LIT, U(1,4)"."""
    name = method.split(",")[0]
    for printed, encoder in _ENCODERS.items():
        if name == printed or name.startswith(printed + "-"):
            return encoder, _plain(name.removeprefix(printed)) or None
    return None, None


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


ROWS = _read(files(__package__).joinpath("published.txt").read_text(encoding="utf-8"))
DATASETS = tuple(dict.fromkeys(row.dataset for row in ROWS))


def dataset_name(text: str) -> str | None:
    """The papers' name for a dataset in another usual spelling ("DIV2K_valid_HR", "bsds100"), else None."""
    key = _plain(text)
    if key.startswith("div2k"):
        return "DIV2K"
    key = {"bsd100": "b100", "bsds100": "b100"}.get(key, key)
    return next((name for name in DATASETS if name.lower() == key), None)


def rows(
    dataset: str, *, encoder: str | None = None, decoder: str | None = None, source: str | None = None
) -> list[Row]:
    """The rows of a dataset (any usual spelling), in their order, narrowed by what is given."""
    wanted = {"dataset": dataset_name(dataset), "encoder": encoder, "decoder": decoder, "source": source}
    wanted = {key: value for key, value in wanted.items() if value is not None or key == "dataset"}
    return [row for row in ROWS if all(getattr(row, key) == value for key, value in wanted.items())]


def rows_of_model(model: str, dataset: str) -> list[Row]:
    """The rows that report this very model ("rdn-clit", "edsr-lit", "bicubic"); empty where there is none.

    ``edsr-lit`` has none but Table 5's, of four ways of training it.
    """
    if model.lower() == "bicubic":
        return [row for row in rows(dataset) if row.method == "Bicubic"]
    encoder, _, decoder = model.lower().partition("-")
    return rows(dataset, encoder=encoder, decoder=_plain(decoder)) if decoder else []


def rows_beside(model: str, dataset: str) -> list[Row]:
    """The rows to compare a model with: its own; else those of its decoder; else CLIT's, and bicubic's.

    The decoder is the last part of the name: "edsr-light-liif" stands beside all of LIIF.
    """
    decoder = rows(dataset, decoder=_plain(model.rpartition("-")[2]))
    return rows_of_model(model, dataset) or (
        rows_of_model("bicubic", dataset) + (decoder or rows(dataset, decoder="clit"))
    )
