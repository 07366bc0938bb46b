"""Old hyperparameters and the classes made from them."""

from typing import Any, ClassVar

import pytest

from praxis import base_hyperparams, pax_fiddle

BaseHyperParams = base_hyperparams.BaseHyperParams


class Inner(BaseHyperParams):
    size: int = 3


class Outer(BaseHyperParams):
    a: int = 1
    inner: Any = base_hyperparams.sub_config_field(Inner)
    nothing: Any = base_hyperparams.sub_config_field()
    late: Any = base_hyperparams.sub_config_field(lazy_ref=lambda: Inner)


class Thing(base_hyperparams.BaseParameterizable):
    _USE_DEPRECATED_HPARAMS_BASE_PARAMETERIZABLE: ClassVar[bool] = True

    class HParams(base_hyperparams.BaseParameterizable.HParams):
        needed: int
        size: int = 2

    def __init__(self, hparams, extra=0):
        super().__init__(hparams)
        self.extra = extra


class Child(Thing):
    class HParams(Thing.HParams):
        more: int = 7


class Plain(base_hyperparams.BaseParameterizable):
    """Its settings do not derive from those of the base."""

    _USE_DEPRECATED_HPARAMS_BASE_PARAMETERIZABLE: ClassVar[bool] = True

    class HParams(BaseHyperParams):  # pyright: ignore[reportIncompatibleVariableOverride]
        size: int = 2


def test_fields_and_defaults():
    hparams = Outer()
    assert (hparams.a, hparams.inner, hparams.late) == (1, Inner(), Inner())
    assert hparams.nothing is None
    assert hparams.set(a=2) is hparams and hparams.a == 2
    assert Outer.config(a=3).Instantiate() == Outer(a=3)
    assert pax_fiddle.build(Outer.partial())(a=4) == Outer(a=4)


def test_unknown_field():
    with pytest.raises(AttributeError, match="Outer has no field 'zzz'"):
        Outer().zzz = 1


def test_redeclared_field():
    with pytest.raises(AttributeError, match=r"Again\.a is declared.*_attribute_overrides"):

        class Again(Outer):
            a: int = 2

    class Allowed(Outer):
        _attribute_overrides = ("a",)
        a: int = 2

    assert Allowed().a == 2


def test_freeze_and_clone():
    hparams = Outer()
    hparams.freeze()
    for frozen in (hparams, hparams.inner):
        with pytest.raises(AttributeError, match="is frozen"):
            frozen.set(**{"a" if frozen is hparams else "size": 5})
    cloned = hparams.clone()
    cloned.inner.size = 5
    assert hparams.inner.size == 3
    hparams.unfreeze()
    hparams.inner.size = 4


def test_given_hyperparameters_are_cloned():
    inner = Inner()
    assert Outer(inner=inner).inner == inner
    assert Outer(inner=inner).inner is not inner


def test_copy_fields_from():
    class More(Outer):
        more: int = 1

    target, source = Outer(), More(a=5, inner=Inner(size=9))
    with pytest.raises(ValueError, match="Outer lacks the field 'more'"):
        target.copy_fields_from(source)
    target.copy_fields_from(source, missing_fields_in_self=["more"])
    assert (target.a, target.inner.size) == (5, 9)
    assert target.inner is not source.inner
    with pytest.raises(TypeError, match="got a config"):
        target.copy_fields_from(pax_fiddle.Config(Outer))  # pyright: ignore[reportArgumentType]


def test_text():
    assert Inner().to_text() == "size : 3\n"
    pairs = [("first", Inner()), ("second", Inner(size=4))]
    assert base_hyperparams.nested_struct_to_text({"a": pairs}) == (
        "a[first].size : 3\na[second].size : 4\n"
    )
    assert base_hyperparams.nested_struct_to_text([Inner()]) == "[0].size : 3\n"


def test_traversals_walk_into_hyperparameters():
    values = [value for value, _ in pax_fiddle.iterate({"a": Outer(inner=Inner(size=99))})]
    assert 99 in values
    doubled = pax_fiddle.MemoizedTraversal.run(
        lambda value, state: 2 * value if isinstance(value, int) else state.map_children(value),
        Inner(size=99),
    )
    assert doubled == Inner(size=198)


def test_instantiate():
    hparams = Thing.HParams(needed=1)
    thing = hparams.Instantiate(extra=3)
    assert (type(thing), thing.extra, thing.hparams.needed) == (Thing, 3, 1)
    assert type(base_hyperparams.instantiate(hparams)) is Thing
    assert Plain.make(size=3).hparams.size == 3
    with pytest.raises(AttributeError, match="is frozen"):
        thing.hparams.size = 3


def test_make_splits_its_arguments():
    child = Child.make(needed=1, more=8, extra=2)
    assert (type(child), child.hparams.more, child.hparams.size, child.extra) == (Child, 8, 2, 2)
    with pytest.raises(ValueError, match=r"Child: values are missing for \['needed'\]"):
        Child.make()
    assert Thing.config(needed=4).Instantiate().hparams.needed == 4
    assert pax_fiddle.build(Thing.partial(needed=4))().hparams.needed == 4


def test_wrong_definitions():
    with pytest.raises(ValueError, match="derive from FiddleBaseParameterizable"):

        class Undecided(base_hyperparams.BaseParameterizable):
            pass

    with pytest.raises(TypeError, match=r"Both: \['size'\] are in HParams and in __init__"):

        class Both(Thing):
            def __init__(self, hparams, size):
                pass

    with pytest.raises(TypeError, match=r"Without\.__init__ has no parameter 'hparams'"):

        class Without(Thing):
            def __init__(self):
                pass


def test_sub_config_field_protocol():
    stub = base_hyperparams.FiddleHParamsClassStub(Inner)
    assert (stub.cls, stub.config(size=4)) == (Inner, pax_fiddle.Config(Inner, size=4))
    assert stub(size=4) == stub.config(size=4)

    class Holder(base_hyperparams.FiddleBaseParameterizable):
        inner_tpl: pax_fiddle.Config = base_hyperparams.sub_config_field(stub)

    assert Holder().inner_tpl == pax_fiddle.Config(Inner)
    with pytest.raises(TypeError, match="got both"):
        base_hyperparams.sub_config_field(Inner, lazy_ref=lambda: Inner)


def test_children_of_the_old_kind_give_their_hparams():
    class Holder(base_hyperparams.FiddleBaseParameterizable):
        thing: Any
        size: int = 1

    holder = Holder(thing=Thing.make(needed=1))
    assert holder.hparams.thing.needed == 1
    assert holder.hparams.clone() == pax_fiddle.Config(Holder, size=1, name="")
