"""Nodes are values: the parser's tests compare whole trees."""

from queueproxy.requestlog import tree


def test_two_trees_of_the_same_shape_are_equal_and_others_are_not() -> None:
    def made(name: str) -> tree.Action:
        return tree.Action(tree.Pipe((tree.Command((tree.Field((name,)),)),), (), False, 1))

    assert made("A") == made("A") != made("B")


def test_a_number_knows_when_it_has_no_value() -> None:
    assert tree.Number("18446744073709551615", None, None).ideal is None
