from harness.trials import chosen


def test_the_lowest_loss_is_chosen_and_of_equals_the_smaller_factor() -> None:
    assert chosen({0.5: 3.0, 1: 2.0, 2: 2.5}, 1.0).scale == 1
    assert chosen({0.5: 2.0, 1: 2.0, 2: 2.0}, 1.0).scale == 0.5


def test_a_factor_at_the_edge_is_said_to_be_there() -> None:
    assert chosen({0.5: 3.0, 1: 2.0, 2: 2.5}, 1.0).note() == "learning rates x 1, of 0.5, 1, 2"
    assert (
        chosen({0.5: 3.0, 1: 2.0, 2: 1.5}, 1.0).note()
        == "learning rates x 2, of 0.5, 1, 2 (at the edge of those tried)"
    )
    assert chosen({0.5: 1.0, 1: 2.0, 2: 1.5}, 1.0).note().endswith("(at the edge of those tried)")
