"""Items of a data set on the hub, streamed by `datasets`; a stream can be left and gone on with. Decodes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from selfflow_bench.data.items import Item, Items, SplitName
from selfflow_bench.data.media import Encoded
from selfflow_bench.errors import FieldError, InfrastructureError, SuiteError
from selfflow_bench.protocol import HubData, HubSet
from selfflow_bench.strict_model import UNPINNED

NOT_UNPACKED = "is not among the unpacked files"


def hub_items(where: str, hub: HubData, media: Path | None = None) -> Items:
    """The items of a protocol's data set.

    Args:
        where: the protocol, for errors.
        hub: its data.
        media: a folder with the files that the data set names, where it has names and keeps media in archives.

    Raises FieldError for a revision that is not pinned. Reading raises it for columns that are not there, and
    InfrastructureError where the hub cannot be reached.
    """
    for field, one in (("data.hub", hub), ("data.hub.validation_from", hub.validation_from)):
        if one is not None and one.revision == UNPINNED:
            raise FieldError(
                where, f"{field}.revision", one.revision, "is not pinned", "Pin it: selfflow-bench pin <recipe>"
            )
    shared = hub.validation_from is None and hub.validation == hub.train
    return Items(
        hub.model_dump(mode="json"),
        {"train": hub.train_items, "validation": hub.validation_items},
        lambda split, row, state: _HubStream(where, hub, media, split, row, state),
        lambda behind: max(hub.train_skip, behind) if shared else hub.train_skip,
    )


class _HubStream:
    """Rows of a split as items."""

    def __init__(
        self,
        where: str,
        hub: HubData,
        media: Path | None,
        split: SplitName,
        row: int,
        state: tuple[int, dict[str, Any]] | None,
    ) -> None:
        held_out = split == "validation"
        self._source: HubSet = hub.validation_from if held_out and hub.validation_from is not None else hub
        self._split = hub.validation if held_out else hub.train
        self._where, self._media, self._first, self._state = where, media, row, state
        self._rows: Any = None

    def __iter__(self) -> Iterator[Item]:
        source = self._source
        try:
            self._rows = self._opened()
            begin = 0
            if self._state is not None:
                begin, state = self._state
                self._rows.load_state_dict(state)
            for number, row in enumerate(islice(self._rows, self._first - begin, None), self._first):
                yield self._item(number, row)
        except SuiteError:
            raise
        except Exception as error:  # also whatever the client's own HTTP library raises
            text = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            remedy = (
                "The same command goes on. One that is gated needs its terms accepted on the hub, and: hf auth login"
            )
            raise InfrastructureError(
                f"{source.id}@{source.revision}: cannot be read from the hub: {text}. {remedy}"
            ) from error

    def state(self) -> dict[str, Any] | None:
        found: dict[str, Any] = self._rows.state_dict()
        return found

    def _opened(self) -> Any:
        """The rows, with what they are of and nothing more."""
        import datasets

        # Threads that read ahead would hold the end of every stream up by seconds.
        datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0
        source = self._source
        rows = datasets.load_dataset(
            source.id, source.config, split=self._split, revision=source.revision, streaming=True
        ).decode(False)
        wanted = [name for name in (source.medium, source.caption, source.label, source.reference) if name is not None]
        there = rows.column_names
        if there is None:
            return rows
        for name in wanted:
            if name not in there:
                field = next(one for one in ("medium", "caption", "label", "reference") if getattr(source, one) == name)
                problem = f"is no column of {source.id}@{source.revision}"
                remedy = f"It has: {', '.join(there)}."
                raise FieldError(self._where, f"data.hub.{field}", name, problem, remedy)
        return rows.select_columns([*wanted, *(["__key__"] if "__key__" in there else [])])

    def _item(self, number: int, row: Mapping[str, Any]) -> Item:
        source = self._source
        name = str(row.get("__key__", number))
        medium = self._encoded(row[source.medium])
        reference = None if source.reference is None else self._encoded(row[source.reference])
        return Item(
            name,
            medium or b"",
            None if source.caption is None else _first(row[source.caption]),
            None if source.label is None else int(row[source.label]),
            reference,
            NOT_UNPACKED if medium is None or (source.reference is not None and reference is None) else None,
        )

    def _encoded(self, value: Any) -> Encoded | None:
        """A medium, or none where the file that stands for it is not there."""
        if isinstance(value, bytes):
            return value
        if isinstance(value, Mapping):
            content: bytes | None = value.get("bytes")
            if content is not None:
                return content
            import fsspec

            with fsspec.open(value["path"], "rb") as file:
                read: bytes = file.read()
                return read
        if not isinstance(value, str):
            raise FieldError(
                self._where, "data.hub.medium", self._source.medium, f"holds {type(value).__name__}", "Name another."
            )
        if self._media is None:
            problem = f"holds names of files ({value!r}), which are in archives beside the table"
            remedy = "Unpack them into a folder and name it: --media FOLDER."
            raise FieldError(self._where, "data.hub.medium", self._source.medium, problem, remedy)
        path = self._media / value
        return path if path.is_file() else None


def _first(caption: Any) -> str:
    return str(caption[0] if isinstance(caption, list) else caption)
