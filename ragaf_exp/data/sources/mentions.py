"""Which annotated things a caption names: words of COCO's categories, singular and plural, with usual synonyms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from functools import lru_cache

SYNONYMS: dict[str, str] = {  # concept -> further words, separated by commas
    "person": "man, woman, boy, girl, child, kid, baby, toddler, lady, guy, gentleman, human, pedestrian, player, skier, "
    "surfer, snowboarder, skateboarder, rider, cyclist, biker, batter, pitcher, catcher, umpire, chef, bride, groom, crowd",
    "bicycle": "bike", "motorcycle": "motorbike, bike, moped, scooter", "car": "taxi, cab, sedan, automobile, suv, van",
    "airplane": "plane, aeroplane, jet, aircraft", "truck": "pickup, lorry", "train": "locomotive, tram, trolley",
    "boat": "ship, sailboat, canoe, kayak, ferry, raft, yacht", "traffic light": "stoplight, traffic signal, stop light",
    "fire hydrant": "hydrant", "parking meter": "meter", "dog": "puppy", "cat": "kitten, kitty", "sheep": "lamb",
    "bird": "duck, seagull, pigeon, parrot, goose, owl, swan, eagle", "cow": "cattle, bull, calf, ox",
    "horse": "pony, foal",
    "handbag": "purse, bag", "backpack": "bag, rucksack", "suitcase": "luggage, bag", "tie": "necktie, bow tie",
    "sports ball": "ball, baseball, basketball, football, soccer ball, tennis ball", "baseball glove": "mitt, glove",
    "baseball bat": "bat", "tennis racket": "racket, racquet, tennis racquet", "skis": "ski", "surfboard": "surf board",
    "skateboard": "skate board", "snowboard": "snow board", "wine glass": "glass, wineglass", "cup": "mug, glass",
    "donut": "doughnut", "cake": "cupcake", "couch": "sofa, loveseat", "potted plant": "plant, house plant, houseplant",
    "dining table": "table, desk", "tv": "television, monitor, screen", "laptop": "computer, notebook", "mouse": "",
    "remote": "remote control, controller", "cell phone": "phone, cellphone, smartphone, mobile phone",
    "refrigerator": "fridge", "hair drier": "hair dryer, hairdryer, blow dryer", "teddy bear": "teddy, stuffed bear",
    "clock": "clock tower", "hot dog": "hotdog", "frisbee": "disc", "umbrella": "parasol", "toilet": "urinal",
    "stop sign": "", "playingfield": "field, court", "building": "skyscraper", "sea": "ocean, water", "river": "water",
    "water": "lake", "tree": "", "grass": "lawn", "road": "street, highway", "pavement": "sidewalk", "sky": "",
    "window": "", "railroad": "railway, train track, track", "mountain": "", "dirt": "", "rug": "carpet", "door": "",
    "house": "home", "wall": "", "floor": "", "ceiling": "", "fence": "",
}  # fmt: skip
PLURALS = {
    "man": "men", "woman": "women", "child": "children", "person": "people", "knife": "knives", "mouse": "mice",
    "goose": "geese", "calf": "calves", "ox": "oxen", "sheep": "sheep", "cattle": "cattle", "skis": "skis",
    "scissors": "scissors", "gentleman": "gentlemen", "aircraft": "aircraft", "luggage": "luggage", "shelf": "shelves",
    "broccoli": "broccoli", "grass": "grass", "leaves": "leaves", "clothes": "clothes", "stairs": "stairs",
}  # fmt: skip

WORD = re.compile(r"[^\W_]+")


def concept(category: str) -> str:
    """Reduce a category's name to what captions call it: 'wall-brick', 'wall-other-merged' to 'wall'."""
    return category.partition("-")[0]


def plural(word: str) -> str:
    """Return the plural of a noun, or of a compound by its last word."""
    head, _, last = word.rpartition(" ")
    if last in PLURALS:
        form = PLURALS[last]
    elif last.endswith("man"):
        form = f"{last[:-3]}men"
    elif last.endswith("y") and last[-2:-1] not in ("a", "e", "o", "u", ""):
        form = f"{last[:-1]}ies"
    else:
        form = last + ("es" if last.endswith(("s", "x", "ch", "sh")) else "s")
    return f"{head} {form}".strip()


def mentions(caption: str, concepts: Set[str], known: frozenset[str]) -> dict[str, tuple[int, int]]:
    """Locate the first word for each concept that a caption names.

    The longest phrase counts, so that a hot dog is no dog. A word for several concepts counts if one of them is annotated.

    Args:
        caption: The caption.
        concepts: Concepts that are annotated in its image.
        known: All concepts of the data set, whose phrases hide shorter ones.

    Returns:
        Concept -> [start, end) in characters, in the caption's order.
    """
    phrases = _phrases(known)
    matches = list(WORD.finditer(caption))
    words = tuple([match[0].lower() for match in matches])
    spans: dict[str, tuple[int, int]] = {}
    end = 0  # of the last phrase
    for position, word in enumerate(words):
        if position < end or word not in phrases:
            continue
        for phrase, names in phrases[word]:
            if words[position : position + len(phrase)] == phrase:
                end = position + len(phrase)
                meant = [name for name in names if name in concepts]
                if len(meant) == 1 and meant[0] not in spans:
                    spans[meant[0]] = matches[position].start(), matches[end - 1].end()
                break
    return spans


@lru_cache(maxsize=8)
def _phrases(known: frozenset[str]) -> dict[str, list[tuple[tuple[str, ...], list[str]]]]:
    """All phrases of the concepts by their first word, the longest first, with the concepts that each may name."""
    by_first: dict[str, list[tuple[tuple[str, ...], list[str]]]] = {}
    for phrase, names in sorted(_meanings(known).items(), key=lambda entry: -len(entry[0].split())):
        words = tuple(phrase.split())
        by_first.setdefault(words[0], []).append((words, names))
    return by_first


def _meanings(known: frozenset[str]) -> dict[str, list[str]]:
    """Map all phrases of the concepts, singular and plural, to the concepts that they may name."""
    meanings: dict[str, list[str]] = {}
    for name in sorted(known):
        for word in (name, *_listed(SYNONYMS.get(name, ""))):
            for form in dict.fromkeys((word, plural(word))):
                meanings.setdefault(form, []).append(name)
    return meanings


def _listed(words: str) -> Iterable[str]:
    return (word.strip() for word in words.split(",") if word.strip())
