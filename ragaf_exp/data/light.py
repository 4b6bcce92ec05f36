"""Colours of lights: Planckian radiators, von Kries gains, and images under a wrong light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.numbers import numbers_of

PLANCK = 1.4387769e-2  # second radiation constant, metre kelvin
WAVES = np.arange(380.0, 781.0, 5.0)  # nm
TO_SRGB = np.array(
    [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
)  # IEC 61966-2-1, D65
NEUTRAL = 6500.0  # kelvin: sRGB's own white, nearly
NAMES = ("kelvin", "tint", "exposure", "gamma")
LOWEST, HIGHEST = 2000.0, 20000.0  # kelvin


def to_linear(image: np.ndarray) -> np.ndarray:
    """Convert sRGB uint8 (...,3) to linear light, float64 in [0, 1]."""
    x = np.asarray(image, np.float64) / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Convert linear light (...,3) to sRGB uint8, clipped."""
    x = np.clip(linear, 0, 1)
    x = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    return np.rint(x * 255).astype(np.uint8)


def mired_of(kelvin: float) -> float:
    """Convert a colour temperature to its distance from neutral in mired, in which equal steps look equal."""
    return 1e6 / kelvin - 1e6 / NEUTRAL


def _lobe(middle: float, below: float, above: float) -> np.ndarray:
    offset = WAVES - middle
    return np.exp(-0.5 * (offset / np.where(offset < 0, below, above)) ** 2)


# Wyman, Sloan and Shirley 2013: multi-lobe fit to the CIE 1931 observer
OBSERVER = np.stack([
    1.056 * _lobe(599.8, 37.9, 31.0) + 0.362 * _lobe(442.0, 16.0, 26.7) - 0.065 * _lobe(501.1, 20.4, 26.2),
    0.821 * _lobe(568.8, 46.9, 40.5) + 0.286 * _lobe(530.9, 16.3, 31.1),
    1.217 * _lobe(437.0, 11.8, 36.0) + 0.681 * _lobe(459.0, 26.0, 13.8),
])  # fmt: skip


def planckian(kelvin: float) -> np.ndarray:
    """Compute the linear sRGB colour (3,) of a Planckian radiator, with green 1.

    Args:
        kelvin: Its temperature, 2,000 to 20,000.
    """
    metres = WAVES * 1e-9
    spectrum = metres**-5 / np.expm1(PLANCK / (metres * kelvin))
    rgb = np.maximum(TO_SRGB @ (OBSERVER @ spectrum), 0)
    return rgb / rgb[1]


@dataclass(frozen=True)
class Light:
    """A wrong light and rendering."""

    kelvin: float  # colour temperature that the camera's white balance leaves in, 6,500 = none
    tint: float = 0.0  # log gain of green: below 0 magenta, above 0 green
    exposure: float = 0.0  # stops
    gamma: float = 1.0  # of linear light, after the gains

    @classmethod
    def read(cls, value: Any, name: str) -> Light:
        """Return the light that a command line or table gives.

        Args:
            value: Kelvin, tint, exposure and gamma as a text with commas or as a sequence, or a mapping by these names.
            name: Of the value, for messages.

        Raises:
            UserError: It isn't that, or a value is out of range.
        """
        try:
            values = value.items() if isinstance(value, Mapping) else zip(NAMES, numbers_of(value), strict=True)
            light = cls(**{key: float(one) for key, one in values})
        except (TypeError, ValueError):
            raise UserError(f"{name}={value}: must be kelvin, tint, exposure and gamma, as 2800,0.02,0,1") from None
        if not (np.isfinite(astuple(light)).all() and LOWEST <= light.kelvin <= HIGHEST and light.gamma > 0):
            raise UserError(f"{name}={value}: kelvin must be {LOWEST:g} to {HIGHEST:g}, and gamma above 0")
        return light

    @classmethod
    def undone_by(cls, gains: Sequence[float], power: float) -> Light:
        """Return the light that right = gain * given^power undoes, in linear light. It inverts `render`.

        Args:
            gains: Of the channels, above 0.
            power: Of all channels, above 0.
        """
        total = 1 / np.asarray(gains, np.float64)  # of the light, with its exposure
        red, green, blue = total / total.mean()
        kelvin = 1e6 / np.interp(np.log(red / blue), np.log(_TABLE[:, 0] / _TABLE[:, 2]), _MIREDS)
        tint = np.log(green / red * planckian(kelvin)[0] / planckian(NEUTRAL)[0])
        return cls(float(kelvin), float(tint), float(np.log2(total.mean())), 1 / power)

    def gains(self) -> np.ndarray:
        """Von Kries gains (3,) of linear light; the mean over the channels is 1, so that exposure is separate."""
        gains = planckian(self.kelvin) / planckian(NEUTRAL) * np.array([1.0, np.exp(self.tint), 1.0])
        return gains / gains.mean()

    def render(self, image: np.ndarray) -> np.ndarray:
        """Return an image (H,W,3) uint8 as it looks under this light."""
        linear = to_linear(image) * self.gains() * 2.0**self.exposure
        return to_srgb(np.clip(linear, 0, 1) ** self.gamma)

    def parameters(self) -> np.ndarray:
        """Return kelvin (as mired offset from neutral, in hundreds), tint, exposure and log gamma, (4,) float32."""
        return np.array([mired_of(self.kelvin) / 100, self.tint, self.exposure, np.log(self.gamma)], np.float32)


_MIREDS = np.linspace(1e6 / HIGHEST, 1e6 / LOWEST, 200)  # the balance of red to blue rises with them
_TABLE = np.array([planckian(1e6 / mired) / planckian(NEUTRAL) for mired in _MIREDS])


def sample_light(
    rng: np.random.Generator, low: float = 2500.0, high: float = 10000.0, tint: float = 0.06, exposure: float = 0.3,
    gamma: float = 0.1,
) -> Light:  # fmt: skip
    """Sample a light, uniform in mired, in which equal steps look equal.

    Args:
        rng: Random generator.
        low: Lowest temperature in kelvin.
        high: Highest temperature in kelvin.
        tint: Standard deviation of the tint.
        exposure: Largest exposure either way, in stops.
        gamma: Largest log gamma either way.

    Returns:
        The light.
    """
    mired = 1e6 / high + rng.random() * (1e6 / low - 1e6 / high)
    change, bend = (2 * rng.random(2) - 1) * (exposure, gamma)
    return Light(1e6 / mired, float(rng.normal(0, tint)), float(change), float(np.exp(bend)))
