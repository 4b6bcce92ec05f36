"""Names of COCO-Stuff's labels 92 to 182 (Caesar et al. 2018), whose PNG maps hold label - 1."""

from __future__ import annotations

FIRST = 92
NAMES = (
    "banner blanket branch bridge building-other bush cabinet cage cardboard carpet ceiling-other ceiling-tile cloth "
    "clothes clouds counter cupboard curtain desk-stuff dirt door-stuff fence floor-marble floor-other floor-stone "
    "floor-tile floor-wood flower fog food-other fruit furniture-other grass gravel ground-other hill house leaves light "
    "mat metal mirror-stuff moss mountain mud napkin net paper pavement pillow plant-other plastic platform playingfield "
    "railing railroad river road rock roof rug salad sand sea shelf sky-other skyscraper snow solid-other stairs stone "
    "straw structural-other table tent textile-other towel tree vegetable wall-brick wall-concrete wall-other wall-panel "
    "wall-stone wall-tile wall-wood water-other waterdrops window-blind window-other wood"
).split()
STUFF = dict(enumerate(NAMES, FIRST))
