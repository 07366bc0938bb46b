"""A pipeline that microbatches go through several times."""

from collections.abc import Callable
from typing import Any

from praxis.layers.checks import check_sizes
from praxis.layers.transformer.pipeline import LayerwiseShardablePipelined
from praxis.layers.transformer.schedule import Schedule


class CircularLayerwiseShardablePipelined(LayerwiseShardablePipelined):
    """Applies a layer `circular_repeat * num_stages` times, with several layers on each stage.

    Microbatches go around: stage j applies layer (0, j), then layer (1, j) to what came back to
    it, and so on. With R = `circular_repeat` the loop has R M + S - 1 iterations, of which S - 1
    are bubbles; a pipeline with the same layers in R times as large stages would waste R times as
    much. See Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using
    Megatron-LM", 2021, arXiv:2104.04473, section 2.2.

    Attributes:
      circular_repeat: R, at least 1.
      share_weights: All layers of a stage are the same one.
      enable_async_circular_transfer: Where M > S, store what leaves the last stage an iteration
        later, so that stage 0 need not wait for the transfer; not with `stream_io`.

    Variables:
      body: as in the layer, with leading axes [R, S]; [S] with `share_weights`

    Raises:
      NotImplementedError: in calls, if there are fewer microbatches than stages.
    """

    circular_repeat: int = 1
    share_weights: bool = False
    enable_async_circular_transfer: bool = True

    def setup(self) -> None:
        check_sizes(self, "circular_repeat")
        super().setup()

    def _schedule(self, num_microbatches: int) -> Schedule:
        return Schedule(self.num_stages, num_microbatches, self.circular_repeat)

    def _check_schedule(self, schedule: Schedule) -> None:
        super()._check_schedule(schedule)
        if self.circular_repeat > 1 and schedule.num_microbatches < self.num_stages:
            raise NotImplementedError(
                f"{self.path_text}: circular_repeat = {self.circular_repeat} needs at least "
                f"num_stages = {self.num_stages} microbatches, but there are "
                f"{schedule.num_microbatches}: the first one would not be back in time. Set "
                "num_microbatches higher or microbatch_size lower, or num_stages lower."
            )

    @property
    def _stores_repeats(self) -> bool:
        return not self.share_weights

    def _transfers_late(self, schedule: Schedule) -> bool:
        may_be_late = schedule.num_microbatches > self.num_stages and not self.stream_io
        return self.enable_async_circular_transfer and may_be_late

    def _vmap_layers(self, function: Callable[..., Any], collections: Any) -> Callable[..., Any]:
        stages = self._vmap_stages(function, collections)
        if self.share_weights:
            return stages
        return self._vmap(stages, collections, self.circular_repeat, None, None)
