"""Values: what a frozen dataclass promises, held by one base class."""

from __future__ import annotations

from typing import Any

import pytest

from awaitelect.values import Value, as_dict, changed


class Point(Value):
    x: int
    y: int = 2


class Named(Point):
    _unseen = frozenset({"secret"})

    name: str = ""
    secret: Any = None


def test_fields_are_given_by_place_or_by_name_and_the_rest_by_default() -> None:
    assert (Point(1).x, Point(1).y) == (1, 2)
    assert Point(1, y=3) == Point(x=1, y=3) == Point(1, 3)
    assert as_dict(Named(1, name="a")) == {"x": 1, "y": 2, "name": "a", "secret": None}


@pytest.mark.parametrize(
    ("values", "named"), [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((), {"y": 1})]
)
def test_a_field_too_few_too_many_or_twice_is_a_type_error(values: tuple[int, ...], named: dict[str, int]) -> None:
    with pytest.raises(TypeError, match="Point"):
        Point(*values, **named)


def test_nothing_changes_a_value() -> None:
    point = Point(1)
    with pytest.raises(AttributeError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del point.x
    assert changed(point, x=5) == Point(5, 2)
    assert point == Point(1, 2)
    with pytest.raises(TypeError):
        changed(point, z=1)


def test_equal_values_have_one_class_and_the_same_seen_fields() -> None:
    assert Point(1, 2) != Named(1, 2)
    assert Named(1, secret="a") == Named(1, secret="b")
    assert len({Named(1, secret=[1]), Named(1, secret=[2]), Named(2)}) == 2
    assert changed(Named(1, secret="a"), x=2).secret == "a"


def test_what_is_unseen_is_not_shown() -> None:
    assert repr(Named(1, name="a", secret="hidden")) == "Named(x=1, y=2, name='a')"


def test_a_value_can_be_matched() -> None:
    match Point(1):
        case Point(x, y):
            assert (x, y) == (1, 2)


def test_a_value_in_a_value_is_a_dict_in_a_dict() -> None:
    assert as_dict(Named(1, secret=Point(3))) == {"x": 1, "y": 2, "name": "", "secret": {"x": 3, "y": 2}}
