"""Raters and votes in a database: SQLite in a file, or any server by its URL. What is recorded is on disk."""

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from sqlalchemy import (
    JSON,
    URL,
    DateTime,
    Engine,
    Float,
    ForeignKey,
    Integer,
    String,
    UniqueConstraint,
    create_engine,
    event,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from videogpa.errors import InputError

SQLITE = "votes.sqlite3"
BUSY_MILLISECONDS = 10_000
TOKEN_BYTES = 24


class Base(DeclarativeBase):
    """The tables."""


class StudyRow(Base):
    """Which study the votes are of, by the hash of its manifest: one row, whoever writes it first."""

    __tablename__ = "study"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False, default=1)
    manifest: Mapped[str] = mapped_column(String(64))


class RaterRow(Base):
    """Somebody who rates, and nothing of a person. `number` decides the schedule; of the link only a hash is kept."""

    __tablename__ = "raters"
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(16), unique=True)
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    began: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    finished: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=None)


class VoteRow(Base):
    """What a rater said of one screen: `answers` by question (left, right, tie), as it was shown there."""

    __tablename__ = "votes"
    __table_args__ = (UniqueConstraint("rater", "position"),)
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    rater: Mapped[int] = mapped_column(ForeignKey("raters.number"), index=True)
    position: Mapped[int] = mapped_column(Integer)
    item: Mapped[str] = mapped_column(String(64))
    left: Mapped[str] = mapped_column(String(8))
    again: Mapped[bool]
    answers: Mapped[dict[str, str]] = mapped_column(JSON)
    tags: Mapped[list[str]] = mapped_column(JSON)
    seconds: Mapped[float] = mapped_column(Float)
    received: Mapped[datetime] = mapped_column(DateTime(timezone=True))


@dataclass(frozen=True, kw_only=True)
class Rater:
    """Somebody known by a link; `name` stands for them in tables."""

    number: int
    name: str


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One answered screen, as it is stored."""

    rater: Rater
    position: int
    item: str
    left: str
    again: bool
    answers: Mapping[str, str]
    tags: Sequence[str]
    seconds: float
    received: datetime


class OutOfTurn(Exception):
    """A vote for a screen that is not the rater's next one and has another answer, or none, so far."""


class Votes:
    """The votes of one study, in a database that is set up where it is empty, unless it is to be there (`existing`).

    Raises:
        InputError: the database cannot be opened, its votes are of another study, or it should be there and is not.
    """

    def __init__(self, url: str | URL, manifest: str, *, existing: bool = False):
        self.engine = _engine(url)
        # One write at a time. Who waits for SQLite sleeps, and not in turn; with PostgreSQL, threads that all come
        # back for the interpreter between statements take longer than in turn (benchmarks/study_load.py).
        self._turn = Lock()
        self._raters: dict[str, Rater] = {}
        self._answered: dict[int, int] = {}
        try:
            if existing:
                self._require_tables()
            else:
                self._set_up(manifest)
            with Session(self.engine) as session:
                found = session.scalar(select(StudyRow.manifest))
        except (SQLAlchemyError, TypeError, ValueError) as error:
            told = error.orig if isinstance(error, DBAPIError) else error
            raise InputError(f"the votes' database cannot be used: {' '.join(str(told).split())}") from error
        if found != manifest:
            raise InputError("the database holds votes of another study; give this one a database of its own")

    def add_rater(self) -> tuple[Rater, str]:
        """A new rater and the token of the link by which they go on."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        with self._writing() as session:
            row = RaterRow(name=secrets.token_hex(8), token_sha256=_hash(token), began=now())
            session.add(row)
            session.flush()
            return Rater(number=row.number, name=row.name), token

    def rater(self, token: str) -> Rater | None:
        """Whose link it is; None if nobody's."""
        digest = _hash(token)
        if digest not in self._raters:
            with Session(self.engine) as session:
                row = session.scalar(select(RaterRow).where(RaterRow.token_sha256 == digest))
            if row is None:
                return None
            self._raters[digest] = Rater(number=row.number, name=row.name)
        return self._raters[digest]

    def remembered(self, token: str) -> Rater | None:
        """Whose link it is, where that was asked before: without the database."""
        return self._raters.get(_hash(token))

    def answered(self, rater: Rater) -> int:
        """How many screens the rater has done: the position of the next one."""
        with Session(self.engine) as session:
            found = _answered(session, rater.number)
        self._answered[rater.number] = found
        return found

    def answered_at_least(self, rater: Rater) -> int:
        """How many screens the rater had done when that was last asked: without the database."""
        return self._answered.get(rater.number, 0)

    def finished(self) -> int:
        """How many raters are through."""
        with Session(self.engine) as session:
            return session.scalar(select(func.count()).where(RaterRow.finished.is_not(None))) or 0

    def record(self, vote: Vote, *, last: bool) -> bool:
        """Store a vote; when this returns it is on disk. False where exactly this one was there already.

        Raises:
            OutOfTurn: the screen has another answer already, or is not the next one.
        """
        try:
            with self._writing() as session:
                number = vote.rater.number
                if vote.position != _answered(session, number):
                    if _same(session, vote):
                        return False
                    raise OutOfTurn(f"screen {vote.position} is not the next one")
                session.execute(insert(VoteRow).values(_columns(vote)))
                if last:
                    finished = update(RaterRow).where(RaterRow.number == number)
                    session.execute(finished.values(finished=vote.received))
        except IntegrityError:
            # Another request was faster: the first answer counts.
            with Session(self.engine) as session:
                if not _same(session, vote):
                    raise
            return False
        self._answered[vote.rater.number] = vote.position + 1
        return True

    def all(self) -> list[Vote]:
        """Every vote, by rater and position."""
        statement = (
            select(VoteRow, RaterRow.name)
            .join(RaterRow, VoteRow.rater == RaterRow.number)
            .order_by(VoteRow.rater, VoteRow.position)
        )
        with Session(self.engine) as session:
            return [_vote(row, name) for row, name in session.execute(statement)]

    def raters(self) -> list[tuple[Rater, datetime, datetime | None]]:
        """Every rater, when they began and when they finished."""
        with Session(self.engine) as session:
            rows = session.scalars(select(RaterRow).order_by(RaterRow.number))
            return [
                (Rater(number=r.number, name=r.name), _utc(r.began), r.finished and _utc(r.finished))
                for r in rows
            ]

    def _set_up(self, manifest: str) -> None:
        writing = self.engine.execution_options(writes=True)
        try:
            Base.metadata.create_all(writing)
        except (IntegrityError, OperationalError, ProgrammingError):
            # Another process may be making the same tables; what is wrong otherwise is wrong the second time, too.
            Base.metadata.create_all(writing)
        try:
            with self._writing() as session:
                if session.scalar(select(StudyRow.manifest)) is None:
                    session.add(StudyRow(manifest=manifest))
        except IntegrityError:
            # Another process was faster; whose study it is is looked at next.
            return

    def _require_tables(self) -> None:
        file = self.engine.url.database
        # Looking into a file that is missing would make it.
        missing = self.engine.dialect.name == "sqlite" and not (file and _is_sqlite(Path(file)))
        if missing or not inspect(self.engine).has_table(StudyRow.__tablename__):
            raise InputError(f"there are no votes yet in {self.engine.url.render_as_string()}")

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        writing = self.engine.execution_options(writes=True)
        with self._turn, Session(writing) as session, session.begin():
            yield session


def _is_sqlite(file: Path) -> bool:
    """Whether there is something to be read (SQLite takes a few bytes of anything for an empty database)."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(16) == b"SQLite format 3\0"


def sqlite_url(study: Path) -> URL:
    """The database that a study has by default, in its own folder."""
    return URL.create("sqlite", database=str((study / SQLITE).resolve()))


def now() -> datetime:
    """The time that is stored."""
    return datetime.now(UTC)


def _engine(url: str | URL) -> Engine:
    try:
        engine = create_engine(url, pool_size=20, max_overflow=20)
    except (SQLAlchemyError, ModuleNotFoundError, TypeError, ValueError) as error:
        raise InputError(f"no database can be opened by the URL given: {error}") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    # SQLAlchemy begins transactions itself, see below.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout={BUSY_MILLISECONDS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Any) -> None:
    # Who will write takes the lock at once: one that reads first may find it taken and fail without waiting.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _answered(session: Session, number: int) -> int:
    return session.scalar(select(func.count()).where(VoteRow.rater == number)) or 0


def _same(session: Session, vote: Vote) -> bool:
    """Whether this very vote is there; an error where its screen has another answer or other reasons."""
    found = session.scalar(
        select(VoteRow).where(VoteRow.rater == vote.rater.number, VoteRow.position == vote.position)
    )
    if found is None:
        return False
    if dict(found.answers) != dict(vote.answers) or list(found.tags) != list(vote.tags):
        raise OutOfTurn(f"screen {vote.position} has another answer already")
    return True


def _columns(vote: Vote) -> dict[str, Any]:
    return {
        "rater": vote.rater.number,
        "position": vote.position,
        "item": vote.item,
        "left": vote.left,
        "again": vote.again,
        "answers": dict(vote.answers),
        "tags": list(vote.tags),
        "seconds": vote.seconds,
        "received": vote.received,
    }


def _vote(row: VoteRow, name: str) -> Vote:
    return Vote(
        rater=Rater(number=row.rater, name=name),
        position=row.position,
        item=row.item,
        left=row.left,
        again=row.again,
        answers=row.answers,
        tags=row.tags,
        seconds=row.seconds,
        received=_utc(row.received),
    )


def _utc(stored: datetime) -> datetime:
    # SQLite forgets the zone.
    return stored.replace(tzinfo=UTC) if stored.tzinfo is None else stored.astimezone(UTC)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
