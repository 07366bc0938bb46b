"""Layers that work side by side on several parts of the batch, each on devices of its own."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool

from praxis import base_layer, pax_fiddle
from praxis.layers.checks import check_sizes
from praxis.layers.transformer import pipeline_variables as variables_lib
from praxis.layers.transformer import stacked_variables
from praxis.layers.transformer.microbatch import has_batch, merge_batch, split_batch, take_each
from praxis.layers.transformer.pipeline_buffer import (
    Buffer,
    StreamBuffer,
    WholeBuffer,
    last,
    shift_in,
)
from praxis.layers.transformer.remat import AutodiffCheckpointType, custom_policy
from praxis.layers.transformer.schedule import Iteration, Schedule
from praxis.layers.transformer.side_inputs import SideInputs, is_array

AUX_LOSS = base_layer.AUX_LOSS
HYPER_PARAMS = base_layer.HYPER_PARAMS
INTERMEDIATES = base_layer.INTERMEDIATES
NON_TRAINABLE = base_layer.NON_TRAINABLE
PARAMS = base_layer.PARAMS
RANDOM = base_layer.RANDOM
SUMMARIES = base_layer.SUMMARIES

template_field = base_layer.template_field
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
SplitDimsMapping = base_layer.SplitDimsMapping
Tree = Any

# Flax modules inside a layer keep moving averages in their own collection.
STATISTICS = (NON_TRAINABLE, "batch_stats")
REPORTS = (AUX_LOSS, SUMMARIES, INTERMEDIATES)


class LayerwiseShardablePipelined(base_layer.BaseLayer):
    """Applies a layer `num_stages` times, each time with other variables, as a pipeline.

    The batch is split into microbatches. The stages are vmapped, and in each iteration of a loop
    all of them work, on different microbatches; what a stage computes goes to the next one. With
    the axis of stages sharded over devices, each device holds its own stage. The outputs and
    gradients are those of the layers applied one after the other to the whole batch, as long as
    the layer treats examples alike; see Huang et al., "GPipe: Efficient Training of Giant Neural
    Networks using Pipeline Parallelism", 2018, arXiv:1811.06965. S is `num_stages`, M the number of
    microbatches; the loop has M + S - 1 iterations.

    Auxiliary losses are means over microbatches, summed over stages. Summaries are means over
    microbatches. Non-trainable variables change once for each microbatch. Decoding caches are not
    made: decode with a `Repeat` of `nd_prefix_shape` on the same variables.

    Attributes:
      num_stages: S, at least 1. Required.
      single_stage_body: Config of the layer. Its outputs have the structure, shapes and dtypes of
        its inputs. Required.
      num_microbatches: M; example b is in microbatch b % M. With neither this nor
        `microbatch_size`, inputs are microbatches already, [M, b, ...].
      microbatch_size: Examples in a microbatch, in place of M.
      unpack_summaries: Report summaries stage by stage, NAME.stage<j>, not with a leading axis.
      stream_io: Spread the inputs and outputs over the stages. M has to be a multiple of S.
      pipeline_broadcast_inputs: Further arguments travel with the inputs from stage to stage;
        otherwise all stages hold those of all microbatches.
      polluting_bubbles_with_nan: Put NaN where a stage has nothing to do. Outputs and gradients
        stay the same; a test aid.
      enable_bubble_grad_skipping: Choose the gradients of variables so that what is computed where
        a stage has nothing to do, NaN too, does not get into them.
      checkpoint_policy: What is kept for the backward pass, besides the inputs of each iteration.
      bf16_accum_in_fp32: Add up the gradients of bfloat16 variables in float32.
      optimizer_dims_mapping: Sharding of the axis of stages for states of the optimizer: one entry.
      collect_intermediate_outputs: Store the outputs of all stages, stacked in the order of the
        layers, as `pipeline_intermediates` in "intermediates".

    Variables:
      body: as in the layer, with a leading axis [S]

    Raises:
      ValueError: during setup, if a field is missing or options contradict each other; in calls, if
        the batch cannot be split, or the layer returns another structure, shape or dtype.
    """

    num_stages: int = 1
    single_stage_body: LayerTpl | None = template_field(None)
    num_microbatches: int | None = None
    microbatch_size: int | None = None
    unpack_summaries: bool = True
    stream_io: bool = False
    pipeline_broadcast_inputs: bool = False
    polluting_bubbles_with_nan: bool = False
    enable_bubble_grad_skipping: bool = True
    checkpoint_policy: AutodiffCheckpointType = AutodiffCheckpointType.SAVE_ITERATION_INPUT
    bf16_accum_in_fp32: bool = False
    optimizer_dims_mapping: SplitDimsMapping = None
    collect_intermediate_outputs: bool = False

    class WeightSharding(base_layer.BaseLayer.WeightSharding):
        """Sharding of the weights.

        Attributes:
          stages: Of the axis of stages: one entry.
        """

        stages: SplitDimsMapping = (None,)

    def setup(self) -> None:
        check_sizes(self, "num_stages")
        if self.single_stage_body is None:
            raise ValueError(
                f"{self.path_text}: single_stage_body is None, set it to the config of a layer."
            )
        if self.num_microbatches is not None and self.microbatch_size is not None:
            raise ValueError(
                f"{self.path_text}: num_microbatches = {self.num_microbatches} and microbatch_size "
                f"= {self.microbatch_size} are both given. Set one of them to None; it follows "
                "from the other and the batch."
            )
        stages = self.weight_split_dims_mapping.stages
        if stages is None or len(stages) != 1:
            raise ValueError(
                f"{self.path_text}: weight_split_dims_mapping.stages is {stages}, expected one "
                "entry, the mesh axis of the stages, e.g. ('stage',), or (None,)."
            )
        self.create_child("body", self.single_stage_body)

    # ---- the schedule ---------------------------------------------------------------------------

    def _schedule(self, num_microbatches: int) -> Schedule:
        return Schedule(self.num_stages, num_microbatches)

    def num_valid_iterations(self, num_microbatches: int) -> int:
        """Iterations in which a stage has work."""
        return self._schedule(num_microbatches).num_valid_iterations

    def num_total_iterations(self, num_microbatches: int) -> int:
        """Iterations of the loop."""
        return self._schedule(num_microbatches).num_total_iterations

    def get_valid_microbatch_mask(
        self, loop_iteration: Iteration, num_microbatches: int
    ) -> Bool[Array, " S"]:
        """Whether each stage works on a microbatch in an iteration."""
        return self._schedule(num_microbatches).is_valid(loop_iteration)

    @property
    def _stores_repeats(self) -> bool:
        """Whether variables have an axis of repeats in front of that of stages."""
        return False

    def _transfers_late(self, schedule: Schedule) -> bool:
        """Whether outputs of the last stage are stored an iteration after they were computed."""
        del schedule
        return False

    # ---- calls ----------------------------------------------------------------------------------

    def __call__(self, inputs: Any, *broadcast_inputs: Any, **broadcast_kwargs: Any) -> Any:
        """Applies the stages.

        Args:
          inputs: What the first stage gets, an array or a tree of arrays: [B, ...]; or [M, b, ...]
            with neither `num_microbatches` nor `microbatch_size`.
          *broadcast_inputs: What all stages get: arrays with a leading axis as that of the inputs
            are split with them; anything else is passed on as it is.
          **broadcast_kwargs: As `broadcast_inputs`.

        Returns:
          The outputs of the last stage, as the inputs.
        """
        batch = self._batch(inputs)
        side = SideInputs.of(
            (broadcast_inputs, broadcast_kwargs), lambda leaf: has_batch(leaf, batch)
        )
        own = side.own
        if not self._takes_microbatches:
            count = self._count_microbatches(batch)
            split = functools.partial(split_batch, num_microbatches=count)
            inputs, own = jax.tree.map(split, (inputs, own))
        schedule = self._schedule(jax.tree.leaves(inputs)[0].shape[0])
        self._check_schedule(schedule)
        if not self.is_initializing():
            return self._merge(self._run(inputs, own, side, schedule))
        first, own = jax.tree.map(lambda x: x[0], (inputs, own))
        args, kwargs = side.fill(own)
        self._initialize(first, *args, **kwargs)
        return self._merge(inputs)

    def _batch(self, inputs: Tree) -> int:
        """The length of the leading axis of all inputs."""
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(inputs)]
        if not shapes or any(not shape or shape[0] != shapes[0][0] for shape in shapes):
            raise ValueError(
                f"{self.path_text}: inputs have the shapes {shapes}, expected arrays with the same "
                "leading axis, the batch."
            )
        return shapes[0][0]

    @property
    def _takes_microbatches(self) -> bool:
        return self.num_microbatches is None and self.microbatch_size is None

    def _count_microbatches(self, batch: int) -> int:
        field = "microbatch_size" if self.num_microbatches is None else "num_microbatches"
        size = getattr(self, field)
        if size < 1 or batch % size:
            raise ValueError(
                f"{self.path_text}: inputs have batch {batch}, expected a multiple of {field} = "
                f"{size}. Change {field}, or the batch size of the input."
            )
        return size if field == "num_microbatches" else batch // size

    def _merge(self, outputs: Tree) -> Tree:
        return outputs if self._takes_microbatches else jax.tree.map(merge_batch, outputs)

    def _check_schedule(self, schedule: Schedule) -> None:
        """Refuses numbers of microbatches that the loop cannot do."""
        if self.stream_io and schedule.num_microbatches % self.num_stages:
            raise ValueError(
                f"{self.path_text}: stream_io = True needs a multiple of num_stages = "
                f"{self.num_stages} microbatches, but there are {schedule.num_microbatches}. "
                "Change num_microbatches or microbatch_size, or set stream_io to False."
            )

    # ---- the stages -----------------------------------------------------------------------------

    def _vmap(
        self, function: Callable[..., Any], collections: Any, size: int, axis: Any, optimizer: Any
    ) -> Callable[..., Any]:
        """Maps over a leading axis of variables and arguments, which lies on a mesh axis."""
        mesh_axis = None
        if self.mesh_axis_names is not None:
            (mesh_axis,) = base_layer.to_partition_spec((axis,), self.mesh_axis_names)
        return nn.vmap(
            function,
            variable_axes=dict.fromkeys(collections, 0),
            split_rngs={PARAMS: self.is_initializing(), RANDOM: True},
            axis_size=size,
            # JAX takes several mesh axes too.
            spmd_axis_name=mesh_axis,  # pyright: ignore[reportArgumentType]
            metadata_params={
                "is_initializing": self.is_initializing(),
                "x_times": size,
                "sub_weight_split_dims_mapping": (axis,),
                "optimizer_dims_mapping": optimizer,
            },
        )

    def _vmap_stages(self, function: Callable[..., Any], collections: Any) -> Callable[..., Any]:
        (axis,) = self.weight_split_dims_mapping.stages or (None,)
        return self._vmap(function, collections, self.num_stages, axis, self.optimizer_dims_mapping)

    def _vmap_layers(self, function: Callable[..., Any], collections: Any) -> Callable[..., Any]:
        """Maps over all leading axes of the stored variables."""
        return self._vmap_stages(function, collections)

    def _initialize(self, inputs: Tree, *args: Any, **kwargs: Any) -> None:
        """Makes the variables: each layer runs once, on the same microbatch."""

        def apply(body: base_layer.BaseLayer) -> None:
            self._check_outputs(inputs, body(inputs, *args, **kwargs))

        # Not losses and summaries: those of one microbatch would be wrong ones.
        self._vmap_layers(apply, (PARAMS, *STATISTICS, HYPER_PARAMS))(self.body)

    def _check_outputs(self, inputs: Tree, outputs: Tree) -> Tree:
        """Refuses outputs of a stage that cannot be inputs of the next one."""
        before, after = jax.tree.structure(inputs), jax.tree.structure(outputs)
        if before != after:
            raise ValueError(
                f"{self.path_text}: single_stage_body returns the structure {after}, expected that "
                f"of its inputs, {before}: they are the inputs of the next stage."
            )
        for x, y in zip(jax.tree.leaves(inputs), jax.tree.leaves(outputs), strict=True):
            if x.shape != y.shape or x.dtype != y.dtype:
                raise ValueError(
                    f"{self.path_text}: single_stage_body returns {y.dtype}{list(y.shape)} for "
                    f"inputs {x.dtype}{list(x.shape)} of a microbatch, expected the same shape and "
                    "dtype: they are the inputs of the next stage. Inputs should be in "
                    "fprop_dtype already."
                )
        return outputs

    def body_fprop(
        self,
        loop_iteration: Iteration,
        num_microbatches: int,
        bf16_vars_to_convert: Tree,
        per_stage_inputs: Tree,
        query_owg_mask: bool = False,
        *per_stage_args: Any,
        **per_stage_kwargs: Any,
    ) -> Tree:
        """Lets all stages work once.

        Args:
          loop_iteration: The iteration of the loop.
          num_microbatches: M.
          bf16_vars_to_convert: Which variables are to be cast back to bfloat16, a tree of bools;
            None: none.
          per_stage_inputs: A tree of arrays [S, ...].
          query_owg_mask: Do not compute, but return which variables are overwritten with their
            gradient: a tree of bools.
          *per_stage_args: Trees of arrays [S, ...], and of other values, which are the same for all
            stages.
          **per_stage_kwargs: As `per_stage_args`.

        Returns:
          The outputs, [S, ...].
        """
        side = SideInputs.of((per_stage_args, per_stage_kwargs), is_array)
        if query_owg_mask:
            first, own = jax.tree.map(lambda x: x[0], (per_stage_inputs, side.own))
            args, kwargs = side.fill(own)
            return self._overwritten(first, *args, **kwargs)
        schedule = self._schedule(num_microbatches)
        valid = schedule.is_valid(loop_iteration)
        per_stage_inputs, own = variables_lib.only_valid_gradients(
            (per_stage_inputs, side.own), valid
        )
        if self.polluting_bubbles_with_nan:
            per_stage_inputs = variables_lib.pollute(per_stage_inputs, valid)

        def apply(body: base_layer.BaseLayer, x: Tree, own: list[Any]) -> Tree:
            args, kwargs = side.fill(own)
            return self._check_outputs(x, body(x, *args, **kwargs))

        run = self._vmap_stages(apply, (PARAMS, *STATISTICS, *REPORTS, HYPER_PARAMS))
        run = self._with_current_variables(run, loop_iteration, schedule, bf16_vars_to_convert)
        return run(self.body, per_stage_inputs, own)

    def _with_current_variables(
        self,
        run: Callable[..., Any],
        iteration: Iteration,
        schedule: Schedule,
        bf16_vars_to_convert: Tree,
    ) -> Callable[..., Any]:
        """Wraps the stages, which see variables [S, ...], for variables as the loop has them."""
        valid, repeats = schedule.is_valid(iteration), schedule.repeat_ids(iteration)
        before = {
            name: self.body.variables[name] for name in STATISTICS if name in self.body.variables
        }

        def take(tree: Tree) -> Tree:
            return variables_lib.take_repeats(tree, repeats) if self._stores_repeats else tree

        def load(stored: dict[str, Any]) -> dict[str, Any]:
            loaded = {name: take(tree) for name, tree in stored.items()}
            if PARAMS in stored:
                params = take(variables_lib.from_accumulating(stored[PARAMS], bf16_vars_to_convert))
                if self.enable_bubble_grad_skipping:
                    params = variables_lib.only_valid_gradients(params, valid)
                loaded[PARAMS] = params
            return loaded

        def store(seen: dict[str, Any]) -> dict[str, Any]:
            stored = {}
            for name in before.keys() & seen.keys():
                kept = variables_lib.keep_valid(seen[name], take(before[name]), valid)
                if self._stores_repeats:
                    kept = variables_lib.put_repeats(before[name], repeats, kept)
                stored[name] = kept
            return stored

        return nn.map_variables(
            run,
            mapped_collections=[PARAMS, *STATISTICS],
            trans_in_fn=load,
            trans_out_fn=store,
            mutable=True,
        )

    # ---- the loop -------------------------------------------------------------------------------

    def _run(self, inputs: Tree, own: list[Any], side: SideInputs, schedule: Schedule) -> Tree:
        """Runs the loop over microbatches [M, b, ...], and returns the outputs as such."""
        buffer: Buffer = StreamBuffer(schedule) if self.stream_io else WholeBuffer(schedule)
        is_late = self._transfers_late(schedule)
        travelling = own if self.pipeline_broadcast_inputs else []
        empty = self._empty_stages((inputs, own))
        bf16_vars, to_accumulating = self._accumulation(schedule, side, *empty)

        def work(layer: Any, iteration: Any, inputs: Tree, own: list[Any]) -> Tree:
            inputs, own = jax.tree.map(
                lambda x: checkpoint_name(x, "iteration_input"), (inputs, own)
            )
            args, kwargs = side.fill(own, self._for_all_stages)
            return layer.body_fprop(
                iteration, schedule.num_microbatches, bf16_vars, inputs, False, *args, **kwargs
            )

        work = nn.remat(work, prevent_cse=False, policy=self._policy())

        def iterate(layer: Any, carry: Any, iteration: Any) -> tuple[Any, Any]:
            state, previous = carry
            first = buffer.read(state, iteration)
            if is_late:
                state = buffer.write(state, iteration - 1, last(previous))
            inputs, moved = self._shard_stages(shift_in(first, previous))
            current = moved
            if not self.pipeline_broadcast_inputs:
                current = take_each(own, schedule.microbatch_ids(iteration))
            outputs = self._shard_stages((work(layer, iteration, inputs, current), moved))
            if not is_late:
                state = buffer.write(state, iteration, last(outputs))
            return (state, outputs), outputs[0] if self.collect_intermediate_outputs else None

        carried = [name for name in STATISTICS if self.is_mutable_collection(name)]
        loop = nn.scan(
            iterate,
            # Flax carries only what may change.
            variable_broadcast=[PARAMS, *(set(STATISTICS) - set(carried))],
            variable_carry=carried,
            variable_axes=dict.fromkeys((*REPORTS, HYPER_PARAMS), 0),
            split_rngs={PARAMS: False, RANDOM: True},
            length=schedule.num_total_iterations,
        )
        start = buffer.start((inputs, travelling)), self._empty_stages((inputs, travelling))
        (state, outputs), collected = self._with_stored_layout(loop, schedule, to_accumulating)(
            self, start, jnp.arange(schedule.num_total_iterations)
        )
        if is_late:
            state = buffer.write(state, schedule.num_total_iterations - 1, last(outputs))
        if self.collect_intermediate_outputs:
            by_layer = self._by_layer(collected, schedule)
            self.sow(INTERMEDIATES, "pipeline_intermediates", by_layer)
        return buffer.finish(state)[0]

    def _policy(self) -> Callable[..., bool]:
        """The policy of the field; the inputs of an iteration are kept in any case."""
        return jax.checkpoint_policies.save_from_both_policies(
            custom_policy(self.checkpoint_policy),
            custom_policy(AutodiffCheckpointType.SAVE_ITERATION_INPUT),
        )

    def _empty_stages(self, microbatches: Tree) -> Tree:
        """What stages hold before the first iteration, [S, b, ...]."""
        empty = jax.tree.map(
            lambda x: jnp.zeros((self.num_stages, *x.shape[1:]), x.dtype), microbatches
        )
        return self._shard_stages(empty)

    def _for_all_stages(self, x: Array) -> Array:
        """An array that is the same for all stages, with an axis of stages."""
        return jnp.broadcast_to(x, (self.num_stages, *jnp.shape(x)))

    def _shard_stages(self, entries: Tree) -> Tree:
        """Annotates arrays [S, ...] with the sharding of stages; other axes are left open."""
        (axis,) = self.weight_split_dims_mapping.stages or (None,)
        if axis in (None, -1):
            return entries

        def shard(x: Array) -> Array:
            mapping = [axis, *[None] * (x.ndim - 1)]
            return base_layer.maybe_shard(x, mapping, self.mesh_axis_names, range(1, x.ndim))

        return jax.tree.map(shard, entries)

    def _with_stored_layout(
        self, run: Callable[..., Any], schedule: Schedule, to_accumulating: Any
    ) -> Callable[..., Any]:
        """Wraps the loop, whose reports are stacked by iteration, for reports as they are stored.

        Args:
          run: The loop.
          schedule: The order of work.
          to_accumulating: Casts parameters for the loop; None: they stay as they are.
        """
        mapped = [name for name in REPORTS if self.is_mutable_collection(name)]
        mapped += [] if to_accumulating is None else [PARAMS]
        if not mapped:
            return run
        earlier_losses = self.variables.get(AUX_LOSS, {})

        def load(stored: dict[str, Any]) -> dict[str, Any]:
            # A pass makes its reports anew.
            if to_accumulating is None or PARAMS not in stored:
                return {}
            return {PARAMS: to_accumulating(stored[PARAMS])}

        def store(seen: dict[str, Any]) -> dict[str, Any]:
            return {
                name: store_reports(name, tree) for name, tree in seen.items() if name in REPORTS
            }

        def store_reports(name: str, tree: Tree) -> Tree:
            if name == AUX_LOSS:
                losses = variables_lib.aux_losses(tree, schedule)
                return stacked_variables.sum_aux_losses(losses, earlier_losses)
            if name == SUMMARIES:
                return variables_lib.summaries(tree, schedule, self.unpack_summaries)
            return variables_lib.take_valid(tree, schedule)  # [R, S, M, ...]

        return nn.map_variables(
            run, mapped_collections=mapped, trans_in_fn=load, trans_out_fn=store, mutable=True
        )

    def _by_layer(self, outputs: Tree, schedule: Schedule) -> Tree:
        """From outputs of all iterations, [.., S, b, ...], those of each layer, [R S, B, ...]."""
        by_layer = jax.tree.map(
            lambda x: x.reshape(-1, *x.shape[2:]), variables_lib.take_valid(outputs, schedule)
        )  # [R S, M, b, ...]
        return jax.vmap(self._merge)(by_layer)

    # ---- accumulation of gradients --------------------------------------------------------------

    def _accumulation(
        self, schedule: Schedule, side: SideInputs, inputs: Tree, own: list[Any]
    ) -> tuple[Tree, Callable[[Tree], Tree] | None]:
        """How to cast parameters, so that their gradients add up well over iterations.

        Returns:
          Which ones to cast back to bfloat16, or None; what to apply outside of the loop, or None.
        """
        args, kwargs = side.fill(own, self._for_all_stages)
        overwritten = self.body_fprop(
            0, schedule.num_microbatches, None, inputs, True, *args, **kwargs
        )
        bf16_vars = None
        if self.bf16_accum_in_fp32:
            bf16_vars = variables_lib.is_bfloat16(self.body.variables.get(PARAMS, {}))
        if bf16_vars is None and not any(jax.tree.leaves(overwritten)):
            return None, None
        to_max = self.get_to_fm32_converter(overwritten)

        def to_accumulating(params: Tree) -> Tree:
            body = params["body"]
            if bf16_vars is not None:
                body = variables_lib.cast_where(body, bf16_vars, jnp.float32)
            return {**params, "body": to_max(body)}

        return bf16_vars, to_accumulating

    def _overwritten(self, inputs: Tree, *args: Any, **kwargs: Any) -> Tree:
        """Which parameters of the layer are overwritten with their gradient, a tree of bools."""
        assert self.single_stage_body is not None  # by setup
        template = self.single_stage_body.clone().set(name="body")
        self.copy_base_hparams(self, template)
        # Without a parent: not as a child of this layer.
        layer = base_layer.instantiate(template, parent=None)
        metadata = layer.abstract_init_with_metadata(inputs, *args, **kwargs)
        return jax.tree.map(
            base_layer.var_overwrite_with_gradient,
            metadata.get(PARAMS, {}),
            is_leaf=lambda node: isinstance(node, base_layer.WeightHParams),
        )

    def get_to_fm32_converter(self, owg_mask: Tree) -> Callable[[Tree], Tree]:
        """A function that casts parameters for which the mask is true, see `to_max_accumulating`.

        Args:
          owg_mask: Which variables are overwritten with their gradient: a tree of bools.
        """
        return functools.partial(variables_lib.to_max_accumulating, mask=owg_mask)
