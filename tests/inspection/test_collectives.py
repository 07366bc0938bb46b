"""Collectives read from the text of compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from praxis.inspection.collectives import Collective, collectives, total_sent_bytes

TEXT = """\
HloModule jit_step, entry_computation_layout={()->f32[]}

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%body (state: (s32[], f32[8,3])) -> (s32[], f32[8,3]) {
  %g = bf16[8,3]{1,0} all-gather(%x), replica_groups=[2,4]<=[8], dimensions={0}, metadata={META}
  %s = f32[2,3]{1,0} reduce-scatter(%g), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
}

%never (x: f32[]) -> f32[] {
  %r = f32[1000]{0} all-reduce(%x), replica_groups={}, to_apply=%add
}

ENTRY %main (p: f32[8,3]) -> f32[] {
  %w = (s32[], f32[8,3]{1,0}) while(%t), condition=%cond, body=%body, backend_config={TRIPS}
  %r = (f32[4],/*index=1*/f32[]) all-reduce(%p), replica_groups=mesh['x'=2,'y'=4] {'y'}, to_apply=f
  %a = (f32[6]{0}, f32[48]{0}) all-gather-start(%p), replica_groups={}, dimensions={0}
  %c = f32[7]{0} collective-permute(%p), source_target_pairs={{0,1},{1,0}}
}
""".replace("META", 'op_name="jit(step)/lm/ffn/dot_general" stack_frame_id=1').replace(
    "TRIPS", '"known_trip_count":{"n":"5"},"known_init_step":{}'
)


def test_kinds_sizes_groups_and_loops():
    found = {one.kind: one for one in collectives(TEXT) if one.times == 5}
    assert found["all-gather"] == Collective(
        "all-gather", ((8, 3),), 48.0, 4, 5, "jit(step)/lm/ffn/dot_general"
    )
    assert found["reduce-scatter"] == Collective("reduce-scatter", ((2, 3),), 24.0, 4, 5, "")
    reduced, started, moved = [one for one in collectives(TEXT) if one.times == 1]
    assert reduced == Collective("all-reduce", ((4,), ()), 20.0, 4, 1, "")
    assert started == Collective("all-gather", ((48,),), 192.0, 0, 1, "")
    assert moved == Collective("collective-permute", ((7,),), 28.0, 0, 1, "")


def test_bytes_sent_in_rings():
    sent = total_sent_bytes(collectives(TEXT), 8)
    assert sent == {
        "all-gather": 5 * 48 * 3 / 4 + 192 * 7 / 8,
        "reduce-scatter": 5 * 24 * 3,
        "all-reduce": 2 * 20 * 3 / 4,
        "collective-permute": 28.0,
    }


@pytest.mark.parametrize(
    ("specs", "kind"),
    [
        # Of a product with the contracted dim split, the parts are summed.
        ((PartitionSpec(None, "x"), PartitionSpec("x", None), PartitionSpec()), "all-reduce"),
        ((PartitionSpec("x"), PartitionSpec(), PartitionSpec()), "all-gather"),
    ],
    ids=["summed", "gathered"],
)
def test_a_real_program(specs, kind):
    """A product of [3, 8] by [8, 5], and one of [4, 8] whose rows are put together."""
    mesh = Mesh(np.array(jax.devices()[:4]), ("x",))
    left, right, out = (NamedSharding(mesh, spec) for spec in specs)
    product = jax.jit(jnp.dot, in_shardings=(left, right), out_shardings=out)
    rows = 3 if kind == "all-reduce" else 4
    a = jax.ShapeDtypeStruct((rows, 8), jnp.float32)
    b = jax.ShapeDtypeStruct((8, 5), jnp.float32)
    (found,) = collectives(product.lower(a, b).compile().as_text() or "")
    assert (found.kind, found.group_size or 4, found.times) == (kind, 4, 1)
    if kind == "all-reduce":
        assert (found.shapes, found.num_bytes) == (((3, 5),), 3 * 5 * 4)
