"""The note on an exception says which layer, which method, and what it was given."""

import functools
import gc
import pickle
import weakref

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from praxis import base_layer, pax_fiddle, py_utils
from praxis.core import notes
from praxis.layers import repeats

KEY = jax.random.PRNGKey(0)


class Culprit(base_layer.BaseLayer):
    """Fails in the method it is told to fail in, or calls the parent with its own width."""

    error: type[BaseException] | None = None
    where: str = "call"

    def setup(self):
        if self.where == "create_variable":
            self.create_variable("w", base_layer.WeightHParams([0]))
        self.fail("setup")

    @nn.nowrap
    def fail(self, where):
        if self.where == where:
            raise (self.error or ValueError)(f"broken in {where}")

    def __call__(self, inputs, mask=None):
        self.fail("call")
        self.helper(inputs)
        return inputs

    def helper(self, inputs):
        self.fail("helper")

    def extend_step(self, inputs, *, time_step):
        self.fail("extend_step")
        return inputs


class Owner(base_layer.BaseLayer):
    inner_tpl: pax_fiddle.Config[base_layer.BaseLayer] = base_layer.template_field(Culprit)

    def setup(self):
        self.create_child("inner", self.inner_tpl)

    def __call__(self, inputs):
        return self.inner(inputs)

    def extend_step(self, inputs, *, time_step):
        return self.inner.extend_step(inputs, time_step=time_step)


def owner(**fields):
    inner = pax_fiddle.Config(Culprit, **fields)
    middle = pax_fiddle.Config(Owner, inner_tpl=inner)
    return pax_fiddle.build(pax_fiddle.Config(Owner, name="top", inner_tpl=middle))


def notes_of(call, kind: type[BaseException] = ValueError):
    with pytest.raises(kind) as caught:
        call()
    return ours(caught.value)


def ours(error):
    """The notes without JAX's, on frames it left out."""
    return [note for note in getattr(error, "__notes__", []) if "JAX has removed" not in note]


@pytest.mark.parametrize(
    ("where", "described"),
    [
        ("call", "__call__(inputs: float32[2, 3])"),
        ("helper", "helper(inputs: float32[2, 3])"),
        ("setup", "setup()"),
    ],
)
@pytest.mark.parametrize("run", [lambda call: call, jax.jit], ids=["eager", "jit"])
def test_innermost_and_outermost_layer_are_named_once(where, described, run):
    layer = owner(where=where)
    assert notes_of(lambda: run(layer.init)(KEY, jnp.ones([2, 3]))) == [
        f"In layer: Culprit 'top/inner/inner', method {described}",
        "Called from: Owner 'top', method __call__",
    ]


def test_declaring_a_variable():
    layer = owner(where="create_variable")
    innermost, outermost = notes_of(lambda: layer.init(KEY, jnp.ones([2])))
    assert innermost == "In layer: Culprit 'top/inner/inner', method setup()"
    assert outermost == "Called from: Owner 'top', method __call__"


def test_a_method_by_name():
    layer = owner(where="extend_step")
    run = functools.partial(layer.init, KEY, jnp.ones([2]), method="extend_step", time_step=4)
    assert notes_of(run) == [
        "In layer: Culprit 'top/inner/inner', method extend_step(inputs: float32[2], time_step: 4)",
        "Called from: Owner 'top', method extend_step",
    ]


def test_a_layer_alone_has_one_line():
    layer = pax_fiddle.build(pax_fiddle.Config(Culprit, name="alone", where="helper"))
    assert notes_of(lambda: layer.apply({}, jnp.ones([2, 3]))) == [
        "In layer: Culprit 'alone', method helper(inputs: float32[2, 3])"
    ]


@pytest.mark.parametrize("lift", ["scan", "vmap", "remat"])
def test_inside_a_lifted_body_the_path_is_whole(lift):
    class Lifted(base_layer.BaseLayer):
        def setup(self):
            self.create_child("inner", pax_fiddle.Config(Culprit))

        def __call__(self, inputs):
            if lift == "scan":
                body = nn.scan(lambda layer, carry, _: (layer.inner(carry), None), length=2)
                return body(self, inputs, None)
            run = nn.vmap if lift == "vmap" else nn.remat
            return run(lambda layer, inputs: layer.inner(inputs))(self, inputs)

    layer = pax_fiddle.build(pax_fiddle.Config(Lifted, name="top"))
    shape = [3] if lift == "vmap" else [2, 3]
    assert notes_of(lambda: layer.apply({}, jnp.ones([2, 3]))) == [
        f"In layer: Culprit 'top/inner', method __call__(inputs: float32{shape})",
        "Called from: Lifted 'top', method __call__",
    ]


def test_inside_repeat():
    sub = pax_fiddle.Config(Owner)
    layer = pax_fiddle.build(pax_fiddle.Config(repeats.Repeat, name="top", sub_tpl=sub, x_times=2))
    assert notes_of(lambda: layer.init(KEY, jnp.ones([2, 3]))) == [
        "In layer: Culprit 'top/sub/inner', method __call__(inputs: float32[2, 3])",
        "Called from: Repeat 'top', method __call__",
    ]


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, KeyboardInterrupt])
def test_signals_are_left_alone(kind):
    layer = owner(error=kind)
    assert notes_of(lambda: layer.apply({}, jnp.ones([2, 3])), kind) == []


def test_a_new_exception_from_an_old_one_has_a_note_of_its_own():
    class Translates(Owner):
        def __call__(self, inputs):
            try:
                return self.inner(inputs)
            except ValueError as error:
                raise TypeError("translated") from error

    layer = pax_fiddle.build(pax_fiddle.Config(Translates, name="top"))
    with pytest.raises(TypeError) as caught:
        layer.apply({}, jnp.ones([2]))
    assert ours(caught.value) == ["In layer: Translates 'top', method __call__(inputs: float32[2])"]
    assert caught.value.__cause__ is not None
    assert ours(caught.value.__cause__)[0].startswith("In layer: Culprit 'top/inner', method")


def test_notes_of_others_stay():
    class Remarks(Owner):
        def __call__(self, inputs):
            try:
                return self.inner(inputs)
            except ValueError as error:
                error.add_note("Are the inputs sorted?")
                raise

    layer = pax_fiddle.build(pax_fiddle.Config(Remarks, name="top"))
    assert notes_of(lambda: layer.apply({}, jnp.ones([2])))[1:] == [
        "Are the inputs sorted?",
        "Called from: Remarks 'top', method __call__",
    ]


def test_the_exception_pickles_and_holds_nothing():
    layer = owner()
    inputs = jnp.ones([2, 3])
    with pytest.raises(ValueError) as caught:
        layer.apply({}, inputs)
    error = caught.value.with_traceback(None)
    assert pickle.loads(pickle.dumps(error)).__notes__ == error.__notes__
    assert all(type(value) is str for value in vars(error)["__notes__"])


def test_no_reference_cycle():
    """The exception and its frames go away with the last name of them, without the collector."""

    class Tracked(ValueError):
        pass

    layer, gone = owner(error=Tracked), []
    gc.collect()
    gc.disable()
    try:
        try:
            layer.apply({}, jnp.ones([2, 3]))
        except Tracked as error:
            gone.append(weakref.ref(error))
        assert gone[0]() is None
    finally:
        gc.enable()


def test_an_error_in_the_description_does_not_hide_the_exception():
    class Unprintable:
        shape = property(lambda self: 1 / 0)
        dtype = "x"

    layer = owner()
    assert notes_of(lambda: layer.apply({}, Unprintable())) == []


def method(self, x, *more, mask=None, **rest):
    pass


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ([jnp.ones([2, 3], jnp.bfloat16), None], {}, "x: bfloat16[2, 3], more: (None)"),
        ([1.5], {"mask": True, "top": 2}, "x: 1.5, mask: True, rest: {top: 2}"),
        ([py_utils.NestedMap(ids=jnp.zeros([5], int))], {}, "x: {ids: int32[5]}"),
        ([[jnp.ones([]), (2, "a")]], {}, "x: [float32[], (2, 'a')]"),
        ([list(range(20))], {}, "x: [0, 1, 2, 3, 4, 5, 6, 7, ...]"),
        (["y" * 99], {}, f"x: '{'y' * 36}..."),
        ([Culprit], {}, "x: Culprit"),
        ([gc], {}, "x: gc"),
        ([], {"mask": 1}, "mask: 1"),
    ],
)
def test_arguments(args, kwargs, text):
    assert notes.arguments_text(method, args, kwargs) == text


def test_long_arguments_are_cut():
    text = notes.arguments_text(method, ["z"], {f"name{index}": "v" * 30 for index in range(20)})
    assert len(text) == 300
    assert text.endswith("...")


def test_a_call_that_does_not_fit_the_signature():
    layer = owner()
    assert notes_of(lambda: layer.apply({}, 1, 2, 3), TypeError) == [
        "In layer: Owner 'top', method __call__(args[0]: 1, args[1]: 2, args[2]: 3)"
    ]
