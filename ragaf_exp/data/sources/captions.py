"""Captions of composed scenes: sentences that name every object, with the character span of each phrase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ragaf_exp.core.types import SceneObject

RELATIONS: dict[str, tuple[int, int]] = {  # relation -> (axis 0 = x, 1 = y; direction along it)
    "left of": (0, 1),
    "right of": (0, -1),
    "above": (1, 1),
    "below": (1, -1),
}


def relations_along(steps: Sequence[float], least: float) -> list[str]:
    """List the relations that hold between all neighbours, given their smallest steps along x and y."""
    return [name for name, (axis, _) in RELATIONS.items() if steps[axis] >= least]


_A_ANYWAY = ("uni", "ufo", "eu", "ewe", "one", "use")  # spelled with a vowel, pronounced with a consonant
_AN_ANYWAY = ("hour", "x-ray", "honest", "heir")
_HEAD_ENDS = (" with ", " of ", " over ", " behind ", " and ")  # the head noun ends here


def article(noun_phrase: str) -> str:
    """Put the indefinite article before a noun phrase."""
    lower = noun_phrase.lower()
    vowel = lower.startswith(_AN_ANYWAY) or (lower[:1] in set("aeiou") and not lower.startswith(_A_ANYWAY))
    return f"{'an' if vowel else 'a'} {noun_phrase}"


def counted(noun_phrase: str) -> str:
    """Put the indefinite article before a noun phrase, unless it looks like a plural ('grapes', but not 'bus')."""
    head = noun_phrase
    for end in _HEAD_ENDS:
        head = head.split(end)[0]
    plural = head.endswith("s") and not head.endswith(("ss", "us", "is", "os"))
    return noun_phrase if plural else article(noun_phrase)


def object_phrase(shape: str, colour: str, fill: str = "plain") -> str:
    """Name an object, as 'a striped blue star'.

    Args:
        shape: The noun.
        colour: The colour's name, or "" for none.
        fill: The fill's name; "plain" is omitted.
    """
    return article(" ".join(word for word in ("" if fill == "plain" else fill, colour, shape) if word))


def join_phrases(
    phrases: Sequence[str], links: Sequence[str], before: str = "", after: str = ""
) -> tuple[str, list[tuple[int, int]]]:
    """Join phrases to a sentence and locate each of them.

    Args:
        phrases: N noun phrases.
        links: N - 1 texts between them.
        before: Text before the first phrase.
        after: Text after the last one.

    Returns:
        The sentence, and each phrase's [start, end) in it.
    """
    text, spans = before, []
    for i, phrase in enumerate(phrases):
        text += links[i - 1] if i else ""
        spans.append((len(text), len(text) + len(phrase)))
        text += phrase
    return text + after, spans


def relation_caption(
    phrases: Sequence[str], relation: str, background: str, template: int
) -> tuple[str, list[tuple[int, int]]]:
    """Chain objects by one relation.

    Args:
        phrases: The objects' noun phrases, in the order of the relation.
        relation: A key of RELATIONS.
        background: The background colour's name.
        template: 0 to 2, which selects where the background is named.

    Returns:
        The caption, and each phrase's [start, end) in it.
    """
    ground = article(background)
    frames = (
        ("", f" on {ground} background"),
        (f"on {ground} background, ", ""),
        (f"{ground} background with ", ""),
    )
    return join_phrases(phrases, [f" {relation} "] * (len(phrases) - 1), *frames[template])


def list_caption(phrases: Sequence[str], background: str) -> tuple[str, list[tuple[int, int]]]:
    """List objects, as 'a red apple, a blue mailbox and a green key on a beige background', with each phrase's span."""
    links = [", "] * (len(phrases) - 2) + [" and "]
    return join_phrases(phrases, links, after=f" on {article(background)} background")


def annotate(
    things: Sequence[tuple[str, str, str]],
    spans: Sequence[tuple[int, int]],
    heldout: Mapping[str, str] | None = None,
) -> tuple[SceneObject, ...]:
    """Build the annotation of a scene's objects.

    Args:
        things: (shape, colour, fill) of each object, in the caption's order.
        spans: [start, end) of each object's phrase.
        heldout: Shape -> colour of the pairs that never occur in training.

    Returns:
        The objects, labelled from 1.
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
