"""What trials have on disk, as the driver clears it away."""

from __future__ import annotations

from collections.abc import Callable

from tune_jobs.checkpoints import Checkpoints, folders
from tune_jobs.interruption import Stop
from tune_jobs.storage import StoreError


class Leftovers:
    """Told by a trial's id of what nobody will ask for any more.  What cannot be removed stays for the next sweep."""

    def __init__(self, folder: str, say: Callable[[str], None], stop: Stop) -> None:
        """`folder`: the checkpoints of all trials, a path or a URI."""
        self._folder = folder
        self._say = say
        self._stop = stop
        self._has_said = False

    def there(self) -> set[str]:
        """The trials that have something; of a store that cannot say so, none, and the search stops."""
        try:
            return folders(self._folder)
        except StoreError as error:
            self._stop.ask("store", str(error))
            return set()

    def drop(self, own_id: str) -> None:
        """Its checkpoints: its end is written down."""
        self._remove(Checkpoints.drop, own_id)

    def drop_all(self, own_id: str) -> None:
        """Its model too."""
        self._remove(Checkpoints.drop_all, own_id)

    def _remove(self, remove: Callable[[Checkpoints], None], own_id: str) -> None:
        if self._stop.cause == "store":  # it would be waited for anew
            return
        try:
            remove(Checkpoints(self._folder, own_id))
        except (StoreError, OSError) as error:
            if not self._has_said:
                self._has_said = True
                self._say(f"note: what trial {own_id} and maybe others left cannot be removed now: {error}")
