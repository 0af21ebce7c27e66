"""Which step needs which: unknown names and cycles, named as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def cycle(needs: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Steps of one cycle in order of need, the first repeated at the end; empty when there is none.

    Iterative depth-first search; starts and neighbours are taken in the given order, so the answer repeats.
    """
    done: set[str] = set()
    for start in needs:
        path: list[str] = []
        on_path: set[str] = set()
        stack: list[tuple[str, int]] = [(start, 0)]
        while stack:
            name, at = stack.pop()
            if at == 0:
                if name in done:
                    continue
                path.append(name)
                on_path.add(name)
            following = needs.get(name, ())
            if at == len(following):
                done.add(path.pop())
                on_path.remove(name)
                continue
            stack.append((name, at + 1))
            target = following[at]
            if target in on_path:
                return (*path[path.index(target) :], target)
            if target not in done:
                stack.append((target, 0))
    return ()
