"""Version number of the checkpoint format.

0.0: leaves directly in the step directory. 1.0: items `state` and `metadata`. 1.1: metadata also
describes the model variables. 1.2: as 1.1, with the arrays in one OCDBT database.
"""


def get_version(tensorstore_use_ocdbt: bool | None = None) -> float:
    """Returns the version that new checkpoints get."""
    return 1.2 if tensorstore_use_ocdbt else 1.1


def get_version_key() -> str:
    """Returns the key of the version in the metadata file."""
    return "version"
