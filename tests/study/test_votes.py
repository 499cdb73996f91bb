"""On SQLite, and on the PostgreSQL server that the set-up of the tests starts."""

import multiprocessing
import os
import signal
import threading

import pytest
from sqlalchemy import create_engine, text

from videogpa.errors import InputError
from videogpa.study.votes import OutOfTurn, Rater, Vote, Votes, now, sqlite_url


def vote(rater: Rater, position: int, **changes) -> Vote:
    given = {
        "rater": rater, "position": position, "item": f"pair{position}", "left": "first", "again": False,
        "answers": {"consistent": "left"}, "tags": ["blurry"], "seconds": 2.5, "received": now(),
    }  # fmt: skip
    return Vote(**given | changes)


def test_votes_come_back_as_they_were_given(database):
    votes = Votes(database, "m")
    (first, token), (second, _) = votes.add_rater(), votes.add_rater()
    assert votes.rater(token) == first
    assert votes.rater(token[:-1]) is None
    given = [vote(first, 0), vote(first, 1, answers={"consistent": "right"}), vote(second, 0, tags=[])]
    assert all(votes.record(v, last=False) for v in given)
    assert [v for v in Votes(database, "m").all()] == given
    assert (votes.answered(first), votes.answered(second)) == (2, 1)


def test_a_vote_counts_once_and_the_first_counts(database):
    votes = Votes(database, "m")
    rater, _ = votes.add_rater()
    assert votes.record(vote(rater, 0), last=False)
    assert not votes.record(vote(rater, 0), last=False)
    with pytest.raises(OutOfTurn, match="another answer already"):
        votes.record(vote(rater, 0, answers={"consistent": "right"}), last=False)
    with pytest.raises(OutOfTurn, match="another answer already"):
        votes.record(vote(rater, 0, tags=[]), last=False)
    with pytest.raises(OutOfTurn, match="not the next one"):
        votes.record(vote(rater, 2), last=False)
    assert len(votes.all()) == 1


def test_the_last_vote_finishes_the_rater(database):
    votes = Votes(database, "m")
    rater, _ = votes.add_rater()
    votes.record(vote(rater, 0), last=False)
    assert votes.finished() == 0
    votes.record(vote(rater, 1), last=True)
    assert votes.finished() == 1
    assert [finished is not None for _, _, finished in votes.raters()] == [True]


def test_many_at_once_lose_and_double_nothing(database):
    votes = Votes(database, "m")
    raters = [votes.add_rater()[0] for _ in range(8)]
    outcomes = []

    def rate(rater: Rater, answer: str) -> None:
        for position in range(10):
            try:
                outcomes.append(
                    votes.record(vote(rater, position, answers={"q": answer}), last=position == 9)
                )
            except OutOfTurn:
                outcomes.append(False)

    # Two tabs each, that answer the same.
    threads = [threading.Thread(target=rate, args=(r, "left")) for r in raters for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = votes.all()
    assert len(stored) == sum(outcomes) == 80
    assert len({(v.rater.number, v.position) for v in stored}) == 80
    assert votes.finished() == 8


def test_votes_of_another_study_are_not_mixed_in(database):
    Votes(database, "m")
    with pytest.raises(InputError, match="votes of another study"):
        Votes(database, "other")


def test_a_token_is_not_stored(database):
    votes = Votes(database, "m")
    _, token = votes.add_rater()
    with create_engine(database).connect() as connection:
        assert token not in str(connection.execute(text("select * from raters")).all())


def _rate_until_killed(url: str, pipe) -> None:
    votes = Votes(url, "m")
    rater, _ = votes.add_rater()
    for position in range(100_000):
        votes.record(vote(rater, position), last=False)
        pipe.send(position)


def test_what_was_acknowledged_outlives_a_kill(database):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_rate_until_killed, args=(database, theirs))
    process.start()
    while ours.recv() < 20:
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    acknowledged = 21
    while ours.poll():
        acknowledged = ours.recv() + 1
    positions = [v.position for v in Votes(database, "m").all()]
    # One more may be stored without having been acknowledged.
    assert positions == list(range(len(positions)))
    assert len(positions) - acknowledged in (0, 1)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "oracle+nothing://x",
        "sqlite:////no/such/folder/votes.sqlite3",
        "sqlite:///votes.sqlite3?timeout=never",
        "postgresql+psycopg://127.0.0.1:port/study",
        "postgresql+psycopg://127.0.0.1:1/study",
    ],
)
def test_a_database_that_cannot_be_opened_is_named(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="database"):
        Votes(url, "m")


def test_a_file_that_is_no_database_is_named(tmp_path):
    file = tmp_path / "votes.sqlite3"
    file.write_bytes(b"no database at all, whatever it is called" * 100)
    with pytest.raises(InputError, match="not a database"):
        Votes(sqlite_url(tmp_path), "m")


def test_looking_for_votes_makes_no_database(database, tmp_path):
    with pytest.raises(InputError, match="no votes yet"):
        Votes(database, "m", existing=True)
    assert list(tmp_path.iterdir()) == []
    Votes(database, "m")
    assert Votes(database, "m", existing=True).all() == []


def test_a_folder_may_be_called_anything(tmp_path):
    odd = tmp_path / "what? 100% #1"
    odd.mkdir()
    Votes(sqlite_url(odd), "m").add_rater()
    assert (odd / "votes.sqlite3").is_file()
    assert len(Votes(sqlite_url(odd), "m", existing=True).raters()) == 1


def test_servers_that_start_at_once_share_the_tables(database):
    made, failed = [], []

    def start() -> None:
        try:
            made.append(Votes(database, "m"))
        except InputError as error:
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), failed) == (6, [])
    with pytest.raises(InputError, match="another study"):
        Votes(database, "other")


@pytest.mark.parametrize("content", [b"", b"x", b"no database" * 100])
def test_what_is_no_database_is_not_made_one(tmp_path, content):
    file = tmp_path / "votes.sqlite3"
    file.write_bytes(content)
    with pytest.raises(InputError, match="there are no votes yet"):
        Votes(f"sqlite:///{file}", "0" * 64, existing=True)
    assert file.read_bytes() == content
