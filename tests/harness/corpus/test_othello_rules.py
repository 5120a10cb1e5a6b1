import random

import numpy as np
import pytest

from harness.corpus.othello_rules import Rules

STEPS = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]


def slow_turned(board, player, row, column):
    """Squares that a move turns over, on a mapping of squares to players: by walking from it."""
    found = []
    if board[row, column] != ".":
        return found
    for a, b in STEPS:
        line, r, c = [], row + a, column + b
        while board.get((r, c)) not in (None, ".", player):
            line.append((r, c))
            r, c = r + a, c + b
        if board.get((r, c)) == player:
            found += line
    return found


def slow_start(size):
    board = {(row, column): "." for row in range(size) for column in range(size)}
    for row in (size // 2 - 1, size // 2):
        for column in (size // 2 - 1, size // 2):
            board[row, column] = "O" if row == column else "X"
    return board


def slow_perft(board, player, depth):
    """Sequences of so many half-moves, a pass being one where it is forced."""
    if depth == 0:
        return 1
    other = "O" if player == "X" else "X"
    moves = [(square, turned) for square in board if (turned := slow_turned(board, player, *square))]
    if not moves:
        can = any(slow_turned(board, other, *square) for square in board)
        return slow_perft(board, other, depth - 1) if can else 0
    return sum(
        slow_perft(board | dict.fromkeys([*turned, square], player), other, depth - 1) for square, turned in moves
    )


def members(bits):
    return [place for place in range(64) if bits >> place & 1]


def perft(rules, mine, theirs, depth):
    legal = rules.legal(mine, theirs)
    if depth == 1 and legal:
        return legal.bit_count()
    if depth == 0:
        return 1
    if not legal:
        return perft(rules, theirs, mine, depth - 1) if rules.legal(theirs, mine) else 0
    count = 0
    for place in members(legal):
        turned = rules.turned_by(mine, theirs, place)
        count += perft(rules, theirs ^ turned, mine | turned | 1 << place, depth - 1)
    return count


@pytest.mark.parametrize(("depth", "count"), list(enumerate([1, 4, 12, 56, 244, 1396, 8200, 55092])))
def test_games_on_8_by_8_are_as_many_as_others_have_counted(depth, count):
    rules = Rules(8)
    assert perft(rules, *rules.start, depth) == count


@pytest.mark.parametrize(("size", "depth"), [(4, 8), (6, 1), (6, 3), (6, 5), (6, 6)])
def test_games_on_smaller_boards_are_as_many_as_a_walk_over_the_squares_counts(size, depth):
    rules = Rules(size)
    assert perft(rules, *rules.start, depth) == slow_perft(slow_start(size), "X", depth)


@pytest.mark.parametrize("size", [4, 6, 8])
def test_one_board_and_many_at_once_have_the_moves_and_turns_of_a_walk(size):
    """On boards filled at random, which no game need reach: every line, edge and corner."""
    chance, rules = random.Random(size), Rules(size)
    boards = [{square: chance.choice("XXOOO.") for square in slow_start(size)} for _ in range(60)]
    sides = [[sum(1 << size * r + c for (r, c), who in b.items() if who == side) for b in boards] for side in "XO"]
    mine, theirs = (np.array(side, dtype=np.uint64) for side in sides)
    legal = rules.legal(mine, theirs)
    for place in range(size * size):
        turned = rules.turned(mine, theirs, np.full(len(boards), 1 << place, dtype=np.uint64))
        for number, board in enumerate(boards):
            row, column = divmod(place, size)
            if board[row, column] != ".":
                assert not int(legal[number]) >> place & 1
                continue
            wanted = sum(1 << size * r + c for r, c in slow_turned(board, "X", row, column))
            one = sides[0][number], sides[1][number]
            assert int(turned[number]) == rules.turned(*one, 1 << place) == rules.turned_by(*one, place) == wanted
            assert int(legal[number]) >> place & 1 == rules.legal(*one) >> place & 1 == (wanted > 0)


def test_squares_are_named_by_file_and_rank():
    rules = Rules(6)
    assert [rules.name(place) for place in (0, 1, 6, 35)] == ["a1", "b1", "a2", "f6"]
    assert members(rules.start[0]) == [15, 20]  # black: d3, c4
    assert members(rules.legal(*rules.start)) == [8, 13, 22, 27]  # c2, b3, e4, d5
