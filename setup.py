"""conf/ and sweeps/ lie at the top of the checkout and ship inside the package; everything else is in setup.cfg."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["ragaf_exp*", "eval*"]), "ragaf_exp.conf", "ragaf_exp.sweeps", "ragaf_exp.weights"],
    package_dir={"ragaf_exp.conf": "conf", "ragaf_exp.sweeps": "sweeps"},
)
