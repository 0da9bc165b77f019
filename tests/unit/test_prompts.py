from collections import Counter

from orchestrator.online.prompts import rows_of_episode


def test_every_row_once_a_pass_across_episodes() -> None:
    rows = [row for episode in range(1, 6) for row in rows_of_episode(20, episode, 8, seed=3)]
    assert Counter(rows[:20]) == Counter(range(20))
    assert Counter(rows[20:40]) == Counter(range(20))
    assert rows[:20] != rows[20:40]


def test_an_episode_depends_on_its_number_and_the_seed_alone() -> None:
    assert rows_of_episode(50, 4, 10, seed=1) == rows_of_episode(50, 4, 10, seed=1)
    assert rows_of_episode(50, 4, 10, seed=1) != rows_of_episode(50, 4, 10, seed=2)


def test_an_episode_longer_than_the_data_takes_rows_again() -> None:
    assert Counter(rows_of_episode(3, 1, 7, seed=0)).most_common(1)[0][1] == 3
