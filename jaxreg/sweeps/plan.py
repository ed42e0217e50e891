"""Which configurations run together: decided once, before anything runs, so that the same chunks run again."""

import logging

from jaxreg.sweeps import chunks
from jaxreg.sweeps.program import ahead
from jaxreg.sweeps.running import bucket, rounded

log = logging.getLogger("jaxreg.sweeps")


class Plan:
    """The cells of a space, and the tasks that they belong to.

    Args:
        space: the configurations.
        groups: those of the space.
        programs: group -> its program.
        records: a `Store` or `Memory`, which may have plans of earlier calls.
        chunk: how many configurations run at once; None chooses.
        memory: bytes for a chunk; None is what is available.
        agree: a function of an integer that makes all processes of a run use that of the first.
    """

    def __init__(self, space, groups, programs, records, chunk, memory, agree=lambda size: size):
        self.space, self.records, self.programs = space, records, programs
        self.cells = space.cells()
        self.groups = {group.name: group for group in groups}
        self._only = groups[0].name if len(groups) == 1 else None  # no need to look it up
        others = groups if len(groups) > 1 else []
        self._group_of = {self.cells[row]: group.name for group in others for row in group.rows.tolist()}
        self._chunk, self._memory, self._agree = chunk, memory, agree
        self.chunks: dict[str, int] = {}

    def tasks(self, cells: list[tuple], mark=lambda cell: cell, *, first: bool = True) -> list[str]:
        """The tasks of these cells; of those that no plan has, in new chunks.

        Args:
            cells: configurations.
            mark: cell -> what the records call it: itself, or itself at a rung.
            first: whether they start here; later rungs go on in chunks that are no larger than they need.
        """
        new: dict[str, list[tuple]] = {}
        for cell in dict.fromkeys(cells):
            if mark(cell) not in self.records.cells:
                name = self._only if self._only is not None else self._group_of[cell]
                new.setdefault(name, []).append(mark(cell))
        tasks = []
        order = sorted(new, key=lambda name: -self.programs[name].cost)
        undecided = [
            name for name in order if first and self._chunk is None and self.records.recall(self._key(name)) is None
        ]
        with ahead(
            [(self.programs[name], chunks.candidate(self.programs[name], len(new[name]))) for name in undecided]
        ):
            for group in order:
                size = self._size(group, len(new[group]), first)
                tasks += [(group, new[group][i : i + size]) for i in range(0, len(new[group]), size)]
        self.records.extend(tasks)
        found = list(dict.fromkeys(self.records.cells[mark(cell)][0] for cell in cells))
        for task in found:  # planned now or by an earlier call: what follows does not depend on it
            name, devices = self.records.group[task], self.programs[self.records.group[task]].mesh.size
            self.chunks[name] = max(self.chunks.get(name, 0), rounded(len(self.records.tasks[task]), devices))
        return found

    def _key(self, name: str) -> str:
        return f"chunk of {self.programs[name].fingerprint} on {self.programs[name].mesh.size} devices"

    def _size(self, name: str, count: int, first: bool) -> int:
        program = self.programs[name]
        devices = program.mesh.size
        if not first:
            return min(self.chunks[name], bucket(count, devices))
        size, facts = self._chunk, {}
        if size is None:
            size = self.records.recall(self._key(name))
            facts = {"from": "the store"}
            size = self._agree(size or 0) or None
        if size is None:
            group = self.groups[name]
            size, facts = chunks.choose(program, self.space.numbers(group.numbers, group.rows), count, self._memory)
            if size < count:
                self.records.remember(self._key(name), size)
        size = rounded(min(int(size), count), devices)
        if self._chunk is None:
            size = chunks.balanced(program, count, size)
        size = self._agree(size)
        told = ", ".join(f"{key} {value}" for key, value in facts.items())
        told = f" with {name}" * bool(name) + f" in chunks of {size}" + f" ({told})" * bool(told)
        log.info("%d configurations%s", count, told)
        return size
