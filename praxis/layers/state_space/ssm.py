"""State space layers: one recurrence for each channel (SSM), or one for all of them (S5)."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex, Float

from praxis import base_layer
from praxis.layers.checks import check_last_axis, check_sizes
from praxis.layers.sharding import shard_output
from praxis.layers.state_space import diagonal, parallel
from praxis.layers.state_space.hippo import diagonal_poles

WeightInit = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams
SplitDimsMapping = base_layer.SplitDimsMapping
DecodeStateTransformFn = base_layer.DecodeStateTransformFn
STATE = "ssm_state"


class Prefill(NamedTuple):
    """States at the end of a sequence; [B, ...], as the layer's decode state.

    Attributes:
      before_last: Before the last step.
      last: After it.
    """

    before_last: Complex[Array, "..."]
    last: Complex[Array, "..."]


class SSM(base_layer.BaseLayer):
    """A diagonal state space layer, S4D: a linear recurrence for each channel.

    Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models", 2022,
    arXiv:2206.11893. The poles `a` are fixed, see `hippo.diagonal_poles`, and so is the step; see
    `diagonal` for the formula, in which b is 1, and to whose outputs `D u` is added. Whole
    sequences are convolved with the response to an impulse. All of it is computed in float32.
    Shapes: N is `nheads`, D is `dim`.

    Attributes:
      nheads: N, complex numbers in the state of a channel. Required.
      dim: D, width of inputs and outputs. Required.
      l_max: Most time steps of a sequence. Required.
      decode_num_samples: A call makes decode states for this many continuations of each row; 0
        makes them for one.
      step_size: Time between two steps, above 0.
      hippo_type: Which poles: those of a HiPPO matrix if it ends in "legs" or "lagt".

    Variables:
      D: [1, D]
      C_re, C_im: [N, D], sharded with `weight_split_dims_mapping.wt`

    Decode state:
      ssm_state: [B, N, D], complex64

    Raises:
      ValueError: during setup, if a field is out of range; in calls, if inputs are too long, or do
        not have D channels, or not the batch of the state.

    Example:
      >>> from praxis import pax_fiddle
      >>> config = pax_fiddle.Config(SSM, name="ssm", nheads=8, dim=4, l_max=16)
      >>> layer = pax_fiddle.build(config)
      >>> x = jnp.ones([2, 16, 4])  # [B, T, D]
      >>> variables = layer.init(jax.random.PRNGKey(0), x)
      >>> layer.apply(variables, x).shape
      (2, 16, 4)
    """

    nheads: int = 0
    dim: int = 0
    l_max: int = 0
    decode_num_samples: int = 0
    step_size: float = 0.01
    hippo_type: str = "ss4d-1d"

    def setup(self) -> None:
        self._check_fields()
        self._create("D", [1, self.dim], WeightInit.Constant(1.0))
        self.init_s4d_ac(self.nheads)

    def _check_fields(self) -> None:
        check_sizes(self, "nheads", "dim", "l_max")
        if self.decode_num_samples < 0:
            raise ValueError(
                f"{self.path_text}: decode_num_samples is {self.decode_num_samples}, expected 0 or "
                "more continuations of each row."
            )
        if self.step_size <= 0:
            raise ValueError(f"{self.path_text}: step_size is {self.step_size}, expected above 0.")

    def _create(
        self, name: str, shape: list[int], init: WeightInit, split: SplitDimsMapping = None
    ) -> None:
        hparams = WeightHParams(
            shape=shape, init=init, mesh_shape=self.mesh_shape, tensor_split_dims_mapping=split
        )
        self.create_variable(name, hparams)

    def _create_complex(
        self, name: str, shape: list[int], scale: float, split: SplitDimsMapping = None
    ) -> None:
        """Creates the parts of a complex variable, both normal with a standard deviation."""
        for part in ("re", "im"):
            self._create(name.format(part), shape, WeightInit.Gaussian(scale), split)

    def _complex(self, name: str) -> Complex[Array, "..."]:
        """A complex variable as complex64."""
        theta = self.theta
        parts = (theta[name.format(part)].astype(jnp.float32) for part in ("re", "im"))
        return lax.complex(*parts)

    def init_s4d_ac(
        self, nh: int, suffix: str = ""
    ) -> tuple[Complex[Array, "N D"], Complex[Array, "N D"]]:
        """Creates the output weights of a state of `nh` numbers; in `setup`.

        Args:
          nh: N.
          suffix: Of the names of the variables.

        Returns:
          Poles and output weights, both [N, D].
        """
        split = self.weight_split_dims_mapping.wt
        self._create_complex(f"C_{{}}{suffix}", [nh, self.dim], math.sqrt(0.5), split)
        poles = jnp.asarray(diagonal_poles(nh, self.hippo_type))[:, jnp.newaxis]
        return jnp.broadcast_to(poles, (nh, self.dim)), self._complex(f"C_{{}}{suffix}")

    @property
    def _poles(self) -> Complex[Array, "N 1"]:
        return jnp.asarray(diagonal_poles(self.nheads, self.hippo_type))[:, jnp.newaxis]

    # ---- the maths, which S5 replaces -----------------------------------------------------------

    def _run(self, inputs: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Outputs of a whole sequence, without the direct term."""
        kernel = diagonal.s4d_kernel_zoh(
            self._complex("C_{}"), self._poles, inputs.shape[1], self.step_size
        )
        return diagonal.causal_convolution(inputs, kernel)

    def _step(
        self, inputs: Float[Array, "B D"], state: Complex[Array, "B N D"]
    ) -> tuple[Complex[Array, "B N D"], Float[Array, "B D"]]:
        """State and outputs of one step, without the direct term."""
        ab, bb = diagonal.s4d_discretize(
            self._poles, jnp.ones_like(self._poles.real), self.step_size
        )
        return diagonal.s4d_step(ab, bb, self._complex("C_{}"), inputs, state)

    def _final_state(self, inputs: Float[Array, "B T D"]) -> Complex[Array, "B N D"]:
        """The state after a sequence."""
        return diagonal.s4d_final_state(self._poles, inputs, self.step_size)

    def _state_shape(self, batch_size: int) -> tuple[int, ...]:
        return batch_size, self.nheads, self.dim

    def _finish(
        self, outputs: Float[Array, "*B D"], inputs: Float[Array, "*B D"]
    ) -> Float[Array, "*B D"]:
        """Adds the direct term, and casts."""
        direct = self.theta.D.astype(jnp.float32).reshape((1,) * (inputs.ndim - 1) + (self.dim,))
        return shard_output(self, (outputs + direct * inputs).astype(self.fprop_dtype))

    # ---- calls ----------------------------------------------------------------------------------

    def __call__(self, inputs: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Applies the layer to whole sequences, from the state 0.

        It also resets the decode state to 0, for steps over the same sequences; see `prefill` for
        steps that continue them.

        Args:
          inputs: [B, T, D], T at most `l_max`.

        Returns:
          [B, T, D]; output t sees inputs 0 to t.
        """
        self._check_inputs(inputs, rank=3)
        if inputs.shape[1] > self.l_max:
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape}, [B, T, D], which is longer "
                f"than l_max = {self.l_max} time steps. Set l_max to {inputs.shape[1]}."
            )
        self.init_states(inputs.shape[0] * max(self.decode_num_samples, 1))
        inputs = inputs.astype(jnp.float32)
        return self._finish(self._run(inputs), inputs)

    def init_states(self, batch_size: int) -> None:
        """Sets the decode state of `batch_size` rows to 0."""
        self.update_decode_state(STATE, jnp.zeros(self._state_shape(batch_size), jnp.complex64))

    def prefill(self, inputs: Float[Array, "B T D"]) -> Prefill:
        """The states at the end of sequences, [B, T, D] with T at least 1."""
        inputs = inputs.astype(jnp.float32)
        before_last = self._final_state(inputs[:, :-1])
        return Prefill(before_last, self._step(inputs[:, -1], before_last)[0])

    def extend_step(self, inputs: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Applies the layer to one step, or several, and moves the decode state on.

        Args:
          inputs: [B, D], or [B, L, D] for L steps.

        Returns:
          Of the shape of the inputs.
        """
        return self.extend_from(self.get_decode_state(STATE), inputs)

    def extend_from(
        self, state: Complex[Array, "b ..."], inputs: Float[Array, "*B D"]
    ) -> Float[Array, "*B D"]:
        """As `extend_step`, from a given state, [B, ...], in place of the decode state."""
        self._check_inputs(inputs, rank=2 if inputs.ndim == 2 else 3)
        if state.shape[0] != inputs.shape[0]:
            raise ValueError(
                f"{self.path_text}: extend_step got inputs of shape {inputs.shape}, a batch of "
                f"{inputs.shape[0]}, but the decode state has a batch of {state.shape[0]}. Set "
                "decode_num_samples to the number of continuations of each row, or repeat the "
                "state with transform_decode_state."
            )
        steps = inputs.astype(jnp.float32)
        if inputs.ndim == 2:
            state, outputs = self._step(steps, state)
        else:
            state, outputs = lax.scan(
                lambda x, u: self._step(u, x), state, jnp.swapaxes(steps, 0, 1)
            )
            outputs = jnp.swapaxes(outputs, 0, 1)
        self.update_decode_state(STATE, state)
        return self._finish(outputs, steps)

    def transform_decode_state(self, transform_fn: DecodeStateTransformFn) -> None:
        """Replaces the decode state, which has no time axis, by `transform_fn(state, 0, -1)`."""
        self.update_decode_state(STATE, transform_fn(self.get_decode_state(STATE), 0, -1))

    def _check_inputs(self, inputs: Float[Array, "..."], rank: int) -> None:
        check_last_axis(self, inputs, "dim")
        if inputs.ndim != rank:
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape}, expected [B, T, D]"
                f"{'' if rank == 3 else ' or [B, D]'}."
            )


class S5(SSM):
    """A diagonal state space layer, S5: one linear recurrence with all channels as its input.

    Smith et al., "Simplified State Space Layers for Sequence Modeling", 2022, arXiv:2208.04933.
    Poles and step are fixed as in `SSM`; whole sequences are scanned in parallel. Shapes: N is
    `nheads`, D is `dim`.

    Attributes:
      use_input_matrix: Feed the inputs through B, as in the paper. False feeds their sum to all of
        the state, and leaves B untrained, as models were trained that have it so.

    Variables:
      D: [D]
      B_re, B_im: [N, D], sharded with `weight_split_dims_mapping.wt`
      C_re, C_im: [D, N], sharded with the reverse of it

    Decode state:
      ssm_state: [B, N], complex64

    Raises:
      ValueError: as `SSM`.
    """

    use_input_matrix: bool = False

    def setup(self) -> None:
        self._check_fields()
        self._create("D", [self.dim], WeightInit.Constant(1.0))
        self.init_s5_abc(self.nheads)

    def init_s5_abc(
        self, nh: int, suffix: str = ""
    ) -> tuple[Complex[Array, " N"], Complex[Array, "N D"], Complex[Array, "D N"]]:
        """Creates input and output matrix of a state of `nh` numbers; in `setup`.

        Args:
          nh: N.
          suffix: Of the names of the variables.

        Returns:
          Poles [N], input matrix [N, D] and output matrix [D, N].
        """
        split = self.weight_split_dims_mapping.wt
        reverse = None if split is None else tuple(reversed(split))
        names = f"B_{{}}{suffix}", f"C_{{}}{suffix}"
        self._create_complex(names[0], [nh, self.dim], 1.0 / math.sqrt(self.dim), split)
        self._create_complex(names[1], [self.dim, nh], 1.0 / math.sqrt(nh), reverse)
        poles = jnp.asarray(diagonal_poles(nh, self.hippo_type))
        return poles, self._complex(names[0]), self._complex(names[1])

    def _system(self) -> parallel.System:
        b = self._complex("B_{}")
        if not self.use_input_matrix:
            b = jnp.ones_like(b)
        ab, bb = parallel.s5_discretize(self._poles[:, 0], b, self.step_size)
        return ab, bb, self._complex("C_{}")

    def _run(self, inputs: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        system = self._system()
        return jax.vmap(lambda row: parallel.s5_parallel_scan(system, row))(inputs)

    def _step(
        self, inputs: Float[Array, "B D"], state: Complex[Array, "B N"]
    ) -> tuple[Complex[Array, "B N"], Float[Array, "B D"]]:
        return parallel.s5_step(*self._system(), inputs, state)

    def _final_state(self, inputs: Float[Array, "B T D"]) -> Complex[Array, "B N"]:
        _, bb, _ = self._system()
        return parallel.s5_final_state(self._poles[:, 0], bb, inputs, self.step_size)

    def _state_shape(self, batch_size: int) -> tuple[int, ...]:
        return batch_size, self.nheads
