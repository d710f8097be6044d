"""What the interpreter of the package finds in it: distributions, needs that are not met, modules and their faults."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import pkgutil
import re

import ajhost


def name(text: str) -> str:
    """A distribution's name in the form in which two spellings are equal (PEP 503)."""
    return re.sub(r"[-_.]+", "-", text).lower()


def fault(module: str) -> str | None:
    """What is wrong with a module's import."""
    try:
        importlib.import_module(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def requirements(distribution: importlib.metadata.Distribution) -> set[str]:
    """What a distribution needs here: neither with an extra, nor on other systems or versions of Python."""
    texts = [text for text in distribution.requires or () if ";" not in text]
    return {name(re.split(r"[^A-Za-z0-9._-]", text)[0]) for text in texts}


found = {name(one.metadata["Name"]): one for one in importlib.metadata.distributions()}
modules = [one.name for one in pkgutil.walk_packages(ajhost.__path__, "ajhost.") if not one.name.endswith("__main__")]
faults = {module: error for module in modules if (error := fault(module)) is not None}
needs = {need for one in found.values() for need in requirements(one)}
print(
    json.dumps(
        {
            "distributions": sorted(found),
            "missing": sorted(needs - found.keys()),
            "modules": modules,
            "broken": faults,
        }
    )
)
