"""Captions of composed scenes: sentences that name every object, with the character span of each phrase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ragaf_exp.core.types import SceneObject

RELATIONS: dict[str, tuple[int, int]] = {  # words -> (axis 0 = x, 1 = y; sign of the walk along it)
    "left of": (0, 1),
    "right of": (0, -1),
    "above": (1, 1),
    "below": (1, -1),
}


_A_ANYWAY = ("uni", "ufo", "eu", "ewe", "one", "use")  # a vowel is written, a consonant is heard
_AN_ANYWAY = ("hour", "x-ray", "honest", "heir")
_HEAD_ENDS = (" with ", " of ", " over ", " behind ", " and ")  # what follows isn't the noun that counts


def article(words: str) -> str:
    """The words with their indefinite article."""
    word = words.lower()
    vowel = word.startswith(_AN_ANYWAY) or (word[:1] in set("aeiou") and not word.startswith(_A_ANYWAY))
    return f"{'an' if vowel else 'a'} {words}"


def counted(words: str) -> str:
    """The words with an article, or without one where they look like a plural ('grapes', but not 'bus')."""
    head = words
    for end in _HEAD_ENDS:
        head = head.split(end)[0]
    plural = head.endswith("s") and not head.endswith(("ss", "us", "is", "os"))
    return words if plural else article(words)


def object_phrase(shape: str, colour: str, fill: str = "plain") -> str:
    """'a striped blue star'; a plain fill and an empty colour go unsaid."""
    return article(" ".join(word for word in ("" if fill == "plain" else fill, colour, shape) if word))


def join_phrases(
    phrases: Sequence[str], links: Sequence[str], before: str = "", after: str = ""
) -> tuple[str, list[tuple[int, int]]]:
    """`before`, the phrases with a link between each two, `after`; and each phrase's [start, end)."""
    text, spans = before, []
    for i, phrase in enumerate(phrases):
        text += links[i - 1] if i else ""
        spans.append((len(text), len(text) + len(phrase)))
        text += phrase
    return text + after, spans


def relation_caption(
    phrases: Sequence[str], relation: str, background: str, template: int
) -> tuple[str, list[tuple[int, int]]]:
    """Objects chained by one relation; template 0 to 2 says where the background is named."""
    ground = article(background)
    frames = (
        ("", f" on {ground} background"),
        (f"on {ground} background, ", ""),
        (f"{ground} background with ", ""),
    )
    return join_phrases(phrases, [f" {relation} "] * (len(phrases) - 1), *frames[template])


def list_caption(phrases: Sequence[str], background: str) -> tuple[str, list[tuple[int, int]]]:
    """'a red apple, a blue mailbox and a green key on a beige background'."""
    links = [", "] * (len(phrases) - 2) + [" and "]
    return join_phrases(phrases, links, after=f" on {article(background)} background")


def annotate(
    things: Sequence[tuple[str, str, str]],
    spans: Sequence[tuple[int, int]],
    heldout: Mapping[str, str] | None = None,
) -> tuple[SceneObject, ...]:
    """Objects from (shape, colour, fill) and spans in caption order, labelled from 1. heldout: shape to
    colour.
    """
    shapes = [shape for shape, _, _ in things]
    return tuple(
        SceneObject(
            label,
            shape,
            colour,
            fill,
            span,
            heldout=(heldout or {}).get(shape) == colour,
            repeated=shapes.count(shape) > 1,
        )
        for label, ((shape, colour, fill), span) in enumerate(zip(things, spans, strict=True), 1)
    )
