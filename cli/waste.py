"""`unionfs waste`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from unionfs import api

from . import human
from .options import AsJson, Layers, Pause, PauseLimit, Upper, Work, check_stack, store_directory
from .output import as_json, error, text, warn_of_hold
from .style import aligned
from .which import layer_name

CREATED_BY_WIDTH = 60
MaybeTarget = Annotated[
    str | None,
    typer.Argument(
        metavar="IMAGE|MOUNTPOINT",
        help="An image as for -l, or a live mount; instead of -l and -u.",
        show_default=False,
    ),
]
Top = Annotated[int, typer.Option("--top", metavar="N", min=0, help="List so many paths; 0: all.")]
Duplicates = Annotated[
    bool, typer.Option("--duplicates", help="Look for the same content in several layers, too: reads the files.")
]
FailAbove = Annotated[
    str | None,
    typer.Option("--fail-above", metavar="PERCENT%|SIZE", help="Exit status 1 if more is wasted.", show_default=False),
]
LowestEfficiency = Annotated[
    float | None,
    typer.Option(
        "--lowest-efficiency",
        metavar="FRACTION",
        min=0,
        max=1,
        help="dive's rule lowestEfficiency.",
        show_default=False,
    ),
]
HighestWastedBytes = Annotated[
    str | None,
    typer.Option("--highest-wasted-bytes", metavar="SIZE", help="dive's rule highestWastedBytes.", show_default=False),
]
HighestUserWasted = Annotated[
    float | None,
    typer.Option(
        "--highest-user-wasted-percent",
        metavar="FRACTION",
        min=0,
        max=1,
        help="dive's rule highestUserWastedPercent, a fraction as there.",
        show_default=False,
    ),
]


def waste(
    context: typer.Context,
    target: MaybeTarget = None,
    layers: Layers = None,
    upper: Upper = None,
    work: Work = None,
    top: Top = 20,
    duplicates: Duplicates = False,
    fail_above: FailAbove = None,
    lowest_efficiency: LowestEfficiency = None,
    highest_wasted_bytes: HighestWastedBytes = None,
    highest_user_wasted: HighestUserWasted = None,
    pause: Pause = True,
    pause_limit: PauseLimit = api.HOLD_SECONDS,
    json: AsJson = False,
) -> None:
    """Say which bytes of the layers nobody sees, since upper layers overwrite or remove them.

    Efficiency, and the rules that are called dive's, are what dive calls so, which counts otherwise: a file that is
    replaced with both sizes, a removed directory not at all.
    """
    check_stack(target, layers, upper, work)
    limit = None if fail_above is None else _limit(fail_above)
    most = None if highest_wasted_bytes is None else _size(highest_wasted_bytes, "--highest-wasted-bytes")
    found = api.waste(
        target,
        layers=layers or (),
        upper=upper,
        work=work,
        store=store_directory(context),
        duplicates=duplicates,
        pause=pause,
        pause_limit=pause_limit,
        on_hold=warn_of_hold,
    )
    if json:
        from . import waste_schemas as schemas

        as_json(schemas.Waste.of(found, top))
    else:
        _print(found, top)
    score = found.waste.score
    broken = [_above(found.waste, fail_above, limit)] if fail_above is not None else []
    if lowest_efficiency is not None and score.efficiency < lowest_efficiency:
        broken.append(f"efficiency {score.efficiency:.4f} is lower than {lowest_efficiency}")
    if most is not None and score.wasted > most:
        broken.append(f"dive's wasted bytes {score.wasted} are more than {highest_wasted_bytes}")
    if highest_user_wasted is not None and score.user_wasted > highest_user_wasted:
        broken.append(f"dive's wasted part of user bytes {score.user_wasted:.4f} is more than {highest_user_wasted}")
    if any(broken):
        error("; ".join(filter(None, broken)), "the paths above say where; layers that are merged hide nothing")
        raise typer.Exit(1)


# limits ---------------------------------------------------------------------------------------------------------------
def _limit(given: str) -> float | int:
    """A fraction for PERCENT%, else bytes."""
    number = given.strip().removesuffix("%")
    if number == given.strip():
        return _size(given, "--fail-above")
    try:
        percent = float(number)
    except ValueError:
        percent = -1
    if not 0 <= percent <= 100:
        raise typer.BadParameter(f"--fail-above {given}: a percentage is 0% to 100%")
    return percent / 100


def _size(given: str, option: str) -> int:
    try:
        return human.parse_size(given)
    except ValueError:
        raise typer.BadParameter(f"{option} {given}: write a size as 20MB, 1.5GiB or 300") from None


def _above(waste: api.Waste, given: str, limit: float | int | None) -> str | None:
    if isinstance(limit, float):
        if waste.fraction > limit:
            return f"{waste.fraction:.2%} of the bytes are wasted, more than {given}"
    elif limit is not None and waste.wasted > limit:
        return f"{human.size(waste.wasted)} ({waste.wasted} bytes) are wasted, more than {given}"
    return None


# text -----------------------------------------------------------------------------------------------------------------
def _print(found: api.StackWaste, top: int) -> None:
    waste = found.waste
    count = len(waste.layers)
    text(
        f"{human.size(waste.wasted)} wasted ({waste.fraction:.2%}) of {human.size(waste.stored)} "
        f"in {count} layer{'s' * (count != 1)}; efficiency {waste.score.efficiency:.2%}"
    )
    text("")
    rows = [("LAYER", "SIZE", "WASTED", "WHAT")]
    rows += [
        (layer_name(layer.number), human.size(layer.stored), human.size(layer.wasted), told(info))
        for layer, info in zip(waste.layers, found.layers, strict=True)
    ]
    for line in aligned(rows):
        text(line)
    _print_paths(waste, top)
    if found.duplicates is not None:
        _print_duplicates(found.duplicates, top)


def told(info: api.LayerInfo) -> str:
    """What a layer is: how it was made, or where it is."""
    if info.created_by:
        return human.ellipsis(" ".join(info.created_by.split()), CREATED_BY_WIDTH)
    return os.fsdecode(info.path)


def _print_paths(waste: api.Waste, top: int) -> None:
    if not waste.paths:
        return
    text("")
    rows = [("WASTED", "FILES", "IN LAYER", "WHY", "PATH")]
    for path in waste.paths[: top or None]:
        numbers = ",".join(str(number) if number else "upper" for number in path.layers)
        why = "removed" if path.removed else "overwritten"
        rows.append((human.size(path.wasted), str(path.files), numbers, why, "/" + os.fsdecode(path.path)))
    for line in aligned(rows):
        text(line)
    _rest(len(waste.paths), top)


def _print_duplicates(duplicates: tuple[api.Duplicate, ...], top: int) -> None:
    text("")
    extra = human.size(sum(one.extra for one in duplicates))
    text(f"{extra} stored again: {len(duplicates)} content{'s' * (len(duplicates) != 1)} in more than one layer")
    for one in duplicates[: top or None]:
        text(f"  {human.size(one.extra)}")
        for line in aligned([(layer_name(place.layer), "/" + os.fsdecode(place.path)) for place in one.places]):
            text(f"    {line}")
    _rest(len(duplicates), top)


def _rest(count: int, top: int) -> None:
    if top and count > top:
        text(f"… and {count - top} more (--top 0 lists all)")
