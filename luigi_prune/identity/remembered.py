"""Results remembered by the object that they were computed from: a graph shares few settings among many tasks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

Argument = TypeVar("Argument")
Returned = TypeVar("Returned")


def per_object(function: Callable[[Argument], Returned]) -> Callable[[Argument], Returned]:
    """Return `function` with its results for the latest objects remembered; the objects must not change.

    By identity, as settings contain dictionaries and cannot be hashed. The objects are held, so that no other one gets
    the identity of one of them.
    """
    known: OrderedDict[int, tuple[Argument, Returned]] = OrderedDict()

    @wraps(function)
    def remembering(argument: Argument) -> Returned:
        found = known.get(id(argument))
        if found is None:
            found = known[id(argument)] = (argument, function(argument))
            if len(known) > 4096:
                known.popitem(last=False)
        return found[1]

    return remembering
