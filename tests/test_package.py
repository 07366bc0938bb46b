"""What is published: built from the checkout, unpacked, and imported from there alone."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tarfile
import textwrap
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ("praxis", "paxml")

pytestmark = pytest.mark.slow

# Runs in a fresh interpreter with the unpacked wheel in front of everything else.
IMPORT_ALL = """
    import importlib, pkgutil, sys

    BLOCKED = ("tensorflow", "torch", "lingvo", "seqio", "matplotlib")

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in BLOCKED:
                raise ImportError(f"{name} is blocked")

    sys.meta_path.insert(0, Blocker())

    def fail(name):
        raise

    for package_name in sys.argv[2:]:
        package = importlib.import_module(package_name)
        assert package.__file__.startswith(sys.argv[1]), package.__file__
        for module in pkgutil.walk_packages(package.__path__, package_name + ".", onerror=fail):
            if not any(part.startswith("_") for part in module.name.split(".")):
                importlib.import_module(module.name)
                print(module.name)
    present = [name for name in BLOCKED if name in sys.modules]
    assert not present, present
"""


def run(*command: str | pathlib.Path, **variables: str) -> str:
    """Runs Python outside the checkout and returns what it prints."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=variables.pop("cwd"),
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Folder with the source distribution, and the wheel that is made from it."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    # Isolation downloads the build backend, which is spared where it is installed.
    here = ["--no-isolation"] if importlib.util.find_spec("hatchling") else []
    run("-m", "build", *here, "--outdir", folder, ROOT, cwd=str(folder))
    return folder


@pytest.fixture(scope="module")
def installed(dist: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Folder in which the wheel is installed, without what it depends on."""
    folder = tmp_path_factory.mktemp("installed")
    (wheel,) = dist.glob("*.whl")
    options = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")
    run("-m", "pip", "install", *options, "--target", folder, wheel, cwd=str(folder))
    return folder


def sources() -> set[str]:
    """The files of the packages in the checkout."""
    files = (path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file())
    return {
        path.relative_to(ROOT).as_posix()
        for path in files
        if "__pycache__" not in path.parts and path.suffix in (".py", ".typed")
    }


def test_wheel_has_the_packages_and_nothing_else(dist):
    (wheel,) = dist.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert sources() - names == set()
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    others = {name for name in names if name.partition("/")[0] not in PACKAGES}
    assert {name.partition("/")[0].partition("-")[0] for name in others} == {"pax"}
    assert all(".dist-info/" in name for name in others)
    assert any(name.endswith("/licenses/LICENSE") for name in others)
    assert not [name for name in names if "__pycache__" in name]


def test_source_distribution_has_tests_and_examples_but_no_build_results(dist):
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        paths = {name.partition("/")[2] for name in opened.getnames()}
    assert sources() - paths == set()
    assert {"pyproject.toml", "README.md", "LICENSE", "tests/registry/entry.py"} <= paths
    tops = {path.partition("/")[0] for path in paths}
    allowed = {
        *PACKAGES,
        "tests",
        "tests_hf",
        "benchmarks",
        "docs",
        "examples",
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
    }
    assert tops - allowed <= {"LICENSE", "PKG-INFO", ".gitignore"}


def test_every_public_module_imports_without_heavy_frameworks(installed):
    """TensorFlow, torch, Lingvo, seqio and matplotlib cannot be imported there at all."""
    output = run(
        "-P",
        "-c",
        textwrap.dedent(IMPORT_ALL),
        str(installed),
        *PACKAGES,
        cwd=str(installed),
        PYTHONPATH=str(installed),
        JAX_PLATFORMS="cpu",
    )
    imported = set(output.split())
    assert {"praxis.layers.attentions", "praxis.py_utils"} <= imported
    assert {name.partition(".")[0] for name in imported} == set(PACKAGES)
    expected = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in sources()
        if name.endswith(".py") and not pathlib.PurePath(name).name.startswith("__main__")
    }
    private = {name for name in expected if any(part[0] == "_" for part in name.split("."))}
    assert expected - private - set(PACKAGES) <= imported
