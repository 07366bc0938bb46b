"""The shortest time that a step can take on a kind of device."""

import dataclasses

from praxis.inspection.hardware import Hardware


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that each device needs for its part of a step at full speed.

    Williams et al., "Roofline: An Insightful Visual Performance Model for Multicore
    Architectures", 2009, with a third roof for the network.

    Attributes:
      compute: For the arithmetic of the model, without what is computed twice to save memory.
      memory: To move weights, optimizer state and activations between device and memory.
      network: To send what devices send each other over the fast links; between slices or machines
        it takes longer.
    """

    compute: float
    memory: float
    network: float

    @property
    def step(self) -> float:
        """The longest of the three: nothing is faster even if all of them overlap."""
        return max(self.compute, self.memory, self.network)

    @property
    def serial(self) -> float:
        """All three, one after the other."""
        return self.compute + self.memory + self.network

    @property
    def bound(self) -> str:
        """Which one is the longest."""
        times = dataclasses.asdict(self)
        return max(times, key=times.__getitem__)

    @property
    def utilization(self) -> float:
        """The share of the peak that the model's arithmetic reaches at most."""
        return self.compute / self.step if self.step else 0.0


def roofline(
    hardware: Hardware, *, flops: float, memory_bytes: float, sent_bytes: float
) -> Roofline:
    """The roofs of a step, of what one device computes, moves and sends."""
    return Roofline(
        compute=flops / hardware.peak_flops,
        memory=memory_bytes / hardware.memory_bandwidth,
        network=sent_bytes / hardware.network_bandwidth,
    )
