"""What the name of a folder says of the images in it, where it says it plainly.

A name is understood only when every word of it is: a word that is not known may turn the others round. `non-cancer`,
`tumor free` and `benign_without_callback` are known phrases; `suspected cancer` or `abnormal` are not understood.
"""

import re
import unicodedata
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a class says of its images; None where it says nothing."""

    tumor: int | None = None
    malignant: int | None = None
    density: str | None = None
    birads: str | None = None

    def __str__(self) -> str:
        """`tumor 1, malignant 0`, or `nothing`."""
        told = [f"{name} {value}" for name, value in asdict(self).items() if value is not None]
        return ", ".join(told) or "nothing"

    def agrees(self, other: "Meaning") -> bool:
        """Whether no part of one contradicts the other."""
        pairs = [(getattr(self, part.name), getattr(other, part.name)) for part in fields(self)]
        return all(mine == its or None in (mine, its) for mine, its in pairs)

    def joined(self, other: "Meaning") -> "Meaning":
        """Both together; they agree."""
        return Meaning(
            *(getattr(other if getattr(self, part.name) is None else self, part.name) for part in fields(self))
        )


_MALIGNANT, _TUMOR = Meaning(1, 1), Meaning(1, None)
_WORDS: dict[str, Meaning] = {
    **dict.fromkeys(("benign", "benigns"), Meaning(1, 0)),
    **dict.fromkeys(("malignant", "malignants", "malign", "cancer", "cancers", "cancerous", "carcinoma"), _MALIGNANT),
    **dict.fromkeys(("tumor", "tumors", "tumour", "tumours"), _TUMOR),
    **dict.fromkeys(("normal", "normals", "healthy"), Meaning(0, 0)),
}
#: By what is denied. What is no cancer may be benign, or nothing; what is not benign or not normal is not told.
_DENIED: dict[Meaning, Meaning] = {_MALIGNANT: Meaning(None, 0), _TUMOR: Meaning(0, 0)}

_NO = ("no", "non", "not", "without")
_FREE = ("free", "negative")
#: Words that change nothing.
_NEUTRAL = re.compile(
    r"mass(es)?|lesions?|findings?|calc(s|ifications?)?|cases?|patients?|breasts?|mammo(grams?|graphy)?|tissue|im(age|g)s?"
    r"|patch(es)?|rois?|class|data(set)?|set|positive|\d+"
)
_DENSITY = re.compile(r"(?<![^\W\d_])density[\W_]*([1-4](?!\d)|[a-d](?![^\W\d_]))")
_BIRADS = re.compile(r"(?<![^\W\d_])bi[\W_]*rads[\W_]*([0-6][abc]?)(?![^\W_])")


def fold_name(name: str) -> str:
    """A name as two are compared: without case, and with one blank for blanks, `_` and `-`."""
    return " ".join(re.split(r"[\s_\-]+", unicodedata.normalize("NFC", name).casefold())).strip()


def without_numbers(name: str) -> tuple[tuple[str, ...], str]:
    """What is left of a name without the numbers that it does not explain: density and BI-RADS, and the other words.

    >>> without_numbers("cancer_01"), without_numbers("Density2 benign")
    (((), 'cancer'), (('2',), 'benign'))
    """
    text = fold_name(name)
    told: list[str] = []
    for pattern in (_DENSITY, _BIRADS):
        told += pattern.findall(text)
        text = pattern.sub(" ", text)
    return tuple(told), " ".join(re.findall(r"[^\W\d_]+", text))


def read_name(name: str) -> Meaning | None:
    """What a folder's name says; None where it is not understood, or contradicts itself.

    >>> str(read_name("Density1Benign")), str(read_name("non-cancer"))
    ('tumor 1, malignant 0, density 1', 'malignant 0')
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFC", name)).casefold()
    meaning = Meaning()
    for pattern, key in ((_DENSITY, "density"), (_BIRADS, "birads")):
        found = pattern.findall(text)
        if len(found) > 1:
            return None
        if found:
            value = found[0].upper()
            meaning = meaning.joined(Meaning(density=value) if key == "density" else Meaning(birads=value))
            text = pattern.sub(" ", text)
    for statement in _statements(re.findall(r"[^\W\d_]+|\d+", text)):
        if statement is None or not meaning.agrees(statement):
            return None
        meaning = meaning.joined(statement)
    return None if meaning == Meaning() else meaning


def _statements(words: list[str]) -> list[Meaning | None]:
    """What the words say one after another; None for what is not understood."""
    if "benign" in words and words[-2:] == ["without", "callback"]:
        words = words[:-2]
    statements: list[Meaning | None] = []
    denied = False
    for place, word in enumerate(words):
        if word in _NO and not denied:
            denied = True
        elif _NEUTRAL.fullmatch(word):
            if denied and word != "breast":  # `no calcification malignant mass`
                statements.append(None)
        elif word not in _FREE or words[place - 1 : place] == [] or _stem_meaning(words[place - 1]) is None:
            said = _stem_meaning(word)
            free = words[place + 1 : place + 2] and words[place + 1] in _FREE
            denials = denied + (word not in _WORDS) + bool(free)
            if said is not None and denials:
                said = _DENIED.get(said) if denials == 1 else None
            statements.append(said)
            denied = False
    return [*statements, None] if denied else statements


def _stem_meaning(word: str) -> Meaning | None:
    """The meaning of a word that is known, or of `noncancer` without its `non`; None where it is neither."""
    if word in _WORDS:
        return _WORDS[word]
    return next((_WORDS[word.removeprefix(no)] for no in _NO if word.removeprefix(no) in _WORDS), None)
