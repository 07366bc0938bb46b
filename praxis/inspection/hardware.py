"""What accelerators can do, by the name that JAX gives them."""

import dataclasses

_GB = 1e9


@dataclasses.dataclass(frozen=True)
class Hardware:
    """One kind of device, by the data sheet of its maker.

    Attributes:
      name: Short name, such as `h100`.
      peak_flops: Floating-point operations per second in dense bfloat16 products (float16 where
        there is no bfloat16).
      memory_bytes: Memory of one device as JAX counts devices.
      memory_bandwidth: Bytes per second between a device and its memory.
      network_bandwidth: Bytes per second that a device sends over its fast links, all together:
        between the chips of a TPU slice, or the GPUs of a machine (PCIe where there is no NVLink).
    """

    name: str
    peak_flops: float
    memory_bytes: float
    memory_bandwidth: float
    network_bandwidth: float


# Beginning of JAX's `device.device_kind` in lower case, the longest that fits counts.
_BY_KIND = {
    "tpu v2": Hardware("tpu-v2", 22.5e12, 8 * _GB, 350 * _GB, 31 * _GB),
    "tpu v3": Hardware("tpu-v3", 61.5e12, 16 * _GB, 450 * _GB, 41 * _GB),
    "tpu v4": Hardware("tpu-v4", 275e12, 32 * _GB, 1228 * _GB, 300 * _GB),
    "tpu v5 lite": Hardware("tpu-v5e", 197e12, 16 * _GB, 819 * _GB, 200 * _GB),
    "tpu v5e": Hardware("tpu-v5e", 197e12, 16 * _GB, 819 * _GB, 200 * _GB),
    "tpu v5": Hardware("tpu-v5p", 459e12, 95 * _GB, 2765 * _GB, 600 * _GB),
    "tpu v5p": Hardware("tpu-v5p", 459e12, 95 * _GB, 2765 * _GB, 600 * _GB),
    "tpu v6 lite": Hardware("tpu-v6e", 918e12, 32 * _GB, 1640 * _GB, 448 * _GB),
    "tpu v6e": Hardware("tpu-v6e", 918e12, 32 * _GB, 1640 * _GB, 448 * _GB),
    "nvidia b200": Hardware("b200", 2250e12, 180 * _GB, 8000 * _GB, 900 * _GB),
    "nvidia h200": Hardware("h200", 989e12, 141 * _GB, 4800 * _GB, 450 * _GB),
    "nvidia h100": Hardware("h100", 989e12, 80 * _GB, 3350 * _GB, 450 * _GB),
    "nvidia h100 pcie": Hardware("h100-pcie", 756e12, 80 * _GB, 2000 * _GB, 64 * _GB),
    "nvidia a100-sxm4-80gb": Hardware("a100-80gb", 312e12, 80 * _GB, 2039 * _GB, 300 * _GB),
    "nvidia a100": Hardware("a100", 312e12, 40 * _GB, 1555 * _GB, 300 * _GB),
    "nvidia l4": Hardware("l4", 121e12, 24 * _GB, 300 * _GB, 32 * _GB),
    "tesla t4": Hardware("t4", 65e12, 16 * _GB, 320 * _GB, 16 * _GB),
    "tesla v100": Hardware("v100", 125e12, 16 * _GB, 900 * _GB, 150 * _GB),
}


def hardware_of(kind: str) -> Hardware | None:
    """Returns what is known of a device by its JAX kind or its short name; None if nothing is.

    Example:
      >>> hardware_of("NVIDIA H100 80GB HBM3").name, hardware_of("tpu-v5e").peak_flops
      ('h100', 197000000000000.0)
    """
    text = kind.strip().lower()
    by_name = {hardware.name: hardware for hardware in _BY_KIND.values()}
    if text in by_name:
        return by_name[text]
    fitting = [
        known for known in _BY_KIND if text == known or text.startswith((known + " ", known + "-"))
    ]
    return _BY_KIND[max(fitting, key=len)] if fitting else None


def hardware_names() -> list[str]:
    """Returns the short names, for messages."""
    return sorted({hardware.name for hardware in _BY_KIND.values()})
