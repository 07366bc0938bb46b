"""Writes an experiment to start from."""

import keyword
import os
from pathlib import Path

import paxml.tools.template

_MODULE = "paxml.tools.template.experiment"
_CLASS = "MyExperiment"
_TASK = '"my_experiment"'
_TEMPLATE = Path(str(paxml.tools.template.__file__)).parent


def write_experiment(name: str, directory: str | os.PathLike[str] = ".") -> list[Path]:
    """Writes the file of an experiment and that of its tests.

    Both work as they are: the experiment trains a small network, the tests run it for a few steps.

    Args:
      name: Name of the module, such as `my_experiment`; the class is then `MyExperiment`.
      directory: Where the files go; it is created if needed.

    Returns:
      The paths of both files.

    Raises:
      ValueError: if the name cannot be that of a module, or one of the files exists.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise ValueError(
            f"{name!r} cannot be the name of a module. Give lower-case letters, digits and "
            "underscores, as in my_experiment."
        )
    folder = Path(directory)
    files = {
        folder / f"{name}.py": "experiment.py",
        folder / f"test_{name}.py": "experiment_checks.py",
    }
    for path in files:
        if path.exists():
            raise ValueError(f"{path} exists already; give another name or directory.")
    folder.mkdir(parents=True, exist_ok=True)
    for path, template in files.items():
        text = (_TEMPLATE / template).read_text(encoding="utf-8")
        text = text.replace(_MODULE, name).replace(_CLASS, class_name(name))
        path.write_text(text.replace(_TASK, f'"{name}"'), encoding="utf-8")
    return list(files)


def class_name(module: str) -> str:
    """Returns the name of the class in a module.

    Example:
      >>> class_name("my_experiment")
      'MyExperiment'
    """
    return "".join(part.capitalize() for part in module.split("_"))
