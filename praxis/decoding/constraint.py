"""Conditions of users that end samples."""

from jaxtyping import Array, Bool, Shaped

from praxis import base_hyperparams, py_utils


class BaseSampleTerminationConstraint(base_hyperparams.FiddleBaseParameterizable):
    """Decides after each step which samples end; subclasses implement `__call__`."""

    def __call__(
        self,
        enforce_sample_constraints: Shaped[Array, "..."],
        decode_loop_state: py_utils.NestedMap,
    ) -> Bool[Array, " N"]:
        """Says which samples are done.

        Args:
          enforce_sample_constraints: [N, ...], of the batch, whether and what to enforce.
          decode_loop_state: The state of the loop, with `done` [N].

        Returns:
          [N], the new `done`.

        Raises:
          NotImplementedError: if the subclass does not implement it.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.__call__ is not implemented: return the new `done`, [N]."
        )
