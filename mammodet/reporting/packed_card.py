"""The card of a packed model as Markdown."""

from collections.abc import Sequence

from mammodet.models.card import Figure, FrocPoint, ModelCard
from mammodet.reporting.tables import escape


def packed_card(card: ModelCard, facts: Sequence[tuple[str, str]] = ()) -> str:
    """The card as Markdown, with facts (name and value) of the file itself; everything in it is escaped."""
    lines = [f"# {escape(card.title)}", "", f"Finds {escape(card.finds)} on {escape(card.images)}."]
    lines += _list("Intended use", card.intended_use)
    data = [
        f"{one.name}, {one.licence}. {one.citation}{f' {one.url}' if one.url else ''}" for one in card.training_data
    ]
    lines += _list("Training data", data)
    lines += _figures(card)
    lines += _list("Known failures", card.known_failures)
    lines += _list("Notes", card.notes)
    lines += _list("The file", [f"{name}: {value}" for name, value in facts])
    return "\n".join(lines) + "\n"


def _list(title: str, items: Sequence[str]) -> list[str]:
    return ["", f"## {title}", "", *(f"- {escape(item)}" for item in items)] if items else []


def _figures(card: ModelCard) -> list[str]:
    if card.evaluated_on is None:
        return ["", "## Figures", "", "Nothing was measured."]
    lines = ["", "## Figures", "", f"On {escape(card.evaluated_on)}.", ""]
    if card.froc is not None:
        lines += [_operating_point(card.froc), ""]
    lines += ["| figure | value | 95 % interval |", "| --- | ---: | ---: |"]
    return [*lines, *(_row(figure) for figure in card.figures)]


def _operating_point(froc: FrocPoint) -> str:
    threshold = (
        f" Detections from a score of {froc.score_threshold:.3f} on are at this point." if froc.score_threshold else ""
    )
    return escape(
        f"At {froc.rate} it finds {froc.sensitivity:.3f} of the lesions (match "
        f"{froc.match}, over {froc.denominator}).{threshold}"
    )


def _row(figure: Figure) -> str:
    interval = f"{figure.ci95[0]:.3f} to {figure.ci95[1]:.3f}" if figure.ci95 else ""
    return f"| {escape(figure.name)} | {figure.value:.3f} | {interval} |"
