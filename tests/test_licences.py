"""All that Paddock installs, with each of its extras, may be used and given on by anybody."""

from collections.abc import Iterator
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PERMITTED = frozenset((
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CNRI-Python", "ISC", "MIT",
    "MIT-0", "MIT-CMU", "PSF-2.0", "Unlicense", "Zlib",
    # Their libraries may be used by any program, as long as they themselves stay free.
    "Artistic-1.0", "LGPL-2.1", "LGPL-3.0-only", "MPL-2.0",
))  # fmt: skip
"""By their names in SPDX's list."""
OF_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "Artistic License": "Artistic-1.0",
    "BSD License": "BSD-3-Clause",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Public Domain": "Unlicense",
    "Python Software Foundation License": "PSF-2.0",
}
OF_WORDS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache License, Version 2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD-3-Clause, Apache-2.0, dependency licenses": "BSD-3-Clause AND Apache-2.0",
}
"""Of packages that say it in words of their own alone."""


def installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:  # of an extra, or of another system
        return None


@cache
def required(name: str, extra: str) -> frozenset[tuple[str, str]]:
    """Return what a package requires for itself, or for an extra: names, each with an extra."""
    found = installed(name)
    needs = map(Requirement, (found.requires if found else None) or ())
    return frozenset(
        (canonicalize_name(need.name), of_it)
        for need in needs
        if need.marker is None or need.marker.evaluate({"extra": extra})
        for of_it in ("", *need.extras)
    )


def all_required() -> list[str]:
    product = distribution("paddock-llm")
    todo = [
        ("paddock-llm", extra) for extra in ("", *product.metadata.get_all("Provides-Extra", ()))
    ]
    known = set(todo)
    while todo:
        new = required(*todo.pop()) - known
        known |= new
        todo += new
    return sorted({name for name, _ in known} - {"paddock-llm"})


def licences(of: Distribution) -> Iterator[frozenset[str]]:
    """Yield sets of licences: of each, one may be chosen."""
    told = of.metadata.get_all
    classifiers = (c.split(" :: ") for c in told("Classifier", ()))
    classified = frozenset(
        OF_CLASSIFIERS.get(words[-1], words[-1])
        for words in classifiers
        if words[0] == "License" and words[1:] not in (["OSI Approved"], ["DFSG approved"])
    )
    written = told("License", [""])[0].partition("\n")[0]
    (expression,) = told("License-Expression", [""])
    if classified and not expression:
        yield classified
        return
    for part in (expression or OF_WORDS.get(written, written)).split(" AND "):
        yield frozenset(part.strip("()").split(" OR "))


@pytest.mark.parametrize("name", all_required())
def test_what_is_installed_may_be_given_on(name: str) -> None:
    if (found := installed(name)) is None:
        pytest.skip(f"{name} is not installed here")
    for choices in licences(found):
        assert choices & PERMITTED, f"{name}: {', '.join(sorted(choices))}"
